. /config/certificate.sh
"$MORE/stripped" 8444 &
exec "$MORE/plain" 8443
