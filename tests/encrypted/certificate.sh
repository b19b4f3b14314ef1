# A certificate of its own for the server, with its key: /data/tls.crt, /data/tls.key.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /data/tls.key -out /data/tls.crt -days 2 \
    -config /dev/null -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/data/openssl.log || { cat /data/openssl.log >&2; exit 1; }
