# The nodes. Each is a set of namespaces held by one idle process, with a link to the host's bridge, and in it containerd,
# kubelet and kube-proxy.
# shellcheck shell=bash

NODE_PROGRAMS=(containerd kubelet kube-proxy)

# in_node N COMMAND…: replaces this process, so its id is the command's.
in_node() {
    local pid
    pid=$(pid_of "node$1") || fail "node $1 does not run" "start the cluster with: $0 up"
    exec nsenter --target "$pid" --mount --net --uts -- "${@:2}"
}

# --- Network ---------------------------------------------------------------------------------------------------------

check_subnet() {
    local taken
    taken=$(ip -4 -o route show root "$SUBNET.0.0/16")
    [[ -z $taken ]] || fail "$SUBNET.0.0/16 is in use on this machine: ${taken%%$'\n'*}" "choose another /16: SNIFF_CLUSTER_SUBNET=10.214 $0 up"
}

make_bridge() {
    ip link add "$BRIDGE" type bridge
    ip addr add "$HOST_IP/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
}

connect_node() {
    local n=$1 link other
    link=$(node_name "$n")
    ip link add "$link" type veth peer name eth0 netns "$(pid_of "node$n")"
    ip link set "$link" master "$BRIDGE" up
    # The host reaches the pods too: the API server's proxy needs it, and its answers to them.
    ip route add "$(node_pod_cidr "$n")" via "$(node_ip "$n")"
    {
        echo "addr add $(node_ip "$n")/24 dev eth0"
        echo "link set eth0 up"
        echo "route add default via $HOST_IP"
        for other in "${NODES[@]}"; do
            [[ $other == "$n" ]] || echo "route add $(node_pod_cidr "$other") via $(node_ip "$other")"
        done
    } | (in_node "$n" ip -batch -)
}

# --- Programs --------------------------------------------------------------------------------------------------------

start_node() {
    local n=$1 directory=$DIR/node$1 name
    name=$(node_name "$n")
    mkdir -p "$directory"/{run,var/tmp,var/lib/sniff/cni,var/lib/kubelet,var/log}
    ln -s /run "$directory/var/run"
    chmod 1777 "$directory/var/tmp"
    configure_node "$n" "$directory/var/lib/sniff"
    spawn "node$n" unshare --mount --net --uts "$HERE/lib/node-init" "$directory" "$name" "$HYPERKUBE" "$PAUSE"
}

node_file() { printf '/proc/%s/root%s' "$(pid_of "node$1")" "$2"; }
node_prepared() { [[ -e $(node_file "$1" /run/node-ready) ]]; }
containerd_listens() { [[ -S $(node_file "$1" /run/containerd/containerd.sock) ]]; }

start_containerd() { spawn_in_node "$1" containerd containerd --config /var/lib/sniff/containerd.toml; }

start_kubelet() {
    spawn_in_node "$1" kubelet /run/hyperkube kubelet --config=/var/lib/sniff/kubelet.yaml \
        --kubeconfig=/var/lib/sniff/kubelet.kubeconfig --node-ip="$(node_ip "$1")" --hostname-override="$(node_name "$1")"
}

start_kube-proxy() { spawn_in_node "$1" kube-proxy /run/hyperkube kube-proxy --config=/var/lib/sniff/kube-proxy.yaml; }

spawn_in_node() { # N NAME COMMAND…
    spawn "$2$1" nsenter --target "$(pid_of "node$1")" --mount --net --uts -- "${@:3}"
}

load_image() { # N FILE; by stdin, for the node does not see the host's /var
    (in_node "$1" ctr --namespace k8s.io images import --snapshotter overlayfs - <"$2") >"$DIR/log/import$1.log" 2>&1 ||
        fail "node $1 could not import $2: $(tail -n 1 "$DIR/log/import$1.log")"
}

load_image_everywhere() {
    local n jobs=()
    for n in "${NODES[@]}"; do
        load_image "$n" "$1" &
        jobs+=($!)
    done
    for n in "${jobs[@]}"; do wait "$n" || exit 1; done
}

# --- Configuration ---------------------------------------------------------------------------------------------------

configure_node() { # N DIRECTORY
    local n=$1 conf=$2 name
    name=$(node_name "$n")
    cp "$DIR/pki/ca.crt" "$conf/ca.crt"
    cp "$DIR/pki/$name.crt" "$conf/node.crt"
    cp "$DIR/pki/$name.key" "$conf/node.key"
    cp "$DIR/pki/$name.kubeconfig" "$conf/kubelet.kubeconfig"
    cp "$DIR/pki/kube-proxy.kubeconfig" "$conf/kube-proxy.kubeconfig"
    # Of pods with dnsPolicy Default. The host's own file may be a link into the /run that a node does not see.
    echo "nameserver $DNS_IP" >"$conf/resolv.conf"

    # restrict_oom_score_adj: in a container or VM without CAP_SYS_RESOURCE no sandbox starts otherwise.
    # disable_apparmor: containerd would load a profile into the host's kernel and leave it there.
    # opt: containerd would make that directory below /opt, which is the host's.
    # netns_mounts_under_state_dir: pods' network namespaces go where the node's other state goes.
    cat >"$conf/containerd.toml" <<EOF
version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$IMAGE_PREFIX/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/var/lib/sniff/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
EOF

    # ptp, not a bridge: between two pods on one bridge the answer to a service's request takes a short cut past the rules
    # that would translate its address back, unless br_netfilter is loaded. Routed links need no kernel module.
    cat >"$conf/cni/10-sniff.conflist" <<EOF
{"cniVersion": "1.0.0", "name": "sniff", "plugins": [{"type": "ptp", "mtu": 1500, "ipam": {
  "type": "host-local", "ranges": [[{"subnet": "$(node_pod_cidr "$n")"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
EOF

    # failCgroupV1: a kubelet may refuse cgroup v1 by its own choice, and a test machine may have nothing else.
    # volumePluginDir: by itself it would be made below /usr, which is the host's.
    # evictionHard: the host's disk may be nearly full for reasons of its own.
    cat >"$conf/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /var/lib/sniff/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: /var/lib/sniff/node.crt
tlsPrivateKeyFile: /var/lib/sniff/node.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/node$n
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [$DNS_IP]
resolvConf: /var/lib/sniff/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
maxPods: 200
EOF

    # conntrack 0: the limits are the kernel's, and a network namespace may not set them.
    cat >"$conf/kube-proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: /var/lib/sniff/kube-proxy.kubeconfig}
hostnameOverride: $name
clusterCIDR: $POD_CIDR
conntrack: {maxPerCore: 0, min: 0}
EOF
}
