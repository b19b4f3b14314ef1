set -eu
. /config/certificate.sh
nginx -p /data -c /config/nginx.conf -e stderr &
. /config/postgresql.sh
