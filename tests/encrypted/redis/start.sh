. /config/certificate.sh
exec redis-server --bind 0.0.0.0 --protected-mode no --save '' --dir /data --port 0 --tls-port 6380 \
    --tls-cert-file /data/tls.crt --tls-key-file /data/tls.key --tls-auth-clients no
