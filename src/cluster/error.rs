//! What went wrong with the cluster, in words for its user, and what to do next.

use std::error::Error as _;
use std::fmt;

use kube::core::Status;

/// A failure and, where there is one, the command or change that comes next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Failed operation, object and cause.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A request to the API server, as in `kubectl auth can-i VERB RESOURCE -n NAMESPACE`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) verb: &'a str,
    /// As in RBAC rules: `pods`, `pods/exec`.
    pub(super) resource: &'a str,
    /// The object; empty for all of them.
    pub(super) name: &'a str,
    /// None for all, or for what has no namespace.
    pub(super) namespace: Option<&'a str>,
}

/// `patch pods/ephemeralcontainers of web-1 in namespace shop`.
impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.name.is_empty() {
            write!(f, " of {}", self.name)?;
        }
        self.namespace.map_or(Ok(()), |namespace| write!(f, " in namespace {namespace}"))
    }
}

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Why `request` to the API server at `server` failed.
    pub(super) fn of(request: &Request<'_>, server: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::refused(request, server, status),
            kube::Error::Auth(_) => Self::credentials(&root(error)),
            _ => Self::unreached(request, server, error),
        }
    }

    fn refused(request: &Request<'_>, server: &str, status: &Status) -> Self {
        let message = status.message.trim();
        match status.code {
            401 => Self::new(format!("the API server at {server} does not accept your credentials: {message}"))
                .hint("kubectl auth whoami"),
            403 if is_rbac(status) => {
                let scope = request.namespace.map_or_else(|| "-A".to_owned(), |namespace| format!("-n {namespace}"));
                Self::new(format!("you are not allowed to {request}: {message}"))
                    .hint(format!("kubectl auth can-i {} {} {scope}", request.verb, request.resource))
            }
            // What admission says is meant for the user as it is.
            _ => Self::new(format!("cannot {request}: {message}")),
        }
    }

    fn credentials(cause: &str) -> Self {
        Self::new(format!("cannot get credentials for the cluster: {cause}"))
            .hint("the kubeconfig's user says how; kubectl get pods shows whether kubectl can")
    }

    fn unreached(request: &Request<'_>, server: &str, error: &kube::Error) -> Self {
        let cause = root(error);
        let mut source: Option<&(dyn std::error::Error + 'static)> = error.source();
        while let Some(inner) = source {
            if let Some(auth) = inner.downcast_ref::<kube::client::AuthError>() {
                return Self::credentials(&auth.to_string());
            }
            source = inner.source();
        }
        if cause.contains("ertificate") || cause.contains("UnknownIssuer") {
            return Self::new(format!("cannot trust the API server at {server}: {cause}"))
                .hint("check the kubeconfig's cluster, or give --certificate-authority FILE");
        }
        match error {
            kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => {
                Self::new(format!("cannot reach the API server at {server}: {cause}")).hint("kubectl cluster-info")
            }
            _ => Self::new(format!("cannot {request}: {error}")),
        }
    }
}

/// True if RBAC refused, not an admission plugin, which also answers 403.
pub(super) fn is_rbac(status: &Status) -> bool {
    status.code == 403 && status.message.contains(" cannot ") && status.message.contains(" resource \"")
}

/// The innermost cause: what wraps it says nothing more ("client error (Connect)").
fn root(error: &kube::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    match text.split_once(" (os error") {
        // The system's words, without its number: "Connection refused (os error 111)".
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn refusal(code: u16, message: &str) -> Error {
        let request =
            Request { verb: "patch", resource: "pods/ephemeralcontainers", name: "web-1", namespace: Some("shop") };
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        Error::of(&request, "https://api:6443", &kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn rbac_names_verb_and_resource_and_how_to_ask() {
        let said = r#"pods "web-1" is forbidden: User "eve" cannot patch resource "pods/ephemeralcontainers" in API group "" in the namespace "shop""#;
        let error = refusal(403, said);
        assert_eq!(
            error.message,
            format!("you are not allowed to patch pods/ephemeralcontainers of web-1 in namespace shop: {said}")
        );
        assert_eq!(error.hint.as_deref(), Some("kubectl auth can-i patch pods/ephemeralcontainers -n shop"));
    }

    #[test]
    fn webhooks_are_quoted_and_credentials_are_not_mistaken_for_rights() {
        let said = "admission webhook \"no.debug\" denied the request: never on Fridays";
        let error = refusal(403, said);
        assert_eq!(error.message, format!("cannot patch pods/ephemeralcontainers of web-1 in namespace shop: {said}"));
        assert_eq!(error.hint, None);
        let error = refusal(401, "Unauthorized");
        assert_eq!(error.message, "the API server at https://api:6443 does not accept your credentials: Unauthorized");
        assert_eq!(error.hint.as_deref(), Some("kubectl auth whoami"));
    }

    #[test]
    fn a_server_that_does_not_answer_is_named_with_the_innermost_cause() {
        let request = Request { verb: "list", resource: "pods", name: "", namespace: None };
        let refused = io::Error::from_raw_os_error(111);
        let error = Error::of(&request, "https://127.0.0.1:1", &kube::Error::Service(Box::new(refused)));
        assert_eq!(error.message, "cannot reach the API server at https://127.0.0.1:1: connection refused");
        let untrusted = io::Error::other("invalid peer certificate: UnknownIssuer");
        let error = Error::of(&request, "https://api", &kube::Error::Service(Box::new(untrusted)));
        assert_eq!(
            error.message,
            "cannot trust the API server at https://api: invalid peer certificate: UnknownIssuer"
        );
    }
}
