cat >/data/mosquitto.conf <<'CONF'
listener 1883
allow_anonymous true
password_file /data/passwords
user root
max_packet_size 400000
CONF
: >/data/passwords
exec mosquitto -c /data/mosquitto.conf
