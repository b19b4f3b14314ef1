// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// BoringSSL, whose derivations have one function each.

// HKDF_expand(out, out_size, digest, key, key_size, info, info_size) of BoringSSL.
SEC("uprobe/hkdf_expand")
int hkdf_expand(struct registers *it) {
    struct place key = {it->C4, it->C5}, info = {it->C6, argument(it, 7)};
    if (is_target())
        expand(BORINGSSL, info, key, it->C1, it->C2);
    return 0;
}

// HKDF_extract(out, &out_size, digest, secret, secret_size, salt, salt_size) of BoringSSL. A salt that is of interest has the size
// of the digest, which is that of what comes out.
SEC("uprobe/hkdf_extract")
int hkdf_extract(struct registers *it) {
    struct place salt = {it->C6, argument(it, 7)};
    if (is_target())
        extract(BORINGSSL, salt, it->C1, salt.size);
    return 0;
}

// CRYPTO_tls1_prf(digest, out, out_size, secret, secret_size, label, label_size, seed, seed_size, another, another_size) of BoringSSL.
SEC("uprobe/tls1_prf")
int tls1_prf(struct registers *it) {
    u8 start[4];
    struct place secret = {it->C4, it->C5}, label = {it->C6, argument(it, 7)};
    if (!begins(start, label) || !is_expansion(start) || !is_target())
        return 0;
    struct place server = {argument(it, 8), argument(it, 9)}, client = {argument(it, 10), argument(it, 11)};
    expansion(BORINGSSL, secret, label, server, client);
    return 0;
}
