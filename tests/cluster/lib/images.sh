# The images: no registry holds them, `images/oci` writes them and `ctr images import` reads them.
# shellcheck shell=bash

IMAGE_PREFIX=localhost/sniff-test

build_images() {
    local out=$1 applet busybox applets=()
    busybox=$(command -v busybox)
    for applet in $("$busybox" --list); do
        [[ $applet == busybox ]] || applets+=(--link "bin/$applet=busybox")
    done
    # The directories that the demo shop's pods mount from the host are there from the start: a pod with a read-only root
    # could not make them.
    local base=(--tree "$HERE/images/rootfs" --file "bin/busybox=$busybox" "${applets[@]}"
        --dir tmp=1777 --dir root=0700 --dir usr=0755 --dir lib=0755 --dir lib64=0755 --dir etc/alternatives=0755)
    mkdir "$out"
    write_image "$out" pause --entrypoint /pause --file "pause=$PAUSE"
    write_image "$out" coredns --entrypoint /coredns --file "coredns=$COREDNS"
    write_image "$out" busybox --command /bin/sh "${base[@]}"
    write_image "$out" tools --command /bin/sh "${base[@]}" --program "bin/tcpdump=$(command -v tcpdump)"
}

write_image() { # DIRECTORY NAME OPTION…
    "$HERE/images/oci" "$1/$2.oci.tar" --name "$IMAGE_PREFIX/$2:1" "${@:3}"
}
