// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The hash over a handshake, which tells whose it is.

// EVP_DigestUpdate(ctx, data, size) of OpenSSL and BoringSSL, gnutls_hash_fast(algorithm, data, size, digest) of GnuTLS: the hash
// over the handshake begins with the ClientHello, that is type, length (3), version (2), random (32). If the server wanted another
// one, there come before it the hash of the first one, which is a message of its own, and the server's wish: in one piece, but for
// BoringSSL. There, other handshakes may take their turn until the ServerHello has come.
SEC("uprobe/digest")
int digest(struct registers *it) {
    u64 data = it->C2, size = it->C3;
    u8 start[6];
    if (size < 42 || read(start, sizeof start, (void *)data) != 0)
        return 0;
    if (start[0] == 254 && start[1] == 0 && start[2] == 0) {
        u64 skipped = 4 + (u64)start[3];
        if (read(start, 4, (void *)(data + skipped)) != 0 || start[0] != 2 || start[1] != 0)
            return 0;
        skipped += 4 + (start[2] << 8 | start[3]);
        if (size < skipped + 42)
            return 0;
        data += skipped;
        if (read(start, sizeof start, (void *)data) != 0)
            return 0;
    }
    if (start[0] < 1 || start[0] > 2 || start[1] != 0 || start[4] != 3 || start[5] > 3 || !is_target())
        return 0;
    struct small *event = begin(sizeof *event);
    if (!event)
        return 0;
    head(&event->head, start[0] == 1 ? HELLO : ANSWER, 0, it->C1);
    copy(&event->value, 0, (void *)(data + 6), 32);
    submit(event, 0);
    return 0;
}
