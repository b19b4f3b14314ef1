//! All classes and methods, as data.

use super::method::Kind::{Bit, Long, LongLong, LongStr, Octet, Short, ShortStr, Table};
use super::method::Part::{self, Alone, Answers, Asks};
use super::method::Sender::{self, Both, Client, Server};
use super::method::{Argument, Method};

const CLOSE: &[Argument] =
    &[("reply_code", Short), ("reply_text", ShortStr), ("class_id", Short), ("method_id", Short)];
const TUNE: &[Argument] = &[("channel_max", Short), ("frame_max", Long), ("heartbeat", Short)];
const EXCHANGE_BIND: &[Argument] = &[
    ("", Short),
    ("destination", ShortStr),
    ("source", ShortStr),
    ("routing_key", ShortStr),
    ("no_wait", Bit),
    ("arguments", Table),
];
const TAG: &[Argument] = &[("consumer_tag", ShortStr)];

const fn method(
    (class, id): (u16, u16),
    name: &'static str,
    sender: Sender,
    part: Part,
    arguments: &'static [Argument],
) -> Method {
    Method { class, id, name, sender, part, arguments }
}

/// Sorted by class and number.
#[rustfmt::skip]
pub(super) static METHODS: &[Method] = &[
    method((10, 10), "connection.start", Server, Asks, &[("version_major", Octet), ("version_minor", Octet),
        ("server_properties", Table), ("mechanisms", LongStr), ("locales", LongStr)]),
    method((10, 11), "connection.start-ok", Client, Answers(10), &[("client_properties", Table), ("mechanism", ShortStr),
        ("response", LongStr), ("locale", ShortStr)]),
    method((10, 20), "connection.secure", Server, Asks, &[("challenge", LongStr)]),
    method((10, 21), "connection.secure-ok", Client, Answers(20), &[("response", LongStr)]),
    method((10, 30), "connection.tune", Server, Asks, TUNE),
    method((10, 31), "connection.tune-ok", Client, Answers(30), TUNE),
    method((10, 40), "connection.open", Client, Asks, &[("virtual_host", ShortStr), ("", ShortStr), ("", Bit)]),
    method((10, 41), "connection.open-ok", Server, Answers(40), &[("", ShortStr)]),
    method((10, 50), "connection.close", Both, Asks, CLOSE),
    method((10, 51), "connection.close-ok", Both, Answers(50), &[]),
    method((10, 60), "connection.blocked", Server, Alone, &[("reason", ShortStr)]),
    method((10, 61), "connection.unblocked", Server, Alone, &[]),
    method((10, 70), "connection.update-secret", Client, Asks, &[("new_secret", LongStr), ("reason", ShortStr)]),
    method((10, 71), "connection.update-secret-ok", Server, Answers(70), &[]),
    method((20, 10), "channel.open", Client, Asks, &[("", ShortStr)]),
    method((20, 11), "channel.open-ok", Server, Answers(10), &[("", LongStr)]),
    method((20, 20), "channel.flow", Both, Asks, &[("active", Bit)]),
    method((20, 21), "channel.flow-ok", Both, Answers(20), &[("active", Bit)]),
    method((20, 40), "channel.close", Both, Asks, CLOSE),
    method((20, 41), "channel.close-ok", Both, Answers(40), &[]),
    method((30, 10), "access.request", Client, Asks, &[("realm", ShortStr), ("exclusive", Bit), ("passive", Bit),
        ("active", Bit), ("write", Bit), ("read", Bit)]),
    method((30, 11), "access.request-ok", Server, Answers(10), &[("ticket", Short)]),
    method((40, 10), "exchange.declare", Client, Asks, &[("", Short), ("exchange", ShortStr), ("type", ShortStr),
        ("passive", Bit), ("durable", Bit), ("auto_delete", Bit), ("internal", Bit), ("no_wait", Bit),
        ("arguments", Table)]),
    method((40, 11), "exchange.declare-ok", Server, Answers(10), &[]),
    method((40, 20), "exchange.delete", Client, Asks, &[("", Short), ("exchange", ShortStr), ("if_unused", Bit),
        ("no_wait", Bit)]),
    method((40, 21), "exchange.delete-ok", Server, Answers(20), &[]),
    method((40, 30), "exchange.bind", Client, Asks, EXCHANGE_BIND),
    method((40, 31), "exchange.bind-ok", Server, Answers(30), &[]),
    method((40, 40), "exchange.unbind", Client, Asks, EXCHANGE_BIND),
    method((40, 51), "exchange.unbind-ok", Server, Answers(40), &[]),
    method((50, 10), "queue.declare", Client, Asks, &[("", Short), ("queue", ShortStr), ("passive", Bit),
        ("durable", Bit), ("exclusive", Bit), ("auto_delete", Bit), ("no_wait", Bit), ("arguments", Table)]),
    method((50, 11), "queue.declare-ok", Server, Answers(10), &[("queue", ShortStr), ("message_count", Long),
        ("consumer_count", Long)]),
    method((50, 20), "queue.bind", Client, Asks, &[("", Short), ("queue", ShortStr), ("exchange", ShortStr),
        ("routing_key", ShortStr), ("no_wait", Bit), ("arguments", Table)]),
    method((50, 21), "queue.bind-ok", Server, Answers(20), &[]),
    method((50, 30), "queue.purge", Client, Asks, &[("", Short), ("queue", ShortStr), ("no_wait", Bit)]),
    method((50, 31), "queue.purge-ok", Server, Answers(30), &[("message_count", Long)]),
    method((50, 40), "queue.delete", Client, Asks, &[("", Short), ("queue", ShortStr), ("if_unused", Bit),
        ("if_empty", Bit), ("no_wait", Bit)]),
    method((50, 41), "queue.delete-ok", Server, Answers(40), &[("message_count", Long)]),
    method((50, 50), "queue.unbind", Client, Asks, &[("", Short), ("queue", ShortStr), ("exchange", ShortStr),
        ("routing_key", ShortStr), ("arguments", Table)]),
    method((50, 51), "queue.unbind-ok", Server, Answers(50), &[]),
    method((60, 10), "basic.qos", Client, Asks, &[("prefetch_size", Long), ("prefetch_count", Short), ("global", Bit)]),
    method((60, 11), "basic.qos-ok", Server, Answers(10), &[]),
    method((60, 20), "basic.consume", Client, Asks, &[("", Short), ("queue", ShortStr), ("consumer_tag", ShortStr),
        ("no_local", Bit), ("no_ack", Bit), ("exclusive", Bit), ("no_wait", Bit), ("arguments", Table)]),
    method((60, 21), "basic.consume-ok", Server, Answers(20), TAG),
    method((60, 30), "basic.cancel", Both, Asks, &[("consumer_tag", ShortStr), ("no_wait", Bit)]),
    method((60, 31), "basic.cancel-ok", Both, Answers(30), TAG),
    method((60, 40), "basic.publish", Client, Alone, &[("", Short), ("exchange", ShortStr), ("routing_key", ShortStr),
        ("mandatory", Bit), ("immediate", Bit)]),
    method((60, 50), "basic.return", Server, Alone, &[("reply_code", Short), ("reply_text", ShortStr),
        ("exchange", ShortStr), ("routing_key", ShortStr)]),
    method((60, 60), "basic.deliver", Server, Alone, &[("consumer_tag", ShortStr), ("delivery_tag", LongLong),
        ("redelivered", Bit), ("exchange", ShortStr), ("routing_key", ShortStr)]),
    method((60, 70), "basic.get", Client, Asks, &[("", Short), ("queue", ShortStr), ("no_ack", Bit)]),
    method((60, 71), "basic.get-ok", Server, Answers(70), &[("delivery_tag", LongLong), ("redelivered", Bit),
        ("exchange", ShortStr), ("routing_key", ShortStr), ("message_count", Long)]),
    method((60, 72), "basic.get-empty", Server, Answers(70), &[("", ShortStr)]),
    method((60, 80), "basic.ack", Both, Alone, &[("delivery_tag", LongLong), ("multiple", Bit)]),
    method((60, 90), "basic.reject", Client, Alone, &[("delivery_tag", LongLong), ("requeue", Bit)]),
    method((60, 100), "basic.recover-async", Client, Alone, &[("requeue", Bit)]),
    method((60, 110), "basic.recover", Client, Asks, &[("requeue", Bit)]),
    method((60, 111), "basic.recover-ok", Server, Answers(110), &[]),
    method((60, 120), "basic.nack", Both, Alone, &[("delivery_tag", LongLong), ("multiple", Bit), ("requeue", Bit)]),
    method((85, 10), "confirm.select", Client, Asks, &[("nowait", Bit)]),
    method((85, 11), "confirm.select-ok", Server, Answers(10), &[]),
    method((90, 10), "tx.select", Client, Asks, &[]),
    method((90, 11), "tx.select-ok", Server, Answers(10), &[]),
    method((90, 20), "tx.commit", Client, Asks, &[]),
    method((90, 21), "tx.commit-ok", Server, Answers(20), &[]),
    method((90, 30), "tx.rollback", Client, Asks, &[]),
    method((90, 31), "tx.rollback-ok", Server, Answers(30), &[]),
];
