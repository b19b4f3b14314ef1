# Runs a database cluster of its own, which takes nobody without TLS; nothing has to survive the pod, so nothing is synced.
chmod 600 /data/tls.key
bin=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -n 1)
echo secret >/tmp/password
"$bin/initdb" --pgdata=/data/db --username=asker --pwfile=/tmp/password --auth=scram-sha-256 --locale=C.UTF-8 --no-sync
echo 'hostssl all all all scram-sha-256' >>/data/db/pg_hba.conf
exec "$bin/postgres" -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off \
    -c ssl=on -c ssl_cert_file=/data/tls.crt -c ssl_key_file=/data/tls.key
