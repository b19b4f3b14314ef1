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

#include "kernel.h"
#include "events.h"

#include "hello.c"
#include "openssl.c"
#include "boringssl.c"
#include "gnutls.c"
#include "plaintext.c"
#include "go.c"

// Some helpers are for programs of this licence only.
char _license[] SEC("license") = "Dual BSD/GPL";
