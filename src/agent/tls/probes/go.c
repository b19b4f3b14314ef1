// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Go.

// crypto/tls.(*Config).writeKeyLog(label string, random, secret []byte) of Go, which is called whether there is somewhere to write
// to or not.
SEC("uprobe/go")
int go(struct registers *it) {
    if (!is_target())
        return 0;
    struct line *event = begin(sizeof *event);
    if (!event)
        return 0;
    head(&event->head, GO, 0, 0);
    copy(&event->values[0], 0, (void *)it->GO2, it->GO3);
    copy(&event->values[1], 0, (void *)it->GO4, it->GO5);
    copy(&event->values[2], 0, (void *)it->GO7, it->GO8);
    submit(event, 0);
    return 0;
}

// crypto/tls.(*Conn).clientHandshake and serverHandshake, with keys that the function above is told.
SEC("uprobe/go_handshake")
int go_handshake(struct registers *it) {
    if (is_target())
        has_keys(it->GO1);
    return 0;
}

// A net.netFD, which begins with a poll.FD, as far as it has stayed the same since long before Go 1.18.
struct descriptor { u64 mutex[2], number, more[2]; u32 waits, blocks; u64 is_stream, family, type; };

// Tells by which descriptor a tls.Conn sends, if what it begins with, a net.Conn (type, value), is a net.TCPConn. What is none
// has neither family nor type of such a socket there.
INLINE int go_place(struct call *call, u32 process) {
    u64 place;
    struct descriptor descriptor;
    if (read(&place, sizeof place, (const void *)(call->connection + 8)) != 0 ||
        read(&place, sizeof place, (const void *)place) != 0 ||
        read(&descriptor, sizeof descriptor, (const void *)place) != 0)
        return 0;
    if ((descriptor.family != 2 && descriptor.family != 10) || descriptor.type != 1)
        return 0;
    place_at(call, process, descriptor.number, 0);
    return 1;
}

// Tells what a tls.Conn has read or written, unless its keys are known.
INLINE void go_tell(struct call *call, u64 count) {
    u32 process = target();
    struct connection connection = {current() >> 32, call->connection};
    if (process && !lookup(&keyed_connections, &connection) && go_place(call, process))
        tell(call, process, count);
}

// crypto/tls.(*Conn).Write(bytes), which writes all unless it fails.
SEC("uprobe/go_write")
int go_write(struct registers *it) {
    struct call call = {it->GO1, it->GO2, it->GO3, 0, GOLANG, SENT, 0, 0};
    go_tell(&call, call.size);
    return 0;
}

// Where crypto/tls.(*Conn).Read(bytes) returns. Its arguments are above the address to return to, where Go keeps those that came
// in registers; so calls are understood that began before there was a probe.
SEC("uprobe/go_passed")
int go_passed(struct registers *it) {
    struct { u64 connection, bytes, size; } arguments;
    u64 count = it->GO1;
    if (!count || read(&arguments, sizeof arguments, (const void *)(it->sp + 8)) != 0 || count > arguments.size)
        return 0;
    struct call call = {arguments.connection, arguments.bytes, arguments.size, 0, GOLANG, RECEIVED, 0, 0};
    go_tell(&call, count);
    return 0;
}
