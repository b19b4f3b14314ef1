mkdir -p /data/www/folder
echo hello >/data/www/index.html
seq 60000 >/data/www/large.txt
exec nginx -p /data -c /config/nginx.conf -e stderr
