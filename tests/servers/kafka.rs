//! Where Kafka's server comes from: no Debian package has it, so Maven fetches it from its central repository, once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with the jars, 45 MB. (The nodes see the folder of the build, but not the cluster's cache.)
pub(super) fn programs() -> String {
    static FOLDER: OnceLock<String> = OnceLock::new();
    FOLDER.get_or_init(|| fetch().display().to_string()).clone()
}

fn fetch() -> PathBuf {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/kafka/pom.xml");
    let version = std::fs::read_to_string(&list).unwrap();
    let version = version.split("<version>").nth(2).and_then(|rest| rest.split('<').next()).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{version}"));
    if folder.exists() {
        return folder;
    }
    // Only a whole folder ever has the name that is looked for.
    let new = folder.with_extension(format!("{}.new", std::process::id()));
    let output = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(&list)
        .arg("org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies")
        .args(["-DincludeScope=runtime", &format!("-DoutputDirectory={}", new.display())])
        .output()
        .expect("mvn, which tests/setup installs");
    assert!(output.status.success(), "mvn failed:\n{}", String::from_utf8_lossy(&output.stdout));
    std::fs::rename(&new, &folder).unwrap();
    folder
}
