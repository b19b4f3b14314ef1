. /config/certificate.sh
mkdir -p /data/www
echo hello >/data/www/index.html
seq 60000 >/data/www/large.txt
exec nginx -p /data -c /config/nginx.conf -e stderr
