//! The connection to the API server: kubeconfig, flags, environment.

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use kube::config::{AuthInfo, Config, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo, NamedCluster};

use super::error::{Error, Request};
use super::flags::Connection;

/// A cluster that answers.
#[derive(Clone)]
pub struct Cluster {
    pub(super) client: Client,
    /// The API server's address, for messages.
    pub(super) server: String,
    /// The namespace of the context.
    namespace: String,
    /// How long a single answer may take.
    timeout: Duration,
}

impl Cluster {
    /// Finds the cluster that the flags, `KUBECONFIG`, `~/.kube/config` or the pod that this runs in say, and asks it for
    /// its version.
    ///
    /// # Errors
    /// If there is no such cluster, it cannot be reached or trusted, or does not accept the credentials.
    pub async fn connect(flags: &Connection) -> Result<Self, Error> {
        let config = config(flags).await?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config)
            .map_err(|error| Error::new(format!("cannot set up the connection to {server}: {error}")))?;
        // No answer is awaited for ever: a day stands for it.
        let timeout = if flags.request_timeout.is_zero() { Duration::from_hours(24) } else { flags.request_timeout };
        let cluster = Self { client, server, namespace, timeout };
        let request = Request { verb: "get", resource: "version", name: "", namespace: None };
        cluster.ask(&request, cluster.client.apiserver_version()).await?;
        Ok(cluster)
    }

    /// The namespace of the context, to look in where the user names none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Waits for the answer to a single request, as long as the user allows.
    pub(super) async fn ask<T>(
        &self,
        request: &Request<'_>,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        match self.answer(answer).await {
            Some(answer) => answer.map_err(|error| Error::of(request, &self.server, &error)),
            None => Err(self.silent(request)),
        }
    }

    /// The same for who wants to look at the error; none if there was no answer in time.
    pub(super) async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Option<Result<T, kube::Error>> {
        tokio::time::timeout(self.timeout, answer).await.ok()
    }

    /// There was no answer in time.
    pub(super) fn silent(&self, request: &Request<'_>) -> Error {
        Error::new(format!("cannot {request}: no answer from {} within {} s", self.server, self.timeout.as_secs()))
            .hint("--request-timeout allows more")
    }
}

async fn config(flags: &Connection) -> Result<Config, Error> {
    let found = kubeconfig(flags)?;
    let from_flags = flags.server.is_some();
    let Some(mut kubeconfig) = found.or_else(|| from_flags.then(Kubeconfig::default)) else {
        return Config::incluster().map(|config| with_flags(config, flags, false)).map_err(|_| {
            Error::new("no kubeconfig: $KUBECONFIG, ~/.kube/config and --kubeconfig name no file, and this is no pod")
                .hint("--kubeconfig FILE, or export KUBECONFIG=FILE")
        });
    };
    let has_proxy = override_cluster_and_user(&mut kubeconfig, flags)?;
    let options =
        KubeConfigOptions { context: flags.context.clone(), cluster: flags.cluster.clone(), user: flags.user.clone() };
    let contexts: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| match error {
        KubeconfigError::LoadContext(name) => Error::new(format!("the kubeconfig has no context {name:?}"))
            .hint(format!("it has: {}", if contexts.is_empty() { "none".into() } else { contexts.join(", ") })),
        KubeconfigError::LoadClusterOfContext(name) => {
            Error::new(format!("the kubeconfig has no cluster {name:?}")).hint("kubectl config get-clusters")
        }
        KubeconfigError::CurrentContextNotSet => Error::new("the kubeconfig has no current context")
            .hint("--context NAME, or kubectl config use-context NAME"),
        other => Error::new(format!("cannot use the kubeconfig: {other}")),
    })?;
    Ok(with_flags(config, flags, has_proxy))
}

/// The kubeconfig that the flag, the variable or the custom names, merged; none if there is none.
fn kubeconfig(flags: &Connection) -> Result<Option<Kubeconfig>, Error> {
    let unreadable = |error: KubeconfigError| {
        Error::new(match error {
            KubeconfigError::ReadConfig(cause, path) => {
                format!("cannot read the kubeconfig {}: {cause}", path.display())
            }
            other => format!("cannot use the kubeconfig: {other}"),
        })
    };
    if let Some(path) = &flags.kubeconfig {
        return Kubeconfig::read_from(path).map(Some).map_err(unreadable);
    }
    let variable = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    let paths: Vec<PathBuf> = match &variable {
        Some(value) => std::env::split_paths(value).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    };
    let mut merged = None;
    // As kubectl does: files that are not there are no error, files that cannot be read are.
    for path in paths.iter().filter(|path| path.exists()) {
        let next = Kubeconfig::read_from(path).map_err(unreadable)?;
        merged = Some(match merged {
            None => next,
            Some(before) => Kubeconfig::merge(before, next).map_err(unreadable)?,
        });
    }
    Ok(merged)
}

/// Puts what the flags say of cluster and user into the kubeconfig, so that files are read and checked as those it names.
/// Returns whether the cluster has a proxy of its own.
fn override_cluster_and_user(kubeconfig: &mut Kubeconfig, flags: &Connection) -> Result<bool, Error> {
    if kubeconfig.contexts.is_empty() && flags.server.is_some() {
        let bare = "{contexts: [{name: flags, context: {cluster: flags, user: flags}}], current-context: flags}";
        let bare = Kubeconfig::from_yaml(bare).map_err(|error| Error::new(error.to_string()))?;
        kubeconfig.contexts = bare.contexts;
        kubeconfig.current_context = bare.current_context;
        kubeconfig.clusters.push(NamedCluster { name: "flags".into(), ..NamedCluster::default() });
        kubeconfig.auth_infos.push(NamedAuthInfo { name: "flags".into(), ..NamedAuthInfo::default() });
    }
    let name = flags.context.as_ref().or(kubeconfig.current_context.as_ref());
    let context = kubeconfig.contexts.iter().find(|context| Some(&context.name) == name);
    let Some(context) = context.and_then(|context| context.context.clone()) else { return Ok(false) };
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .map(|path| path.to_string_lossy().into_owned())
            .map_err(|cause| Error::new(format!("cannot find {}: {cause}", path.display())))
    };

    let mut has_proxy = false;
    let cluster = flags.cluster.as_ref().unwrap_or(&context.cluster);
    if let Some(cluster) = kubeconfig.clusters.iter_mut().find(|known| known.name == *cluster) {
        let cluster = cluster.cluster.get_or_insert_default();
        has_proxy = cluster.proxy_url.as_ref().is_some_and(|url| !url.is_empty());
        if let Some(server) = &flags.server {
            let has_scheme = server.contains("://");
            cluster.server = Some(if has_scheme { server.clone() } else { format!("https://{server}") });
        }
        if let Some(path) = &flags.certificate_authority {
            cluster.certificate_authority = Some(absolute(path)?);
            cluster.certificate_authority_data = None;
        }
        if flags.tls_server_name.is_some() {
            cluster.tls_server_name.clone_from(&flags.tls_server_name);
        }
        if flags.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
        }
    }

    let Some(user) = flags.user.as_ref().or(context.user.as_ref()) else { return Ok(has_proxy) };
    let known = kubeconfig.auth_infos.iter_mut().find(|known| known.name == *user);
    let Some(known) = known else {
        if flags.user.is_some() {
            return Err(Error::new(format!("the kubeconfig has no user {user:?}")).hint("kubectl config get-users"));
        }
        return Ok(has_proxy);
    };
    let user = known.auth_info.get_or_insert_default();
    if let Some(path) = &flags.client_certificate {
        user.client_certificate = Some(absolute(path)?);
        user.client_certificate_data = None;
    }
    if let Some(path) = &flags.client_key {
        user.client_key = Some(absolute(path)?);
        user.client_key_data = None;
    }
    if let Some(token) = &flags.token {
        // A token stands for all other credentials, as in kubectl.
        *user = AuthInfo { token: Some(token.clone().into()), ..impersonation(user) };
    }
    Ok(has_proxy)
}

/// Whom the user acts as, without its credentials.
fn impersonation(user: &AuthInfo) -> AuthInfo {
    AuthInfo {
        impersonate: user.impersonate.clone(),
        impersonate_uid: user.impersonate_uid.clone(),
        impersonate_groups: user.impersonate_groups.clone(),
        impersonate_user_extra: user.impersonate_user_extra.clone(),
        ..AuthInfo::default()
    }
}

/// What applies inside a cluster too.
fn with_flags(mut config: Config, flags: &Connection, has_proxy: bool) -> Config {
    if flags.impersonate.is_some() {
        config.auth_info.impersonate.clone_from(&flags.impersonate);
    }
    if flags.impersonate_uid.is_some() {
        config.auth_info.impersonate_uid.clone_from(&flags.impersonate_uid);
    }
    if !flags.impersonate_groups.is_empty() {
        config.auth_info.impersonate_groups = Some(flags.impersonate_groups.clone());
    }
    config.connect_timeout = Some(Duration::from_secs(10));
    // The library asks whether the proxy itself is to be reached without a proxy; meant is the API server.
    let exceptions = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| std::env::var(name).ok());
    let is_direct = config.cluster_url.host().is_some_and(|host| is_direct(host, &exceptions.unwrap_or_default()));
    if is_direct && !has_proxy {
        config.proxy_url = None;
    }
    config
}

/// True if `host` is reached without a proxy: this machine, or one that `NO_PROXY` lists by name, domain, address or
/// network.
fn is_direct(host: &str, exceptions: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    exceptions.split(',').map(|exception| exception.trim().to_ascii_lowercase()).any(|exception| {
        match (exception.as_str(), address) {
            ("", _) => false,
            ("*", _) => true,
            (exception, Some(address)) => match exception.split_once('/') {
                Some((network, bits)) => is_within(address, network, bits),
                None => exception.parse() == Ok(address),
            },
            (exception, None) => {
                let domain = exception.trim_start_matches("*.").trim_start_matches('.');
                host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
            }
        }
    })
}

fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse(), bits.parse::<u32>()) else { return false };
    let prefix = |value: u128, width: u32| value.checked_shr(width.saturating_sub(bits)).unwrap_or(0);
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => prefix(a.to_bits().into(), 32) == prefix(b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => prefix(a.to_bits(), 128) == prefix(b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_about_the_api_server() {
        let exceptions = "10.0.0.0/8, .svc,example.com,fd00::/8,192.0.2.7";
        for direct in
            ["127.0.0.1", "localhost", "10.9.8.7", "api.default.svc", "example.com", "k8s.example.com", "[fd00::1]"]
        {
            assert!(is_direct(direct, exceptions), "{direct}");
        }
        for proxied in ["11.0.0.1", "badexample.com", "svc.example.org", "[fe80::1]", "192.0.2.70"] {
            assert!(!is_direct(proxied, exceptions), "{proxied}");
        }
        assert!(is_direct("anything", "*") && !is_direct("anything", ""));
    }

    fn written(text: &str) -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        (folder, Connection { kubeconfig: Some(path), ..Connection::default() })
    }

    const KUBECONFIG: &str = "
clusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443', certificate-authority-data: '***'}}]
users: [{name: u, user: {username: a, password: b}}]
contexts: [{name: one, context: {cluster: c, user: u, namespace: shop}}, {name: bad, context: {cluster: none, user: u}}]
current-context: one
";

    #[tokio::test]
    async fn flags_win_over_the_kubeconfig() {
        let (_folder, flags) = written(KUBECONFIG);
        let flags = Connection {
            server: Some("other:1234".into()),
            token: Some("secret".into()),
            impersonate: Some("eve".into()),
            insecure_skip_tls_verify: true,
            ..flags
        };
        // The certificate of the file is none.
        let error = config(&flags).await.unwrap_err();
        assert!(error.message.starts_with("cannot use the kubeconfig: "), "{error}");
        let (_folder, file) = written(&KUBECONFIG.replace(", certificate-authority-data: '***'", ""));
        let config = config(&Connection { kubeconfig: file.kubeconfig, ..flags }).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://other:1234/");
        assert_eq!(config.default_namespace, "shop");
        assert!(config.accept_invalid_certs && config.auth_info.token.is_some());
        assert_eq!((config.auth_info.username, config.auth_info.impersonate.as_deref()), (None, Some("eve")));
    }

    #[tokio::test]
    async fn mistakes_are_named_with_what_there_is() {
        let (_folder, flags) = written(KUBECONFIG);
        let error = config(&Connection { context: Some("two".into()), ..flags.clone() }).await.unwrap_err();
        assert_eq!(error.message, "the kubeconfig has no context \"two\"");
        assert_eq!(error.hint.as_deref(), Some("it has: one, bad"));
        let error = config(&Connection { context: Some("bad".into()), ..flags.clone() }).await.unwrap_err();
        assert_eq!(error.message, "the kubeconfig has no cluster \"none\"");
        let error = config(&Connection { user: Some("nobody".into()), ..flags }).await.unwrap_err();
        assert_eq!(error.message, "the kubeconfig has no user \"nobody\"");
        let missing = Connection { kubeconfig: Some("/nowhere/config".into()), ..Connection::default() };
        let error = config(&missing).await.unwrap_err();
        assert!(error.message.starts_with("cannot read the kubeconfig /nowhere/config: "), "{error}");
    }
}
