//! A command in an agent's container that has one answer.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use tokio::io::AsyncReadExt;
use tokio::time::{Duration, timeout};

use super::client::Cluster;
use super::container::PROGRAM;
use super::error::{Error, Request, is_rbac};
use super::inject::cannot_exec;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// The most bytes of an answer.
const MOST: u64 = 1 << 20;

/// Where a command runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Where<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) container: &'a str,
}

/// Runs the agent's program there and returns what it prints.
///
/// # Errors
/// If it cannot be run, fails, or does not answer in time.
pub(super) async fn ask(cluster: &Cluster, place: Where<'_>, arguments: &[&str]) -> Result<String, Error> {
    let Where { namespace, pod, container } = place;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let words = std::iter::once(PROGRAM).chain(arguments.iter().copied());
    let command: Vec<&str> = words.collect();
    let parameters = AttachParams::default().container(container);
    let answer = async {
        let mut process = match api.exec(pod, command, &parameters).await {
            Ok(process) => process,
            Err(kube::Error::Api(status)) if is_rbac(&status) => return Err(cannot_exec(namespace, &status.message)),
            Err(error) => {
                let request = Request { verb: "create", resource: "pods/exec", name: pod, namespace: Some(namespace) };
                return Err(Error::of(&request, &cluster.server, &error));
            }
        };
        let (mut said, mut complaint) = (String::new(), String::new());
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let out = async {
            if let Some(stdout) = stdout {
                let _ = stdout.take(MOST).read_to_string(&mut said).await;
            }
        };
        let err = async {
            if let Some(stderr) = stderr {
                let _ = stderr.take(MOST).read_to_string(&mut complaint).await;
            }
        };
        tokio::join!(out, err);
        if let Some(error) = complaint.lines().rev().find_map(|line| line.strip_prefix("error: ")) {
            return Err(Error::new(error));
        }
        Ok(said)
    };
    let place = format!("the agent {container} in {namespace}/{pod}");
    match timeout(PATIENCE, answer).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(error)) => Err(Error { message: format!("{place}: {}", error.message), ..error }),
        Err(_) => Err(Error::new(format!("{place} does not answer within {} s", PATIENCE.as_secs()))),
    }
}
