//! Probes that the kernel does not have, or does not allow: the agent ends, and says which of these and what to do.

use std::process::Command;

use super::support::{Net, binary_with_probes, said};
use super::tls::Processes;

/// Becomes a program for which these system calls fail so, as a seccomp profile has it, and as a kernel has it that has none of them.
const WITHOUT: &str = "import ctypes, errno, os, struct, sys\n\
    error, calls = getattr(errno, sys.argv[1]), sys.argv[2].split(',')\n\
    numbers = {'x86_64': {'bpf': 321, 'perf_event_open': 298}, 'aarch64': {'bpf': 280, 'perf_event_open': 241}}[os.uname().machine]\n\
    steps = [(0x20, 0, 0, 0)] # BPF: the call's number; if it is that, the error; else it is allowed.\n\
    for call in calls: steps += [(0x15, 0, 1, numbers[call]), (6, 0, 0, 0x50000 | error)]\n\
    steps.append((6, 0, 0, 0x7fff0000))\n\
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))\n\
    program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(steps), ctypes.addressof(code)))\n\
    assert ctypes.CDLL(None, use_errno=True).prctl(22, 2, program) == 0, ctypes.get_errno()\n\
    os.execv(sys.argv[3], sys.argv[3:])\n";

const CAPABILITIES: &str = "uprobes need the capabilities SYS_ADMIN and SYS_PTRACE";
const KERNEL: &str = "uprobes need Linux 5.8 or later with BPF and UPROBE_EVENTS";
const PROFILE: &str = "seccomp, SELinux, AppArmor or lockdown refuses bpf or perf_event_open here";

/// Has the agent start so, in vain, and checks what it says.
fn is_refused(net: &Net, mut command: Command, cause: &str, hint: &str) {
    let run = command.arg(binary_with_probes()).args(["run", "--tls", "--socket"]).arg(net.socket());
    let output = run.output().expect("nsenter runs");
    let wanted = format!("error: cannot read TLS keys: {cause}\nhint: {hint}; --keylog FILE works without\n");
    assert_eq!((output.status.code(), said(&output)), (Some(1), wanted));
}

#[test]
fn what_is_missing_is_told_from_what_is_forbidden() {
    let net = Net::new();
    // Here the PID namespace may be the machine's own, which is refused first.
    let pod = Processes::new(&net);
    let mut command = pod.command("setpriv");
    command.args(["--bounding-set", "-sys_admin,-bpf,-perfmon"]);
    is_refused(&net, command, "Operation not permitted (os error 1)", CAPABILITIES);
    for (calls, error, cause, hint) in [
        ("bpf,perf_event_open", "ENOSYS", "Function not implemented (os error 38)", KERNEL),
        ("bpf", "EINVAL", "Invalid argument (os error 22)", KERNEL),
        ("perf_event_open", "ENOSYS", "perf_event_open: Function not implemented (os error 38)", KERNEL),
        ("bpf", "EPERM", "Operation not permitted (os error 1)", PROFILE),
        ("perf_event_open", "EPERM", "perf_event_open: Operation not permitted (os error 1)", PROFILE),
        ("perf_event_open", "EACCES", "perf_event_open: Permission denied (os error 13)", PROFILE),
    ] {
        let mut command = pod.command("python3");
        command.args(["-c", WITHOUT, error, calls]);
        is_refused(&net, command, cause, hint);
    }
}
