. /config/certificate.sh
exec python3 -B -u /config/server.py
