// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// OpenSSL 3 and 1.1.

// OSSL_PARAM, whose layout is the interface of OpenSSL 3.
struct parameter { u64 name; u32 type, unused; u64 bytes, size, returned; };

#define TEXT(a, b, c, d, e, f, g) \
    ((u64)a | (u64)b << 8 | (u64)c << 16 | (u64)d << 24 | (u64)e << 32 | (u64)f << 40 | (u64)g << 48)

// The most parameters of a derivation that are looked at.
#define PARAMETERS 12

INLINE u32 named(u64 name) {
    if (name == TEXT('k', 'e', 'y', 0, 0, 0, 0))
        return KEY;
    if (name == TEXT('s', 'e', 'c', 'r', 'e', 't', 0))
        return SECRET;
    if (name == TEXT('s', 'e', 'e', 'd', 0, 0, 0))
        return SEED;
    if (name == TEXT('l', 'a', 'b', 'e', 'l', 0, 0))
        return LABEL;
    if (name == TEXT('s', 'a', 'l', 't', 0, 0, 0))
        return SALT;
    return 0;
}

// Where the values of a derivation are, as far as they are there.
struct values { struct place key, secret, label, salt, seeds[3]; };

// EVP_KDF_derive(ctx, out, size, parameters) of OpenSSL 3. Of derivations that are none of TLS, or give no traffic secret, nothing
// leaves the kernel.
SEC("uprobe/kdf")
int kdf(struct registers *it) {
    u64 parameters = it->C4;
    struct values found;
    u32 seeds = 0;
    u8 start[4];
    if (!parameters || !is_target())
        return 0;
    // A read that fails leaves zeros. The verifier would tell those that it knows from what is found, and go on with each.
    read(&found, sizeof found, &found);
    for (u32 i = 0; i < PARAMETERS; i++) {
        struct parameter parameter;
        u64 name = 0;
        if (read(&parameter, sizeof parameter, (void *)(parameters + i * sizeof parameter)) != 0 || !parameter.name)
            break;
        read_text(&name, sizeof name, (void *)parameter.name);
        struct place place = {parameter.bytes, parameter.size};
        switch (named(name)) {
        case KEY:
            found.key = place;
            break;
        case SECRET:
            found.secret = place;
            break;
        case LABEL:
            found.label = place;
            break;
        case SALT:
            found.salt = place;
            break;
        case SEED:
            if (seeds == 0)
                found.seeds[0] = place;
            else if (seeds == 1)
                found.seeds[1] = place;
            else if (seeds == 2)
                found.seeds[2] = place;
            seeds++;
            break;
        }
    }
    if (begins(start, found.label) && is_secret(start)) {
        if (derivation(OPENSSL, LABEL, found.label, found.key, found.salt) && it->C3 > 0 && it->C3 <= MOST)
            remember(0, it->C2, it->C3);
    } else if (begins(start, found.seeds[0]) && is_expansion(start)) {
        expansion(OPENSSL, found.secret, found.seeds[0], found.seeds[1], found.seeds[2]);
    }
    return 0;
}

// Commands of EVP_PKEY_CTX_ctrl: EVP_PKEY_CTRL_TLS_SECRET to EVP_PKEY_CTRL_HKDF_MODE, and those that give what tells secrets apart.
enum { FIRST_COMMAND = 0x1001, SEED_GIVEN = 0x1002, INFO_GIVEN = 0x1006, LAST_COMMAND = 0x1007 };

// EVP_PKEY_CTX_ctrl(ctx, type, operation, command, size, bytes) of OpenSSL 1.1: what goes into a derivation, one by one.
SEC("uprobe/control")
int control(struct registers *it) {
    u32 command = it->C4;
    if (command < FIRST_COMMAND || command > LAST_COMMAND || !is_target())
        return 0;
    struct small *event = begin(sizeof *event);
    if (!event)
        return 0;
    u64 size = (u32)it->C5;
    head(&event->head, CONTROL, command, it->C1);
    // A mode is a number, and so is what other algorithms mean by the same commands.
    copy(&event->value, (u32)size, (void *)it->C6, it->C6 < 4096 ? 0 : size);
    submit(event, 0);
    u8 start[12];
    if (read(start, sizeof start, (void *)it->C6) == 0 &&
        (command == SEED_GIVEN ? is_expansion(start) : command == INFO_GIVEN && is_secret(start + 9)))
        agreed();
    return 0;
}

// EVP_PKEY_derive(ctx, out, &size) of OpenSSL 1.1.
SEC("uprobe/derive")
int derive(struct registers *it) {
    u64 size = 0;
    if (!it->C2 || !is_target() || read(&size, sizeof size, (void *)it->C3) != 0 || size == 0)
        return 0;
    // Keys of older versions come as one long block, which itself is of no interest.
    remember(it->C1, it->C2, size <= MOST ? size : 0);
    return 0;
}

// The end of either, and of HKDF_expand and HKDF_extract.
SEC("uretprobe/derived")
int derived(struct registers *it) {
    return output((int)it->RESULT > 0);
}
