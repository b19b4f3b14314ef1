// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// What programs in the kernel find there: helpers, maps, and the registers of the process that is probed.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define GLOBAL __attribute__((noinline))

// Map definitions as BTF has them.
#define NUMBER(name, value) int (*name)[value]
#define TYPE(name, type) type *name

enum { HASH_LRU = 9, ARRAY = 2, RINGBUF = 27 };

static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*forget)(void *map, const void *key) = (void *)3;
static u64 (*clock)(void) = (void *)5;
static u64 (*current)(void) = (void *)14;
static long (*read)(void *to, u32 size, const void *from) = (void *)112;
static long (*read_kernel)(void *to, u32 size, const void *from) = (void *)113;
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
// The seventh argument of a function and those after it are on the stack, above the address to return to.
#define IN_REGISTERS 6
#define STACKED(it) ((it)->sp + 8)
// Go's own convention since 1.17.
#define GO1 ax
#define GO2 bx
#define GO3 cx
#define GO4 di
#define GO5 si
#define GO7 r9
#define GO8 r10
#elif defined(__TARGET_ARCH_arm64)
struct registers { u64 x[31], sp; };
#define C1 x[0]
#define C2 x[1]
#define C3 x[2]
#define C4 x[3]
#define C5 x[4]
#define C6 x[5]
#define C7 x[6]
#define C8 x[7]
#define RESULT x[0]
#define IN_REGISTERS 8
#define STACKED(it) ((it)->sp)
#define GO1 x[0]
#define GO2 x[1]
#define GO3 x[2]
#define GO4 x[3]
#define GO5 x[4]
#define GO7 x[6]
#define GO8 x[7]
#else
#error "which architecture?"
#endif

// Numbers of system calls.
#if defined(__TARGET_ARCH_x86)
enum { RECEIVE = 0, SEND = 1, RECEIVE_VECTOR = 19, SEND_VECTOR = 20, SEND_TO = 44, RECEIVE_FROM = 45, SEND_MESSAGE = 46, RECEIVE_MESSAGE = 47 };
#else
enum { RECEIVE = 63, SEND = 64, RECEIVE_VECTOR = 65, SEND_VECTOR = 66, SEND_TO = 206, RECEIVE_FROM = 207, SEND_MESSAGE = 211, RECEIVE_MESSAGE = 212 };
#endif

// An argument that may be on the stack, of those from the seventh on.
INLINE u64 argument(struct registers *it, u32 number) {
    u64 value = 0;
#ifdef C7
    if (number == 7)
        return it->C7;
    if (number == 8)
        return it->C8;
#endif
    read(&value, sizeof value, (void *)(STACKED(it) + 8 * (number - IN_REGISTERS - 1)));
    return value;
}
