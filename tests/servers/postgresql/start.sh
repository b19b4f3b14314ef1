# A database cluster of its own; nothing has to survive the pod, so nothing is synced.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -n 1)
echo secret >/tmp/password
"$bin/initdb" --pgdata=/data/db --username=asker --pwfile=/tmp/password --auth=scram-sha-256 --locale=C.UTF-8 --no-sync
echo 'host all all all scram-sha-256' >>/data/db/pg_hba.conf
exec "$bin/postgres" -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off
