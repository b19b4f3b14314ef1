# Settings, messages, and processes that outlive this script.
# shellcheck shell=bash disable=SC2034  # read by the other files

# Where things are. Everything a running cluster writes is under DIR; everything worth keeping between runs under CACHE.
DIR=$(realpath -m "${SNIFF_CLUSTER_DIR:-/var/tmp/kubectl-sniff-cluster}")
CACHE=$(realpath -m "${SNIFF_CACHE:-/var/cache/kubectl-sniff}")

# A /16 of which the cluster takes three pieces: the bridge with the nodes, the pods, and the services.
# The commands that follow `up` find it in a file.
SUBNET=${SNIFF_CLUSTER_SUBNET:-$(cat "$DIR/subnet" 2>/dev/null || echo 10.213)}
HOST_IP=$SUBNET.0.1
POD_CIDR=$SUBNET.16.0/20
SERVICE_CIDR=$SUBNET.128.0/20
API_SERVICE_IP=$SUBNET.128.1
DNS_IP=$SUBNET.128.10
NODES=(1 2)
BRIDGE=sniff-br0
node_name() { printf 'sniff-node%s' "$1"; }
node_ip() { printf '%s.0.1%s' "$SUBNET" "$1"; }
node_pod_cidr() { printf '%s.%s.0/24' "$SUBNET" "$((16 + $1))"; }

# None of these is a port that etcd, Kubernetes, kind, k3s or minikube takes by itself.
API_PORT=26443 ETCD_PORT=22379 ETCD_PEER_PORT=22380 CONTROLLER_MANAGER_PORT=20257 SCHEDULER_PORT=20259

STARTED=${EPOCHREALTIME/./}

say() {
    local us=$((${EPOCHREALTIME/./} - STARTED))
    printf 'cluster: %3d.%ds  %s\n' $((us / 1000000)) $((us % 1000000 / 100000)) "$*" >&2
}

# fail CAUSE [HINT]
fail() {
    printf 'error: %s\n' "$1" >&2
    [[ $# -lt 2 ]] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

need_root_and_debian() {
    local elsewhere="to run the tests against a cluster you already have (kind, for one), set SNIFF_TEST_KUBECONFIG to its kubeconfig"
    [[ $(uname -s) == Linux ]] || fail "the test cluster needs Linux network namespaces, and this is $(uname -s)" "$elsewhere"
    command -v dpkg-query >/dev/null || fail "the test cluster is made of Debian packages, and there is no dpkg here" "$elsewhere"
    [[ $EUID -eq 0 ]] || fail "the test cluster makes network namespaces and containers, which takes root" "run it with sudo; or, $elsewhere"
}

# One change to the cluster or the cache at a time; a second one waits.
take_lock() {
    mkdir -p "$CACHE"
    exec {lock}>"$CACHE/lock"
    flock -n "$lock" || { say "waiting for another run of this script to finish"; flock "$lock"; }
}

# --- Processes -------------------------------------------------------------------------------------------------------
# Every process of the cluster lives in a control group below CGROUP: the control plane and the runtimes in "system", the
# pods of a node in "nodeN". So `down` finds them all, whoever their parent was, and touches nothing else.
#
# Each program we start also has a file DIR/run/NAME with its process id and start time. An id alone may belong to another
# program since, after a reboot for one.

CGROUP=kubectl-sniff-cluster

# The mounted control group hierarchies: one in cgroup v2, one for each controller in v1.
cgroup_hierarchies() {
    local directory
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        echo /sys/fs/cgroup
        return
    fi
    for directory in /sys/fs/cgroup/*/; do # The "unified" one of a hybrid machine has no controllers to offer.
        [[ ! -e ${directory}cgroup.procs || -e ${directory}cgroup.controllers || -L ${directory%/} ]] || echo "${directory%/}"
    done
}

make_cgroups() {
    local hierarchy node
    for hierarchy in $(cgroup_hierarchies); do
        mkdir -p "$hierarchy/$CGROUP/system"
        for node in "${NODES[@]}"; do mkdir -p "$hierarchy/$CGROUP/node$node"; done
        delegate_controllers "$hierarchy"
        delegate_controllers "$hierarchy/$CGROUP"
    done
}

# In cgroup v2 a group may use the controllers that its parent hands down; in v1 there is nothing to do.
delegate_controllers() {
    local controller
    [[ -e $1/cgroup.subtree_control ]] || return 0
    for controller in $(<"$1/cgroup.controllers"); do
        echo "+$controller" 2>/dev/null >"$1/cgroup.subtree_control" || true # One that is taken is one we can do without.
    done
}

join_system_group() {
    local hierarchy
    for hierarchy in $(cgroup_hierarchies); do
        # A new cpuset has no CPU and takes no process; the pods' ones are filled in by runc.
        [[ $hierarchy == */cpuset ]] || echo "$BASHPID" >"$hierarchy/$CGROUP/system/cgroup.procs"
    done
}

kill_everything() {
    local group processes groups=()
    for group in /sys/fs/cgroup/{,*/}"$CGROUP"; do # The containers' runtime also makes it where we did not.
        [[ ! -d $group ]] || groups+=("$group")
    done
    [[ ${#groups[@]} -gt 0 ]] || return 0
    for _ in {1..100}; do
        # 0 stands for a process outside our pid namespace, and would mean ourselves to kill.
        mapfile -t processes < <(find "${groups[@]}" -name cgroup.procs -exec cat {} + 2>/dev/null | grep -vx 0 | sort -u)
        if [[ ${#processes[@]} -gt 0 ]]; then
            kill -KILL "${processes[@]}" 2>/dev/null || true
        else
            find "${groups[@]}" -depth -type d -exec rmdir {} + 2>/dev/null && return
        fi
        sleep 0.1
    done
    fail "some processes of the cluster do not die: ${processes[*]:-(none), but their control group stays busy}"
}

start_time() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    local fields
    read -ra fields <<<"${stat##*) }" # The name before it may hold spaces.
    [[ ${fields[0]} != Z ]] || return 1
    echo "${fields[19]}"
}

# spawn NAME COMMAND…: starts it in a session of its own, its output to DIR/log/NAME.log.
spawn() {
    local name=$1
    shift
    (
        # A caller that reads our output to its end (make, a test harness) would wait for whoever else holds its pipes.
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if ((fd > 2 && fd != 255)); then eval "exec $fd>&-"; fi
        done
        join_system_group
        exec setsid "$@" </dev/null >>"$DIR/log/$name.log" 2>&1
    ) &
    echo "$! $(start_time $!)" >"$DIR/run/$name"
}

# pid_of NAME: prints its process id, and fails when it does not run.
pid_of() {
    local pid started
    { read -r pid started <"$DIR/run/$1"; } 2>/dev/null || return 1
    [[ -n $started && $(start_time "$pid") == "$started" ]] && echo "$pid"
}

# kill_now NAME…: SIGKILL, and wait until they are gone. The state is thrown away or rebuilt, so nobody needs the time for
# a graceful end; the API server alone would take a minute to drain its watches.
kill_now() {
    local name pid
    for name; do
        if pid=$(pid_of "$name"); then kill -KILL "$pid" 2>/dev/null || true; fi
    done
    for name; do
        wait_until 5 "$name did not die" stopped "$name"
        rm -f "$DIR/run/$name"
    done
}

stopped() { ! pid_of "$1" >/dev/null; }

# wait_until SECONDS CAUSE COMMAND…: polls the command; the cause is what the error says.
wait_until() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000)) cause=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((${EPOCHREALTIME/./} < deadline)) || fail "$cause" "the logs are in $DIR/log"
        sleep 0.1
    done
}
