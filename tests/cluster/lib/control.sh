# The control plane: etcd, API server, controller manager and scheduler, on the host itself.
# shellcheck shell=bash

CONTROL_PLANE=(etcd kube-apiserver kube-controller-manager kube-scheduler)

start_etcd() {
    # Without fsync: this store does not have to survive the machine, and other work's disk writes would slow it down.
    spawn etcd etcd --data-dir "$DIR/etcd" --unsafe-no-fsync \
        --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
        --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
        --initial-cluster "default=http://127.0.0.1:$ETCD_PEER_PORT"
}

start_kube-apiserver() {
    # Pod Security admission and the other default plugins are on; NodeRestriction is what kubeadm adds.
    spawn kube-apiserver "$HYPERKUBE" kube-apiserver \
        --etcd-servers="http://127.0.0.1:$ETCD_PORT" \
        --bind-address=0.0.0.0 --secure-port="$API_PORT" --advertise-address="$HOST_IP" \
        --service-cluster-ip-range="$SERVICE_CIDR" \
        --client-ca-file="$DIR/pki/ca.crt" \
        --tls-cert-file="$DIR/pki/kube-apiserver.crt" --tls-private-key-file="$DIR/pki/kube-apiserver.key" \
        --kubelet-client-certificate="$DIR/pki/kubelet-client.crt" --kubelet-client-key="$DIR/pki/kubelet-client.key" \
        --kubelet-certificate-authority="$DIR/pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$DIR/pki/service-accounts.pub" \
        --service-account-signing-key-file="$DIR/pki/service-accounts.key" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
}

start_kube-controller-manager() {
    # kube-api-qps: with the default, 20, its own start takes 5 seconds. flex-volume-plugin-dir: the default is below /usr.
    spawn kube-controller-manager "$HYPERKUBE" kube-controller-manager \
        --kubeconfig="$DIR/pki/kube-controller-manager.kubeconfig" --use-service-account-credentials \
        --bind-address=127.0.0.1 --secure-port="$CONTROLLER_MANAGER_PORT" --leader-elect=false \
        --root-ca-file="$DIR/pki/ca.crt" --service-account-private-key-file="$DIR/pki/service-accounts.key" \
        --cluster-signing-cert-file="$DIR/pki/ca.crt" --cluster-signing-key-file="$DIR/pki/ca.key" \
        --kube-api-qps=300 --kube-api-burst=500 \
        --flex-volume-plugin-dir="$DIR/volume-plugins"
}

start_kube-scheduler() {
    spawn kube-scheduler "$HYPERKUBE" kube-scheduler --kubeconfig="$DIR/pki/kube-scheduler.kubeconfig" \
        --bind-address=127.0.0.1 --secure-port="$SCHEDULER_PORT" --leader-elect=false
}

# curl rather than kubectl, which takes longer to start than the answer takes.
api_ready() { curl -sf --noproxy '*' --cacert "$DIR/pki/ca.crt" --max-time 2 "https://127.0.0.1:$API_PORT/readyz"; }

wait_for_api() {
    wait_until 60 "the API server did not become ready: $(tail -n 1 "$DIR/log/kube-apiserver.log" 2>/dev/null)" api_ready_or_dead
    pid_of kube-apiserver >/dev/null || fail "the API server ended: $(grep -E '^(E|F|Error|error)' "$DIR/log/kube-apiserver.log" | tail -n 1)" "its log is $DIR/log/kube-apiserver.log"
}

api_ready_or_dead() { api_ready || stopped kube-apiserver; }

kubectl() { KUBECONFIG=$DIR/admin.kubeconfig "$DIR/bin/kubectl" "$@"; }

apply_dns() {
    sed "s/@DNS_IP@/$DNS_IP/" "$HERE/manifests/coredns.yaml" | kubectl apply -f - >/dev/null
}

nodes_ready() {
    [[ $(kubectl get nodes -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' | grep -cx True) -eq ${#NODES[@]} ]]
}
