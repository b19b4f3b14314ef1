//! Tells the binary which commit it was built from, and has clang compile the agent's probes if they are wanted.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=SNIFF_COMMIT");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    let from_git = || {
        let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // An archive of the source has no git; whoever builds from one says the commit by the variable.
    let commit = std::env::var("SNIFF_COMMIT").ok().or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=SNIFF_COMMIT={commit}");
    if std::env::var_os("CARGO_FEATURE_TLS").is_some() {
        probes();
    }
}

/// Compiles src/agent/tls/probes for the kernel. `CLANG` names the compiler.
fn probes() {
    const SOURCE: &str = "src/agent/tls/probes/probes.c";
    println!("cargo:rerun-if-changed=src/agent/tls/probes");
    println!("cargo:rerun-if-env-changed=CLANG");
    let machine = match std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => "x86",
        Ok("aarch64") => "arm64",
        other => panic!("there are no probes for {other:?}"),
    };
    let object = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where")).join("probes.o");
    let flags = ["-target", "bpf", "-mcpu=v3", "-g", "-O2", "-Wall", "-Werror", "-fdebug-compilation-dir=."];
    let mut tried = Vec::new();
    let candidates =
        std::env::var("CLANG").map_or_else(|_| vec!["clang-14".into(), "clang".into()], |clang| vec![clang]);
    for clang in candidates {
        let mut command = Command::new(&clang);
        command.args(flags).arg(format!("-D__TARGET_ARCH_{machine}")).args(["-c", SOURCE, "-o"]).arg(&object);
        match command.status() {
            Ok(status) => {
                assert!(status.success(), "{clang} does not compile {SOURCE}");
                return strip(&clang, &object);
            }
            Err(cause) => tried.push(format!("{clang}: {cause}")),
        }
    }
    panic!("the feature tls needs clang to compile {SOURCE}: {}", tried.join(", "));
}

/// Takes the debugging information out, which only makes the agent larger; what describes the maps stays.
fn strip(clang: &str, object: &PathBuf) {
    let strip = clang.replace("clang", "llvm-strip");
    // Without it, all works as well.
    let _ = Command::new(strip).arg("--strip-debug").arg(object).status();
}
