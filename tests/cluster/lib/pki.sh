# Certificates and kubeconfigs. Made anew at every start: it takes half a second, and nothing secret outlives the cluster.
# shellcheck shell=bash

make_pki() {
    mkdir -p "$DIR/pki"
    # A configuration without sections: Debian's own would add extensions that collide with ours.
    printf '[req]\ndistinguished_name = dn\n[dn]\n' >"$DIR/pki/openssl.cnf"
    new_certificate ca /CN=sniff-test-ca -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature

    issue kube-apiserver /CN=kube-apiserver \
        "IP:127.0.0.1,IP:$HOST_IP,IP:$API_SERVICE_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    issue kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$DIR/pki/service-accounts.key" 2>/dev/null
    openssl pkey -in "$DIR/pki/service-accounts.key" -pubout -out "$DIR/pki/service-accounts.pub"

    issue_client admin /O=system:masters/CN=sniff-admin 127.0.0.1
    issue_client kube-controller-manager /CN=system:kube-controller-manager 127.0.0.1
    issue_client kube-scheduler /CN=system:kube-scheduler 127.0.0.1
    issue_client kube-proxy /CN=system:kube-proxy "$HOST_IP"
    local n name
    for n in "${NODES[@]}"; do
        name=$(node_name "$n")
        issue_client "$name" "/O=system:nodes/CN=system:node:$name" "$HOST_IP" "DNS:$name,IP:$(node_ip "$n")"
    done
    install -m 0600 "$DIR/pki/admin.kubeconfig" "$DIR/admin.kubeconfig"
}

# new_certificate NAME SUBJECT OPENSSL-OPTION…
new_certificate() {
    local file=$DIR/pki/$1 subject=$2
    shift 2
    openssl req -x509 -config "$DIR/pki/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 365 \
        -subj "$subject" -keyout "$file.key" -out "$file.crt" "$@" 2>"$DIR/log/openssl.log" ||
        fail "openssl could not make a certificate for $subject: $(tail -n 1 "$DIR/log/openssl.log")"
}

# issue NAME SUBJECT [ALTERNATIVE-NAMES]
issue() {
    new_certificate "$1" "$2" -CA "$DIR/pki/ca.crt" -CAkey "$DIR/pki/ca.key" -addext basicConstraints=critical,CA:FALSE \
        -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=serverAuth,clientAuth \
        -addext "subjectAltName=${3:-DNS:$1}"
}

# issue_client NAME SUBJECT API-SERVER [ALTERNATIVE-NAMES]: a certificate, and a kubeconfig that holds it
issue_client() {
    issue "$1" "$2" "${4:-}"
    encoded() { base64 -w 0 "$DIR/pki/$1"; }
    cat >"$DIR/pki/$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: sniff-test
  cluster: {server: "https://$3:$API_PORT", certificate-authority-data: $(encoded ca.crt)}
users:
- name: $1
  user: {client-certificate-data: $(encoded "$1.crt"), client-key-data: $(encoded "$1.key")}
contexts:
- name: sniff-test
  context: {cluster: sniff-test, user: $1}
current-context: sniff-test
EOF
}
