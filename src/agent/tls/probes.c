// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Programs in the kernel that copy what TLS libraries derive keys from. Each looks at the arguments of a function whose
// signature is public, or long stable, and at nothing whose layout a library's version decides; what it all means is worked
// out by the agent (derive.rs).
//
// A uprobe is of a file, not of a process, and containers of one image have their files in common. So each program first asks
// whether the process is in the target's PID namespace, and copies nothing if not.
//
// Built by build.rs: clang -target bpf -D__TARGET_ARCH_x86 (or arm64). It needs no kernel headers and no CO-RE: helpers are numbers,
// registers are those of the architecture's ptrace interface.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// Map definitions as BTF has them.
#define NUMBER(name, value) int (*name)[value]
#define TYPE(name, type) type *name

enum { HASH_LRU = 9, ARRAY = 2, RINGBUF = 27 };

static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*forget)(void *map, const void *key) = (void *)3;
static u64 (*current)(void) = (void *)14;
static long (*read)(void *to, u32 size, const void *from) = (void *)112;
static long (*read_text)(void *to, u32 size, const void *from) = (void *)114;
static void *(*reserve)(void *map, u64 size, u64 flags) = (void *)131;
static void (*submit)(void *event, u64 flags) = (void *)132;
static long (*current_in)(u64 device, u64 inode, void *ids, u32 size) = (void *)120;

#if defined(__TARGET_ARCH_x86)
struct registers { u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, original_ax, ip, cs, flags, sp, ss; };
#define C1 di
#define C2 si
#define C3 dx
#define C4 cx
#define C5 r8
#define C6 r9
#define RESULT ax
// Go's own convention since 1.17.
#define GO2 bx
#define GO3 cx
#define GO4 di
#define GO5 si
#define GO7 r9
#define GO8 r10
#elif defined(__TARGET_ARCH_arm64)
struct registers { u64 x0, x1, x2, x3, x4, x5, x6, x7, x8; };
#define C1 x0
#define C2 x1
#define C3 x2
#define C4 x3
#define C5 x4
#define C6 x5
#define RESULT x0
#define GO2 x1
#define GO3 x2
#define GO4 x3
#define GO5 x4
#define GO7 x6
#define GO8 x7
#else
#error "which architecture?"
#endif

// The target's PID namespace, as its file in /proc has it; set before the programs are loaded.
volatile const u64 namespace_device = 0;
volatile const u64 namespace_inode = 0;

// The most bytes of a value; a mask. Secrets and hashes have 48 at most, labels fewer.
#define MOST 63
// The most parameters of a derivation that are looked at.
#define PARAMETERS 12

enum kind { HELLO = 1, DERIVATION, OUTPUT, CONTROL, GO };

// A value, and which one it is.
struct value { u32 name, size; u8 bytes[MOST + 1]; };

struct head { u32 kind, extra; u64 thread, context; };
// HELLO: a ClientHello's random. OUTPUT: what was derived. CONTROL: extra says what is set for a derivation.
struct small { struct head head; struct value value; };
// DERIVATION: what goes into one, in TLS 1.3 and before.
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

INLINE int is_target(void) {
    struct { u32 process, thread; } ids;
    return current_in(namespace_device, namespace_inode, &ids, sizeof ids) == 0;
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

// EVP_DigestUpdate(ctx, data, size): the hash over the handshake begins with the ClientHello: type, length (3), version (2),
// random (32).
SEC("uprobe/digest")
int digest(struct registers *it) {
    const void *data = (const void *)it->C2;
    u8 start[6];
    if (it->C3 < 42 || read(start, sizeof start, data) != 0)
        return 0;
    if (start[0] != 1 || start[1] != 0 || start[4] != 3 || start[5] > 3 || !is_target())
        return 0;
    struct small *event = begin(sizeof *event);
    if (!event)
        return 0;
    head(&event->head, HELLO, 0, 0);
    copy(&event->value, 0, data + 6, 32);
    submit(event, 0);
    return 0;
}

// OSSL_PARAM, whose layout is the interface of OpenSSL 3.
struct parameter { u64 name; u32 type, unused; u64 bytes, size, returned; };

#define TEXT(a, b, c, d, e, f, g) \
    ((u64)a | (u64)b << 8 | (u64)c << 16 | (u64)d << 24 | (u64)e << 32 | (u64)f << 40 | (u64)g << 48)

enum { KEY = 1, SECRET, SEED, LABEL, SALT };

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

// EVP_KDF_derive(ctx, out, size, parameters) of OpenSSL 3. Of derivations that are none of TLS, or give no traffic secret, nothing
// leaves the kernel.
SEC("uprobe/kdf")
int kdf(struct registers *it) {
    u64 parameters = it->C4;
    struct place key = {}, secret = {}, label = {}, salt = {}, first = {}, second = {}, third = {};
    u32 seeds = 0, over = 0;
    u8 start[4];
    if (!parameters || !is_target())
        return 0;
#pragma unroll
    for (u32 i = 0; i < PARAMETERS; i++) {
        struct parameter parameter;
        u64 name = 0;
        if (over)
            continue;
        if (read(&parameter, sizeof parameter, (void *)(parameters + i * sizeof parameter)) != 0 || !parameter.name) {
            over = 1;
            continue;
        }
        read_text(&name, sizeof name, (void *)parameter.name);
        struct place place = {parameter.bytes, parameter.size};
        switch (named(name)) {
        case KEY:
            key = place;
            break;
        case SECRET:
            secret = place;
            break;
        case LABEL:
            label = place;
            break;
        case SALT:
            salt = place;
            break;
        case SEED:
            if (seeds == 0)
                first = place;
            else if (seeds == 1)
                second = place;
            else if (seeds == 2)
                third = place;
            seeds++;
            break;
        }
    }
    if (begins(start, label) && is_secret(start)) {
        struct derivation *event = begin(sizeof *event);
        if (!event)
            return 0;
        head(&event->head, DERIVATION, 0, 0);
        take(&event->values[0], LABEL, label);
        take(&event->values[1], KEY, key);
        take(&event->values[2], SALT, salt);
        submit(event, 0);
        if (it->C3 > 0 && it->C3 <= MOST)
            remember(0, it->C2, it->C3);
    } else if (begins(start, first) && is_expansion(start)) {
        struct expansion *event = begin(sizeof *event);
        if (!event)
            return 0;
        head(&event->head, DERIVATION, 0, 0);
        take(&event->values[0], SECRET, secret);
        take(&event->values[1], SEED, first);
        take(&event->values[2], SEED, second);
        take(&event->values[3], SEED, third);
        submit(event, 0);
    }
    return 0;
}

// EVP_PKEY_CTX_ctrl(ctx, type, operation, command, size, bytes) of OpenSSL 1.1: what goes into a derivation, one by one. The
// commands are EVP_PKEY_CTRL_TLS_SECRET to EVP_PKEY_CTRL_HKDF_MODE.
SEC("uprobe/control")
int control(struct registers *it) {
    u32 command = it->C4;
    if (command < 0x1001 || command > 0x1007 || !is_target())
        return 0;
    struct small *event = begin(sizeof *event);
    if (!event)
        return 0;
    u64 size = (u32)it->C5;
    head(&event->head, CONTROL, command, it->C1);
    // A mode is a number, and so is what other algorithms mean by the same commands.
    copy(&event->value, (u32)size, (void *)it->C6, it->C6 < 4096 ? 0 : size);
    submit(event, 0);
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

// The end of either.
SEC("uretprobe/derived")
int derived(struct registers *it) {
    u64 thread = current();
    struct output *output = lookup(&pending, &thread);
    if (!output)
        return 0;
    struct output copied = *output;
    forget(&pending, &thread);
    if ((int)it->RESULT <= 0)
        return 0;
    struct small *event = begin(sizeof *event);
    if (!event)
        return 0;
    head(&event->head, OUTPUT, 0, copied.context);
    copy(&event->value, 0, (void *)copied.bytes, copied.size);
    submit(event, 0);
    return 0;
}

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

// Some helpers are for programs of this licence only.
char _license[] SEC("license") = "Dual BSD/GPL";
