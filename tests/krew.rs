//! What `make dist` writes, installed by krew itself and run as `kubectl sniff`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use crate::support::cluster::{Place, kubeconfig};

/// A home that knows nothing but krew, with kubectl and krew of the test cluster before those of the machine.
struct Home(tempfile::TempDir);

impl Home {
    fn kubectl(&self, arguments: &[&str]) -> Output {
        let folders = [self.0.path().join("krew/bin"), kubeconfig().parent().unwrap().join("bin")];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path))).unwrap();
        let mut command = Command::new("kubectl");
        command.args(arguments).env("PATH", path).env("HOME", self.0.path()).env("KUBECONFIG", kubeconfig());
        command
            .env("KREW_ROOT", self.0.path().join("krew"))
            .env("KREW_DEFAULT_INDEX_URI", format!("file://{}", self.0.path().join("index").display()))
            .env("KREW_NO_UPGRADE_CHECK", "1")
            .env_remove("SNIFF_IMAGE");
        command.output().expect("kubectl, which the test cluster brings")
    }

    /// An index of plugins that has this one alone: krew does little without one.
    fn index(&self, manifest: &str) {
        let plugins = self.0.path().join("index/plugins");
        std::fs::create_dir_all(&plugins).unwrap();
        std::fs::copy(manifest, plugins.join("sniff.yaml")).unwrap();
        let author = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
        for words in [&["init", "-q"][..], &["add", "."], &["commit", "-q", "-m", "Add sniff"]] {
            let status = Command::new("git").args(author).args(words).current_dir(self.0.path().join("index")).status();
            assert!(status.expect("git, which tests/setup installs").success(), "git {words:?}");
        }
        self.ok(&["krew", "update"]);
    }

    /// What it prints.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {said}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The folder with manifest and archive.
fn dist() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut build = Command::new(root.join("krew/build"));
    // What cargo tells of this test is nothing to the build, which would take it for a change.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_")) {
        if name != "CARGO_HOME" {
            build.env_remove(name);
        }
    }
    let output = build.current_dir(root).output().expect("krew/build runs");
    assert!(output.status.success(), "krew/build: {}", String::from_utf8_lossy(&output.stderr));
    root.join("target/dist")
}

#[tokio::test(flavor = "multi_thread")]
async fn krew_installs_runs_and_uninstalls_it() {
    let place = Place::new("krew", json!({})).await;
    place.pod("web", &json!({})).await;
    let dist = tokio::task::block_in_place(dist);
    let version = env!("CARGO_PKG_VERSION");
    let manifest = dist.join("sniff.yaml").display().to_string();
    let archive = dist.join(format!("kubectl-sniff-{version}-linux-amd64.tar.gz")).display().to_string();

    let files = Command::new("tar").args(["-tzf", &archive]).output().unwrap();
    let files = String::from_utf8(files.stdout).unwrap();
    for file in ["kubectl-sniff", "LICENSE", "README.md"] {
        assert!(files.contains(file), "{files}");
    }
    let sum = Command::new("sha256sum").args(["-c", &format!("{archive}.sha256")]).current_dir(&dist).output().unwrap();
    assert!(sum.status.success(), "{}", String::from_utf8_lossy(&sum.stdout));

    let home = Home(tempfile::tempdir().unwrap());
    home.index(&manifest);
    home.ok(&["krew", "install", &format!("--manifest={manifest}"), &format!("--archive={archive}")]);
    assert!(home.ok(&["krew", "list"]).contains("sniff"));
    assert!(home.ok(&["sniff", "version"]).starts_with(&format!("kubectl-sniff {version} (commit ")));
    let rows = home.ok(&["sniff", "(we*)", "-n", &place.namespace, "--count", "3"]);
    assert_eq!(rows.lines().filter(|row| row.contains(" http ") && row.contains(" 200 ")).count(), 3, "{rows}");

    home.ok(&["krew", "uninstall", "sniff"]);
    assert!(!home.kubectl(&["sniff", "version"]).status.success());
    assert_eq!(std::fs::read_dir(home.0.path().join("krew/store")).unwrap().count(), 0);
}
