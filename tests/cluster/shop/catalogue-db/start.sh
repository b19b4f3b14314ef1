# Makes a database cluster, fills it, and becomes the server. Nothing here has to survive the pod, so nothing is synced.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -n 1)
data=/data/postgres
if [ ! -e "$data/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" >/tmp/password
    "$bin/initdb" --pgdata="$data" --username=shop --pwfile=/tmp/password --auth=scram-sha-256 --locale=C.UTF-8 --no-sync
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    echo 'CREATE DATABASE catalogue' | "$bin/postgres" --single -D "$data" postgres >/dev/null
    "$bin/postgres" --single -j -D "$data" catalogue </config/seed.sql >/dev/null
fi
exec "$bin/postgres" -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off \
    -c shared_buffers=16MB -c max_connections=50 -c max_wal_size=64MB
