"""mosquitto: MQTT 3.1.1 and 5, every QoS both ways, retained messages, wills, refusals (paho-mqtt)."""
import queue
import paho.mqtt.client as mqtt
from asked import PORT, SERVER, equal, main, row


def tell(operation, target="", status="ok", by="client"):
    row("mqtt", operation, target, status, by)


class Client:
    """One whose calls wait for their answers."""

    def __init__(self, name, version, **options):
        self.events = queue.Queue()
        self.five = version == mqtt.MQTTv5
        self.name = name
        self.client = mqtt.Client(name, protocol=version, **({} if self.five else {"clean_session": True}))
        put = lambda kind: lambda *arguments: self.events.put((kind, arguments))
        self.client.on_connect, self.client.on_subscribe = put("connect"), put("subscribe")
        self.client.on_unsubscribe, self.client.on_publish, self.client.on_message = put("unsubscribe"), put("publish"), put("message")

    def wait(self, kind):
        got, arguments = self.events.get(timeout=20)
        equal(got, kind)
        return arguments

    def connect(self, status="ok"):
        self.client.connect(SERVER, PORT, keepalive=60)
        self.client.loop_start()
        code = self.wait("connect")[3]
        equal(str(getattr(code, "value", code)) if status != "ok" else "ok", status)
        tell("CONNECT", self.name, status)
        return self

    def subscribe(self, *filters, target, status="ok"):
        self.client.subscribe(list(filters))
        self.wait("subscribe")
        tell("SUBSCRIBE", target, status)

    def unsubscribe(self, *filters):
        self.client.unsubscribe(list(filters))
        self.wait("unsubscribe")
        tell("UNSUBSCRIBE", ",".join(filters))

    def publish(self, topic, payload, qos=0, retain=False):
        self.client.publish(topic, payload, qos, retain)
        self.wait("publish")
        tell("PUBLISH", topic, "ok" if qos else "")

    def message(self, topic, payload, qos=0):
        message = self.wait("message")[2]
        equal((message.topic, message.payload, message.qos), (topic, payload, qos))
        tell("PUBLISH", topic, "ok" if qos else "", by="server")

    def disconnect(self):
        self.client.disconnect()
        self.client.loop_stop()
        tell("DISCONNECT", status="")


def exchange(version, prefix):
    publisher, subscriber = Client(f"{prefix}-out", version).connect(), Client(f"{prefix}-in", version).connect()
    subscriber.subscribe((f"{prefix}/temp/#", mqtt.SubscribeOptions(2) if subscriber.five else 2),
                         (f"{prefix}/+/door", mqtt.SubscribeOptions(0) if subscriber.five else 0), target=f"{prefix}/temp/#,{prefix}/+/door")
    for qos in (0, 1, 2):
        for number in range(20):
            publisher.publish(f"{prefix}/temp/{number}", f"{qos}.{number}", qos)
            subscriber.message(f"{prefix}/temp/{number}", f"{qos}.{number}".encode(), qos)
    publisher.publish(f"{prefix}/front/door", b"open", 2)
    subscriber.message(f"{prefix}/front/door", b"open", 0)
    large = bytes(range(256)) * 1000
    publisher.publish(f"{prefix}/temp/large", large, 1)
    subscriber.message(f"{prefix}/temp/large", large, 1)
    publisher.publish(f"{prefix}/state", b"kept", 1, retain=True)
    publisher.publish(f"{prefix}/nobody", b"", 1)
    subscriber.subscribe((f"{prefix}/state", mqtt.SubscribeOptions(1) if subscriber.five else 1), target=f"{prefix}/state")
    subscriber.message(f"{prefix}/state", b"kept", 1)
    subscriber.unsubscribe(f"{prefix}/state", f"{prefix}/temp/#")
    publisher.disconnect()
    subscriber.disconnect()


def will():
    """What the server publishes for a client whose connection is lost."""
    watcher = Client("watcher", mqtt.MQTTv311).connect()
    watcher.subscribe(("wills", 1), target="wills")
    lost = Client("lost", mqtt.MQTTv311)
    lost.client.will_set("wills", b"lost is gone", 1)
    lost.connect()
    lost.client.loop_stop()
    lost.client._sock_close()
    watcher.message("wills", b"lost is gone", 1)
    watcher.disconnect()


def refused(version, status):
    client = Client("stranger", version)
    client.client.username_pw_set("stranger", "wrong")
    client.connect(status)
    client.client.loop_stop()
    client.client._sock_close()


def ask():
    exchange(mqtt.MQTTv311, "three")
    exchange(mqtt.MQTTv5, "five")
    will()
    refused(mqtt.MQTTv311, "5")
    refused(mqtt.MQTTv5, "135")


main(ask)
