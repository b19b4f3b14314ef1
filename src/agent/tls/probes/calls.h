// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Which connection a thread works for, and whether its keys are known.

enum way { RECEIVED, SENT, SHAKING };

// What a thread was last called for. It stays when the call is over: what it has encrypted may be sent then. Mixed: of two
// connections in turn, so that nobody can tell whose the bytes are that are sent then.
struct call { u64 connection, bytes, size, counted; u32 library, way, is_over, mixed; };
struct {
    NUMBER(type, HASH_LRU);
    NUMBER(max_entries, 2048);
    TYPE(key, u64);
    TYPE(value, struct call);
} calls SEC(".maps");

// A connection is known by its process and the address of what the library has for it.
struct connection { u64 process, address; };

// Those whose handshake was seen, with its keys: nothing of them is copied.
struct {
    NUMBER(type, HASH_LRU);
    NUMBER(max_entries, 8192);
    TYPE(key, struct connection);
    TYPE(value, u32);
} keyed_connections SEC(".maps");

INLINE void has_keys(u64 address) {
    struct connection connection = {current() >> 32, address};
    u32 one = 1;
    update(&keyed_connections, &connection, &one, 0);
}

// The connection that the thread works for has keys now.
INLINE void agreed(void) {
    u64 thread = current();
    struct call *call = lookup(&calls, &thread);
    if (!call || call->is_over)
        return;
    has_keys(call->connection);
    forget(&calls, &thread);
}
