# One broker that is its own controller, with no ZooKeeper.
set -eu
cat >/data/server.properties <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093
advertised.listeners=PLAINTEXT://$IP:9092
log.dirs=/data/log
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
CONF
export CLASSPATH="$MORE/*"
java="java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
$java kafka.tools.StorageTool format --cluster-id MkU3OEVBNTcwNTJENDM2Qg --config /data/server.properties
exec $java kafka.Kafka /data/server.properties
