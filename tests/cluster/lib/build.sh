# What the cluster is made of: Debian packages, Go programs and images, each built once into the cache.
# shellcheck shell=bash

build() {
    install_packages
    HYPERKUBE=$(artifact hyperkube "$(module_version hyperkube k8s.io/kubernetes)" "$HERE"/hyperkube/*)
    COREDNS=$(artifact coredns "$(module_version coredns github.com/coredns/coredns)" "$HERE"/coredns/*)
    KREW=$(artifact krew "$(module_version krew sigs.k8s.io/krew)" "$HERE"/krew/*)
    PAUSE=$(artifact pause 1 "$HERE/images/pause.c")
    IMAGES=$(artifact images 1 "$HERE/images/oci" "$HERE"/images/rootfs/etc/* "$HERE/lib/images.sh" \
        "$PAUSE" "$(command -v busybox)" "$(command -v tcpdump)" "$COREDNS")
}

# --- Packages --------------------------------------------------------------------------------------------------------

install_packages() {
    local wanted missing=()
    mapfile -t wanted < <(sed 's/#.*//; s/[[:space:]]*$//; /^$/d' "$HERE/packages.txt")
    mapfile -t missing < <(comm -23 <(printf '%s\n' "${wanted[@]}" | sort) \
        <(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^ii *//p' | sort))
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing ${missing[*]}"
    (
        # Debian starts a server when its package is installed. We want the programs, not the services.
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        export DEBIAN_FRONTEND=noninteractive
        apt=(apt-get -qq -o DPkg::Lock::Timeout=600)
        "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
    ) >&2 || fail "apt could not install: ${missing[*]}" "install them by hand, then run this again"
}

# --- Cache -----------------------------------------------------------------------------------------------------------

# artifact NAME VERSION INPUT…: prints the path of what build_NAME makes, built when no run before had the same inputs.
artifact() {
    local name=$1 version=$2 path key
    shift 2
    key=$(for input; do
        printf '%s ' "${input##*/}"
        [[ $input == "$CACHE"/* ]] || sha256sum <"$input" # The name of another artifact tells its content.
    done | sha256sum)
    path=$CACHE/$name-$version-${key:0:12}
    if [[ ! -e $path ]]; then
        say "building $name $version"
        rm -rf "$path.new"
        mkdir -p "$CACHE/log"
        # Not simply `build || fail`: bash would ignore the failures of all but the last command in there.
        "build_$name" "$path.new" "$version" >"$CACHE/log/$name.log" 2>&1 &
        wait $! ||
            fail "building $name failed: $(tail -n 1 "$CACHE/log/$name.log")" "the whole output is in $CACHE/log/$name.log"
        mv "$path.new" "$path" # Only a finished build ever has the name that is looked for.
        say "built $name $version"
    fi
    printf '%s\n' "$path"
}

# --- Go programs -----------------------------------------------------------------------------------------------------

module_version() { # DIRECTORY MODULE: the version that go.mod asks for
    awk -v module="$2" '$1 == "require" { $0 = substr($0, 9) } $1 == module { print substr($2, 2); exit }' "$HERE/$1/go.mod"
}

go_build() { # DIRECTORY OUT PACKAGE [LDFLAGS]
    local PATH=$PATH:/usr/local/go/bin # sudo drops it
    command -v go >/dev/null || { echo "there is no Go compiler: install Go 1.26 or newer from https://go.dev/dl"; return 1; }
    cd "$HERE/$1" && CGO_ENABLED=0 nice go build -ldflags "-s -w ${4:-}" -o "$2" "$3"
}

build_hyperkube() {
    local version=k8s.io/component-base/version major minor
    IFS=. read -r major minor _ <<<"$2"
    go_build hyperkube "$1" . "-X $version.gitVersion=v$2 -X $version.gitMajor=$major -X $version.gitMinor=$minor"
}

build_coredns() { go_build coredns "$1" github.com/coredns/coredns; }

build_krew() { go_build krew "$1" sigs.k8s.io/krew/cmd/krew; }

build_pause() { gcc -static -Os -s -Wall -Wextra -Werror -o "$1" "$HERE/images/pause.c"; }
