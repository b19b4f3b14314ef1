"""RabbitMQ: exchanges, queues, confirms, returns, transactions, consumers, errors of channels and connections (pika)."""
import pika
from pika import exceptions
from asked import PORT, SERVER, equal, fails, main, row


def tell(operation, target="", status="", by="client", times=1):
    row("amqp", operation, target, status, by, times)


def connect(**options):
    connection = pika.BlockingConnection(pika.ConnectionParameters(SERVER, PORT, **options))
    tell("connection.start", by="server")
    tell("connection.tune", by="server")
    tell("connection.open")
    return connection


def channel(connection):
    opened = connection.channel()
    tell("channel.open")
    return opened


def close(ch):
    ch.close()
    tell("channel.close", "", "0")


def work(connection):
    ch = channel(connection)
    ch.exchange_declare("logs", "topic")
    tell("exchange.declare", "logs")
    ch.queue_declare("info", arguments={"x-max-length": 1000, "x-list": [1, "two", True, None]})
    tell("queue.declare", "info")
    ch.queue_bind("info", "logs", "info.#")
    tell("queue.bind", "info")
    named = ch.queue_declare("", exclusive=True).method.queue
    tell("queue.declare", named)
    for number in range(50):
        ch.basic_publish("logs", "info.a", b"%d" % number, pika.BasicProperties(content_type="text/plain", headers={"n": number}))
    tell("basic.publish", "logs/info.a", times=50)
    ch.basic_publish("", named, b"")
    tell("basic.publish", named)
    large = bytes(range(256)) * 1200
    ch.basic_publish("logs", "info.large", large)
    tell("basic.publish", "logs/info.large")
    ch.basic_qos(prefetch_count=100)
    tell("basic.qos")
    bodies = []
    for method, _, body in ch.consume("info", inactivity_timeout=20):
        bodies.append(body)
        ch.basic_ack(method.delivery_tag)
        if len(bodies) == 51:
            break
    equal(bodies[-1], large)
    tell("basic.consume", "info")
    tell("basic.deliver", "logs/info.a", by="server", times=50)
    tell("basic.deliver", "logs/info.large", by="server")
    tell("basic.ack", times=51)
    ch.cancel()
    tell("basic.cancel")
    equal(ch.basic_get(named, auto_ack=True)[2], b"")
    equal(ch.basic_get(named), (None, None, None))
    tell("basic.get", named, times=2)
    ch.basic_publish("", named, b"again")
    tell("basic.publish", named)
    method, _, _ = ch.basic_get(named)
    ch.basic_nack(method.delivery_tag, requeue=True)
    method, _, _ = ch.basic_get(named)
    equal(method.redelivered, True)
    ch.basic_reject(method.delivery_tag, requeue=False)
    tell("basic.get", named, times=2)
    tell("basic.nack")
    tell("basic.reject")
    ch.queue_purge("info")
    tell("queue.purge", "info")
    ch.queue_unbind("info", "logs", "info.#")
    tell("queue.unbind", "info")
    close(ch)


def confirms(connection):
    ch = channel(connection)
    ch.confirm_delivery()
    tell("confirm.select")
    for _ in range(20):
        ch.basic_publish("", "info", b"sure")
    tell("basic.publish", "info", times=20)
    fails(exceptions.UnroutableError, ch.basic_publish, "logs", "nobody", b"back", mandatory=True)
    tell("basic.publish", "logs/nobody")
    tell("basic.return", "logs/nobody", "312", by="server")
    # Each publish is waited for, so each has an acknowledgement of its own.
    tell("basic.ack", by="server", times=21)
    close(ch)


def transactions(connection):
    ch = channel(connection)
    ch.tx_select()
    ch.basic_publish("", "info", b"one")
    ch.tx_commit()
    ch.basic_publish("", "info", b"never")
    ch.tx_rollback()
    tell("tx.select")
    tell("basic.publish", "info", times=2)
    tell("tx.commit")
    tell("tx.rollback")
    equal(ch.queue_declare("info", passive=True).method.message_count, 21)
    tell("queue.declare", "info")
    ch.queue_delete("info")
    tell("queue.delete", "info")
    ch.exchange_delete("logs")
    tell("exchange.delete", "logs")
    close(ch)


def errors(connection):
    ch = channel(connection)
    equal(fails(exceptions.ChannelClosedByBroker, ch.queue_declare, "none", passive=True).reply_code, 404)
    tell("queue.declare", "none")
    tell("channel.close", "", "404", by="server")
    ch = channel(connection)
    equal(fails(exceptions.ChannelClosedByBroker, ch.exchange_declare, "amq.topic", "direct").reply_code, 406)
    tell("exchange.declare", "amq.topic")
    tell("channel.close", "", "406", by="server")
    ch = channel(connection)
    ch.basic_publish("none", "key", b"lost")
    tell("basic.publish", "none/key")
    equal(fails(exceptions.ChannelClosedByBroker, ch.queue_declare, "late").reply_code, 404)
    tell("queue.declare", "late")
    tell("channel.close", "", "404", by="server")


def refused():
    """The server tells clients that can take it why it closes."""
    wrong = pika.ConnectionParameters(SERVER, PORT, credentials=pika.PlainCredentials("guest", "wrong"))
    fails(exceptions.ProbableAuthenticationError, pika.BlockingConnection, wrong)
    tell("connection.start", by="server")
    tell("connection.close", "", "403", by="server")
    nowhere = pika.ConnectionParameters(SERVER, PORT, virtual_host="nowhere")
    fails(exceptions.ProbableAccessDeniedError, pika.BlockingConnection, nowhere)
    tell("connection.start", by="server")
    tell("connection.tune", by="server")
    tell("connection.open")
    tell("connection.close", "", "530", by="server")


def ask():
    connection = connect()
    for part in (work, confirms, transactions, errors):
        part(connection)
    connection.close()
    tell("connection.close", "", "200")
    refused()


main(ask, lambda: pika.BlockingConnection(pika.ConnectionParameters(SERVER, PORT)).close())
