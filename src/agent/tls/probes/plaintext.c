// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What programs read from and write to connections whose handshake was over before the probes came. A thread that has a
// library encrypt something sends it at once, by the next system call: that tells which socket it is.

// The most bytes of an event, and the most events of a call: what is beyond is not there, and its place says so.
#define PIECE 16384
#define PIECES 16

enum { BYTES = 1, PLACE };

// BYTES: where they are in what was sent or received so far, and how many they are; the bytes follow.
// PLACE: a descriptor, the size of the first record that is sent to it, and that of what was to be encrypted.
struct piece { u32 kind, library, way, process; u64 connection, time, at; u32 size, is_over; };

struct {
    NUMBER(type, RINGBUF);
    NUMBER(max_entries, 2 * 1024 * 1024);
} pieces SEC(".maps");

// Bytes for which there was no room.
struct {
    NUMBER(type, ARRAY);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, u64);
} pieces_lost SEC(".maps");

INLINE void lose(u64 size) {
    u32 key = 0;
    u64 *count = lookup(&pieces_lost, &key);
    if (count)
        __sync_fetch_and_add(count, size);
}

// Bytes received and sent so far.
struct stream { u64 at[2]; };
struct {
    NUMBER(type, HASH_LRU);
    NUMBER(max_entries, 2048);
    TYPE(key, struct connection);
    TYPE(value, struct stream);
} streams SEC(".maps");

INLINE void fill(struct piece *piece, u32 kind, struct call *call, u32 process) {
    piece->kind = kind;
    piece->library = call->library;
    piece->way = call->way;
    piece->process = process;
    piece->connection = call->connection;
    piece->time = clock();
    piece->is_over = call->is_over;
}

// An event of one of few sizes, as the size must be constant.
#define TELL(most)                                                      \
    do {                                                                \
        struct { struct piece head; u8 bytes[most]; } *it = reserve(&pieces, sizeof *it, 0); \
        if (!it)                                                        \
            return 0;                                                   \
        fill(&it->head, BYTES, &call, whose >> 32);                     \
        it->head.at = at;                                               \
        u32 length = size;                                              \
        asm volatile("" : "+r"(length));                                \
        if (length > most)                                              \
            length = most;                                              \
        int is_read = read(it->bytes, length, (const void *)from) == 0; \
        it->head.size = is_read ? length : 0;                           \
        submit(it, 0);                                                  \
        return is_read;                                                 \
    } while (0)

// Copies a piece of what a process (in the upper half of whose) has passed by a library (8 bits) that way (the 8 above); 0 if there is no
// room for it, or it cannot be read. The verifier looks at a function once that is not static, rather than once for each piece.
GLOBAL int tell_piece(u64 whose, u64 connection, u64 at, u64 from, u64 size) {
    struct call call = {connection, 0, 0, 0, whose & 0xff, whose >> 8 & 0xff, 1, 0};
    if (size <= 512)
        TELL(512);
    else if (size <= 2048)
        TELL(2048);
    else if (size <= 8192)
        TELL(8192);
    else
        TELL(PIECE);
}

// Copies what went through a connection, in pieces.
INLINE void tell(struct call *call, u32 process, u64 count) {
    struct connection connection = {current() >> 32, call->connection};
    struct stream *stream = lookup(&streams, &connection);
    if (!stream) {
        struct stream fresh = {};
        update(&streams, &connection, &fresh, 0);
        stream = lookup(&streams, &connection);
        if (!stream)
            return;
    }
    u64 at = stream->at[call->way & 1], from = call->bytes, left = count;
    u64 whose = (u64)process << 32 | call->way << 8 | call->library;
    stream->at[call->way & 1] = at + count;
    for (u32 i = 0; i < PIECES && left; i++) {
        u64 size = left < PIECE ? left : PIECE;
        if (!tell_piece(whose, call->connection, at, from, size))
            lose(size);
        at += size;
        from += size;
        left -= size;
    }
    if (left)
        lose(left);
}

// Tells by which descriptor a connection sends or receives.
INLINE void place_at(struct call *call, u32 process, u32 descriptor, u64 record) {
    struct piece *event = reserve(&pieces, sizeof *event, 0);
    if (!event)
        return;
    fill(event, PLACE, call, process);
    event->at = descriptor | record << 32;
    event->size = call->size > 0xffffffff ? 0xffffffff : call->size;
    submit(event, 0);
}

// A function begins that reads or writes so many bytes. Counted: where it will say how many it has, if not by its result.
INLINE int enter(u32 library, u32 way, u64 address, u64 bytes, u64 size, u64 counted) {
    if (!is_target())
        return 0;
    u64 thread = current();
    struct connection connection = {thread >> 32, address};
    if (lookup(&keyed_connections, &connection)) {
        forget(&calls, &thread);
        return 0;
    }
    struct call *last = lookup(&calls, &thread);
    struct call call = {address, bytes, size, counted, library, way, 0, 0};
    if (last && last->way == SENT && last->is_over && last->connection != address)
        call.mixed = 1;
    update(&calls, &thread, &call, 0);
    return 0;
}

#define LIBRARY(name, number)                                                        \
    SEC("uprobe/" #name "_write") int name##_write(struct registers *it) {           \
        return enter(number, SENT, it->C1, it->C2, it->C3, 0);                       \
    }                                                                                \
    SEC("uprobe/" #name "_read") int name##_read(struct registers *it) {             \
        return enter(number, RECEIVED, it->C1, it->C2, it->C3, 0);                   \
    }                                                                                \
    SEC("uprobe/" #name "_handshake") int name##_handshake(struct registers *it) {   \
        return enter(number, SHAKING, it->C1, 0, 0, 0);                              \
    }

// SSL_write(ssl, bytes, size), SSL_read, SSL_do_handshake(ssl), and those of GnuTLS of the same shape.
LIBRARY(openssl, OPENSSL)
LIBRARY(boringssl, BORINGSSL)
LIBRARY(gnutls, GNUTLS)

// SSL_write_ex(ssl, bytes, size, &written).
SEC("uprobe/openssl_write_ex")
int openssl_write_ex(struct registers *it) {
    return enter(OPENSSL, SENT, it->C1, it->C2, it->C3, it->C4);
}

// SSL_read_ex(ssl, bytes, size, &read).
SEC("uprobe/openssl_read_ex")
int openssl_read_ex(struct registers *it) {
    return enter(OPENSSL, RECEIVED, it->C1, it->C2, it->C3, it->C4);
}

// The end of any of them that reads or writes.
SEC("uretprobe/passed")
int passed(struct registers *it) {
    u64 thread = current();
    struct call *call = lookup(&calls, &thread);
    u32 process = call && !call->is_over && call->way != SHAKING ? target() : 0;
    if (!process)
        return 0;
    call->is_over = 1;
    u64 count = (int)it->RESULT > 0 ? (u32)it->RESULT : 0;
    if (call->counted && count && read(&count, sizeof count, (const void *)call->counted) != 0)
        count = 0;
    if (count && count <= call->size)
        tell(call, process, count);
    return 0;
}

// The first bytes that are sent, by the arguments of a system call.
INLINE u64 sent(u64 number, struct registers *arguments) {
    u64 bytes = arguments->C2;
    // struct msghdr: name, size of it, vector.
    if (number == SEND_MESSAGE && read(&bytes, sizeof bytes, (const void *)(bytes + 16)) != 0)
        return 0;
    if ((number == SEND_MESSAGE || number == SEND_VECTOR) && read(&bytes, sizeof bytes, (const void *)bytes) != 0)
        return 0;
    return bytes;
}

// A system call: of a thread that is in one of those functions, or was last.
SEC("raw_tracepoint/sys_enter")
int transfers(u64 *it) {
    u64 number = it[1];
    int sends = number == SEND || number == SEND_TO || number == SEND_MESSAGE || number == SEND_VECTOR;
    int receives = number == RECEIVE || number == RECEIVE_FROM || number == RECEIVE_MESSAGE || number == RECEIVE_VECTOR;
    if (!sends && !receives)
        return 0;
    u64 thread = current();
    struct call *call = lookup(&calls, &thread);
    if (!call)
        return 0;
    struct registers arguments;
    u8 record[5] = {};
    if (receives) {
        if (call->is_over || call->way != RECEIVED)
            return 0;
        if (read_kernel(&arguments, sizeof arguments, (const void *)it[0]) != 0)
            return 0;
    } else {
        if (call->way != SENT || read_kernel(&arguments, sizeof arguments, (const void *)it[0]) != 0)
            return 0;
        // Application data, of any version.
        if (read(record, sizeof record, (const void *)sent(number, &arguments)) != 0 || record[0] != 23 || record[1] != 3)
            return 0;
    }
    u32 process = target();
    if (!process)
        return 0;
    int is_mixed = call->is_over && call->mixed;
    if (!is_mixed)
        place_at(call, process, arguments.C1, record[3] << 8 | record[4]);
    // What is sent after this is another's.
    if (call->is_over)
        forget(&calls, &thread);
    return 0;
}
