//! Pods with the programs of their node: curl, OpenSSL, Python.

use serde_json::{Value, json};

use super::cluster::Place;

/// Where the node has them, and where the container has them.
const FOLDERS: [(&str, &str, &str); 4] = [
    ("usr", "/usr", "/usr"),
    ("lib", "/usr/lib", "/lib"),
    ("lib64", "/usr/lib64", "/lib64"),
    ("ssl", "/etc/ssl", "/etc/ssl"),
];

/// The spec of a pod, for [`Place::pod`], that runs this shell script.
pub fn spec(script: &str, env: &Value) -> Value {
    let image = Place::spec(&json!({}))["containers"][0]["image"].clone();
    let volumes: Vec<_> =
        FOLDERS.iter().map(|(name, path, _)| json!({"name": name, "hostPath": {"path": path}})).collect();
    let mounts: Vec<_> =
        FOLDERS.iter().map(|(name, _, path)| json!({"name": name, "mountPath": path, "readOnly": true})).collect();
    json!({"volumes": volumes, "containers": [{"name": "web", "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script], "env": env, "volumeMounts": mounts}]})
}
