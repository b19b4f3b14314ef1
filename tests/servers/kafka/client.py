"""Kafka: topics, records plain and compressed, a consumer group, offsets, errors (kafka-python).

The library asks much of its own accord (metadata, heartbeats). So each request is noted where it sends it, with the
error codes of what came back.
"""
import re
import kafka, kafka.conn
from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.protocol.types import Array, Schema
from asked import PORT, SERVER, equal, fails, main, row, rows

WHERE = {"bootstrap_servers": f"{SERVER}:{PORT}", "api_version": (2, 5, 0)}
NAMES = {"ApiVersion": "ApiVersions", "GroupCoordinator": "FindCoordinator", "Offset": "ListOffsets"}


def found(kind, value, wanted):
    """What the fields of that name have, in the order of the message."""
    if isinstance(kind, Array):
        for inner in value or ():
            yield from found(kind.array_of, inner, wanted)
    elif isinstance(kind, Schema):
        for name, inner_kind, inner in zip(kind.names, kind.fields, value):
            if name == wanted:
                yield inner
            else:
                yield from found(inner_kind, inner, wanted)


def fields(message, wanted):
    return list(found(message.SCHEMA, [getattr(message, name) for name in message.SCHEMA.names], wanted))


def topics(name, request):
    if name in ("Metadata", "DeleteTopics"):
        return list(getattr(request, "topics", None) or [])
    if name in ("Produce", "Fetch", "ListOffsets", "OffsetCommit", "OffsetFetch", "CreateTopics"):
        return fields(request, "topic")
    if name == "CreatePartitions":
        return [topic for topic, _ in request.topic_partitions]
    return [resource[1] for resource in request.resources] if name == "DescribeConfigs" else []


def note(send):
    def noting(connection, request, *arguments, **named):
        future = send(connection, request, *arguments, **named)
        name = re.sub(r"Request.*", "", type(request).__name__)
        name = NAMES.get(name, name)
        target = ",".join(topics(name, request))

        def answered(response):
            row("kafka", name, target, str(next(filter(None, fields(response, "error_code")), 0)) if response else "")

        future.add_callback(answered)
        future.add_errback(lambda error: row("kafka", name, target, ""))
        return future

    return noting


def administer():
    admin = KafkaAdminClient(**WHERE)
    admin.create_topics([NewTopic("orders", 3, 1), NewTopic("carts", 1, 1)])
    fails(errors.TopicAlreadyExistsError, admin.create_topics, [NewTopic("orders", 1, 1)])
    admin.create_partitions({"carts": NewPartitions(2)})
    admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "orders")])
    assert "orders" in admin.list_topics()
    return admin


def produce():
    for compression in (None, "gzip"):
        producer = kafka.KafkaProducer(**WHERE, compression_type=compression, linger_ms=5)
        sent = [producer.send("orders", b"number %d" % number, key=b"%d" % number, headers=[("trace", b"1")]) for number in range(200)]
        sent += [producer.send("carts", bytes(range(256)) * 400, partition=0)]
        for record in sent:
            record.get(timeout=20)
        producer.close()
    careless = kafka.KafkaProducer(**WHERE, acks=0)
    careless.send("orders", b"lost or not").get(timeout=20)
    careless.close()
    large = kafka.KafkaProducer(**WHERE, max_request_size=2_000_000)
    fails(errors.MessageSizeTooLargeError, large.send("carts", b"x" * 1_100_000, partition=0).get, timeout=20)
    large.close()


def consume():
    consumer = kafka.KafkaConsumer("orders", "carts", group_id="shop", auto_offset_reset="earliest", enable_auto_commit=False, **WHERE)
    got = 0
    while got < 403:
        got += sum(len(records) for records in consumer.poll(1000).values())
    consumer.pause(*consumer.assignment())
    consumer.poll(1000)  # The last fetch is answered.
    consumer.commit()
    equal(consumer.committed(kafka.TopicPartition("carts", 0)), 2)
    consumer.close()


def ask():
    kafka.conn.BrokerConnection.send = note(kafka.conn.BrokerConnection.send)
    admin = administer()
    produce()
    consume()
    equal(admin.describe_consumer_groups(["shop"])[0].state, "Empty")
    admin.list_consumer_groups()
    admin.delete_topics(["carts"])
    fails(errors.UnknownTopicOrPartitionError, admin.delete_topics, ["nothing"])
    admin.close()
    assert len(rows) > 20, rows


main(ask, lambda: kafka.KafkaConsumer(**WHERE).topics())
