//! Java programs that no Debian package has: Maven fetches them from its central repository, once.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with the jars that `pom.xml` in this folder asks for. (A cluster's nodes see the folder of the build, but not
/// the cluster's cache.)
pub fn jars(of: &str) -> PathBuf {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join(of).join("pom.xml");
    let text = std::fs::read_to_string(&list).unwrap();
    let field = |name: &str, nth| {
        text.split(&format!("<{name}>")).nth(nth).and_then(|rest| rest.split('<').next()).unwrap().to_owned()
    };
    let folder = format!("{}-{}", field("artifactId", 1), field("version", 2));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
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
