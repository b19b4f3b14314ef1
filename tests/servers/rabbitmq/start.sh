# RabbitMQ with nothing but itself; Erlang's port mapper stays within the pod.
export HOME=/data RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_MNESIA_BASE=/data/db RABBITMQ_LOG_BASE=/data/log \
    RABBITMQ_ENABLED_PLUGINS_FILE=/data/plugins RABBITMQ_CONFIG_FILE=/data/rabbitmq RABBITMQ_PID_FILE=/data/pid \
    ERL_EPMD_ADDRESS=127.0.0.1 LANG=C.UTF-8
mkdir -p /data/db /data/log
echo '[].' >/data/plugins
cat >/data/rabbitmq.conf <<'CONF'
listeners.tcp.default = 0.0.0.0:5672
loopback_users = none
log.console = true
CONF
exec sh /usr/lib/rabbitmq/bin/rabbitmq-server
