// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What the programs tell the agent of, and how.

// The target's PID namespace, as its file in /proc has it; set before the programs are loaded.
volatile const u64 namespace_device = 0;
volatile const u64 namespace_inode = 0;

// The most bytes of a value; a mask. Secrets and hashes have 48 at most, labels fewer.
#define MOST 63

enum kind { HELLO = 1, DERIVATION, OUTPUT, CONTROL, GO, ANSWER };

// A value, and which one it is.
struct value { u32 name, size; u8 bytes[MOST + 1]; };

struct head { u32 kind, extra; u64 thread, context; };
// HELLO: a ClientHello's random, and the hash that it goes into. ANSWER: a ServerHello goes there. OUTPUT: what was derived.
// CONTROL: extra says what is set for a derivation.
struct small { struct head head; struct value value; };
// DERIVATION: what goes into one, in TLS 1.3 and before. Extra says whose it is.
enum library { OPENSSL = 1, BORINGSSL, GNUTLS, GOLANG };
struct derivation { struct head head; struct value values[3]; };
struct expansion { struct head head; struct value values[4]; };
// GO: label, client random, secret.
struct line { struct head head; struct value values[3]; };

struct {
    NUMBER(type, RINGBUF);
    NUMBER(max_entries, 1024 * 1024);
} events SEC(".maps");

// Events for which there was no room.
struct {
    NUMBER(type, ARRAY);
    NUMBER(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, u64);
} lost SEC(".maps");

// Derivations that have begun, by thread: where their output comes.
struct output { u64 context, bytes, size; };
struct {
    NUMBER(type, HASH_LRU);
    NUMBER(max_entries, 1024);
    TYPE(key, u64);
    TYPE(value, struct output);
} pending SEC(".maps");

// The process's number in the target's PID namespace; 0 if it is none of the target's.
INLINE u32 target(void) {
    struct { u32 thread, process; } ids;
    return current_in(namespace_device, namespace_inode, &ids, sizeof ids) == 0 ? ids.process : 0;
}

INLINE int is_target(void) {
    return target() != 0;
}

INLINE void *begin(u64 size) {
    void *event = reserve(&events, size, 0);
    if (!event) {
        u32 key = 0;
        u64 *count = lookup(&lost, &key);
        if (count)
            __sync_fetch_and_add(count, 1);
    }
    return event;
}

// Copies at most MOST bytes. The barrier keeps the bound on the register that is used.
INLINE void copy(struct value *value, u32 name, const void *from, u64 size) {
    u32 length = size > MOST ? MOST : size;
    asm volatile("" : "+r"(length));
    length &= MOST;
    value->name = name;
    value->size = read(value->bytes, length, from) == 0 ? length : 0;
}

INLINE void head(struct head *head, u32 kind, u32 extra, u64 context) {
    head->kind = kind;
    head->extra = extra;
    head->thread = current();
    head->context = context;
}

INLINE void remember(u64 context, u64 bytes, u64 size) {
    u64 thread = current();
    struct output output = {context, bytes, size};
    update(&pending, &thread, &output, 0);
}

#include "calls.h"

enum { KEY = 1, SECRET, SEED, LABEL, SALT, INFO };

// "c hs traffic" and its like, "derived".
INLINE int is_secret(const u8 *text) {
    if ((text[0] == 'c' || text[0] == 's') && text[1] == ' ')
        return text[2] == 'h' || text[2] == 'a' || text[2] == 'e';
    return text[0] == 'd' && text[1] == 'e' && text[2] == 'r';
}

// "key expansion".
INLINE int is_expansion(const u8 *text) {
    return text[0] == 'k' && text[1] == 'e' && text[2] == 'y' && text[3] == ' ';
}

// Where a value is.
struct place { u64 bytes, size; };

// True if the value begins with four bytes that can be read.
INLINE int begins(u8 start[4], struct place place) {
    return place.bytes && place.size >= 4 && read(start, 4, (const void *)place.bytes) == 0;
}

INLINE void take(struct value *value, u32 name, struct place place) {
    copy(value, name, (const void *)place.bytes, place.bytes ? place.size : 0);
}

// Tells of a derivation of TLS 1.3: by its label, or by what holds it.
INLINE int derivation(u32 library, u32 name, struct place label, struct place key, struct place salt) {
    struct derivation *event = begin(sizeof *event);
    if (!event)
        return 0;
    head(&event->head, DERIVATION, library, 0);
    take(&event->values[0], name, label);
    take(&event->values[1], KEY, key);
    take(&event->values[2], SALT, salt);
    submit(event, 0);
    agreed();
    return 1;
}

// The same of what was before, by both sides' randoms, which are the seeds.
INLINE void expansion(u32 library, struct place secret, struct place label, struct place server, struct place client) {
    struct expansion *event = begin(sizeof *event);
    if (!event)
        return;
    head(&event->head, DERIVATION, library, 0);
    take(&event->values[0], SECRET, secret);
    take(&event->values[1], SEED, label);
    take(&event->values[2], SEED, server);
    take(&event->values[3], SEED, client);
    submit(event, 0);
    agreed();
}

// What a derivation has given, unless it failed.
INLINE int output(int is_done) {
    u64 thread = current();
    struct output *output = lookup(&pending, &thread);
    if (!output)
        return 0;
    struct output copied = *output;
    forget(&pending, &thread);
    if (!is_done || !is_target())
        return 0;
    struct small *event = begin(sizeof *event);
    if (!event)
        return 0;
    head(&event->head, OUTPUT, 0, copied.context);
    copy(&event->value, 0, (void *)copied.bytes, copied.size);
    submit(event, 0);
    return 0;
}

// HKDF-Expand, if it gives a secret of TLS 1.3.
INLINE void expand(u32 library, struct place info, struct place key, u64 out, u64 size) {
    // An HkdfLabel (RFC 8446, 7.1): length (2), the label's, and the label.
    u8 start[12];
    struct place none = {};
    if (info.size < sizeof start || size == 0 || size > MOST || read(start, sizeof start, (void *)info.bytes) != 0)
        return;
    if (start[3] != 't' || start[4] != 'l' || start[5] != 's' || start[8] != ' ' || !is_secret(start + 9))
        return;
    if (derivation(library, INFO, info, key, none))
        remember(0, out, size);
}

// HKDF-Extract, if its salt may be such a secret.
INLINE void extract(u32 library, struct place salt, u64 out, u64 size) {
    struct place none = {};
    if (salt.size >= 32 && size >= 32 && size <= MOST && derivation(library, LABEL, none, none, salt))
        remember(0, out, size);
}
