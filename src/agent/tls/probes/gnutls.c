// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// GnuTLS, which has Nettle derive its keys.

// What Nettle's HMACs are keyed with, by thread, which the derivation that comes next is not told. In TLS 1.2 the label too.
struct keyed { u64 context, bytes, size, label; };
struct {
    NUMBER(type, HASH_LRU);
    NUMBER(max_entries, 1024);
    TYPE(key, u64);
    TYPE(value, struct keyed);
} keyed SEC(".maps");

// What this HMAC of the thread's is keyed with.
INLINE struct keyed *keyed_for(u64 context) {
    u64 thread = current();
    struct keyed *value = lookup(&keyed, &thread);
    return value && value->context == context && is_target() ? value : 0;
}

// The same, for the last time.
INLINE struct place last_key(u64 context) {
    u64 thread = current();
    struct place place = {};
    struct keyed *value = keyed_for(context);
    if (value) {
        place.bytes = value->bytes;
        place.size = value->size;
        forget(&keyed, &thread);
    }
    return place;
}

// The end of nettle_hkdf_expand and nettle_hkdf_extract, which cannot fail.
SEC("uretprobe/filled")
int filled(struct registers *it) {
    return output(1);
}

// nettle_hmac_sha256_set_key(context, size, key), and that of SHA-384: GnuTLS has all its derivations begin so.
SEC("uprobe/nettle_key")
int nettle_key(struct registers *it) {
    u64 thread = current();
    struct keyed value = {it->C1, it->C3, it->C2, 0};
    if (value.size >= 32 && value.size <= MOST && is_target())
        update(&keyed, &thread, &value, 0);
    return 0;
}

// nettle_hmac_sha256_update(context, size, data), and that of SHA-384. In TLS 1.2 the first ones after the key get the label, and the
// randoms as one.
SEC("uprobe/nettle_update")
int nettle_update(struct registers *it) {
    u64 size = it->C2, data = it->C3;
    u8 start[4];
    struct keyed *value = size == 13 || size == 64 ? keyed_for(it->C1) : 0;
    if (!value)
        return 0;
    if (size == 13) {
        struct place label = {data, size};
        value->label = begins(start, label) && is_expansion(start) ? data : 0;
    } else if (value->label) {
        struct place label = {value->label, 13}, server = {data, 32}, client = {data + 32, 32};
        expansion(GNUTLS, last_key(it->C1), label, server, client);
    }
    return 0;
}

// nettle_hkdf_expand(context, update, digest, digest_size, info_size, info, size, out).
SEC("uprobe/nettle_expand")
int nettle_expand(struct registers *it) {
    struct place info = {it->C6, it->C5}, key = last_key(it->C1);
    if (key.size)
        expand(GNUTLS, info, key, argument(it, 8), argument(it, 7));
    return 0;
}

// nettle_hkdf_extract(context, update, digest, digest_size, secret_size, secret, out).
SEC("uprobe/nettle_extract")
int nettle_extract(struct registers *it) {
    struct place salt = last_key(it->C1);
    if (salt.size)
        extract(GNUTLS, salt, argument(it, 7), it->C4);
    return 0;
}
