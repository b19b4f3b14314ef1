. /config/certificate.sh
exec nginx -p /data -c /config/nginx.conf -e stderr
