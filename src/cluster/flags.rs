//! The flags that say which cluster, which pods and how their packets are captured.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::DEFAULT_IMAGE;
use super::client::Cluster;
use crate::capture::filter::{Filter, Invalid};

/// How to reach the cluster: the flags that every kubectl command has.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Path of the kubeconfig file to use
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The kubeconfig context to use
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// The kubeconfig cluster to use
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,

    /// The kubeconfig user to use
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// User to impersonate
    #[arg(long = "as", value_name = "USER")]
    pub impersonate: Option<String>,

    /// Group to impersonate (repeatable)
    #[arg(long = "as-group", value_name = "GROUP")]
    pub impersonate_groups: Vec<String>,

    /// UID to impersonate
    #[arg(long = "as-uid", value_name = "UID")]
    pub impersonate_uid: Option<String>,

    /// Bearer token for the API server
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Address and port of the API server
    #[arg(short, long, value_name = "URL")]
    pub server: Option<String>,

    /// Name to expect in the API server's certificate
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,

    /// Do not check the API server's certificate
    #[arg(long)]
    pub insecure_skip_tls_verify: bool,

    /// Certificate authority of the API server
    #[arg(long, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,

    /// Client certificate for TLS
    #[arg(long, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,

    /// Client key for TLS
    #[arg(long, value_name = "FILE")]
    pub client_key: Option<PathBuf>,

    /// How long to wait for a single answer, as 30s or 1m; 0 is for ever. Streams are never cut
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub request_timeout: Duration,

    /// Accepted as kubectl's; nothing is cached
    #[arg(long, value_name = "DIR", hide = true)]
    pub cache_dir: Option<PathBuf>,
}

/// Which pods.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Pods")]
pub struct Select {
    /// A regular expression for pod names, unanchored; or KIND/NAME: deploy/x sts/x ds/x rs/x job/x cronjob/x svc/x pod/x
    #[arg(value_name = "PODS")]
    pub pods: Option<String>,

    /// Namespaces to look in (repeatable, or a list with commas) [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE", value_delimiter = ',')]
    pub namespace: Vec<String>,

    /// Look in all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// Label selector, as app=web,tier!=cache
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,

    /// Field selector, as spec.nodeName=node1
    #[arg(long, value_name = "FIELDS")]
    pub field_selector: Option<String>,

    /// Leave out pods whose name matches this regular expression (repeatable)
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<String>,

    /// Take pods in the node's network too; they see all of the node's traffic
    #[arg(long)]
    pub allow_host_network: bool,

    /// The most pods at a time
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max_targets: usize,
}

impl Select {
    /// True if the command line says which pods at all.
    pub fn is_given(&self) -> bool {
        self.pods.is_some() || self.selector.is_some() || self.field_selector.is_some()
    }
}

/// How packets are captured in the pods.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Capture")]
pub struct Capture {
    /// Capture filter in pcap-filter syntax, as 'port 80 or port 53'
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Option<String>,

    /// The most bytes to keep of each packet; 0 keeps all
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub snaplen: u32,

    /// How much an agent keeps of the packets that pass, as 16Mi; in memory less in pods with a small memory limit
    #[arg(long, value_name = "SIZE", default_value = "16Mi", value_parser = buffer)]
    pub buffer: u64,

    /// Where it keeps them
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    pub buffer_on: BufferOn,

    /// With what agents capture
    #[arg(long, value_enum, value_name = "NAME", default_value_t)]
    pub backend: Backend,
    /// Decrypt TLS with keys that agents read from the pods' own processes, by uprobes: OpenSSL (Node and Python as well), BoringSSL, GnuTLS and Go;
    /// of connections that were open before, their plaintext is read.
    /// Agents then have the capabilities SYS_ADMIN and SYS_PTRACE, and share a container's processes
    #[arg(long)]
    pub tls: bool,

    /// The container that --tls and --keylog pod:PATH are about [default: the pod's default container, or its first]
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,

    /// How long an agent stays when nobody reads, as 5m
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub ttl: Duration,

    /// The agent's image
    #[arg(long, env = "SNIFF_IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,

    /// When nodes pull the agent's image
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub image_pull_policy: PullPolicy,

    /// How long an agent may take to start, as 60s
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub start_timeout: Duration,
}

/// Where agents run.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Capture")]
pub struct Place {
    /// From where to capture: in each pod, or from its node, for pods that may not be touched
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    pub via: Via,

    /// Where --via node puts its capture pods, one on each node, for as long as it runs or `start` says [default: the context's]
    #[arg(long, value_name = "NAMESPACE")]
    pub via_namespace: Option<String>,
}

impl Place {
    /// The same options, with the namespace of capture pods.
    #[must_use]
    pub fn with_namespace(&self, options: Options, cluster: &Cluster) -> Options {
        let via_namespace = self.via_namespace.as_deref().unwrap_or_else(|| cluster.namespace());
        Options { via_namespace: via_namespace.to_owned(), ..options }
    }
}

/// From where packets are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// An ephemeral container in each pod
    #[default]
    Pod,
    /// A pod in each node's network, which takes only packets of the selected pods
    Node,
}

/// What of an agent's recording a session reads.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Capture")]
pub struct Reading {
    /// Where an agent already runs, start with the packets of the last so long, as 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<Duration>,

    /// End with the packets of so long ago, as 2m, or 0s for now: read what agents have recorded, and put none into pods
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub until: Option<Duration>,

    /// Have agents compress what they send (LZ4): for slow connections
    #[arg(long)]
    pub compress: bool,
}

/// Where an agent keeps packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BufferOn {
    /// In memory, which counts for the pod
    #[default]
    Memory,
    /// On the node's disk, in the agent's own root, which counts as the pod's ephemeral storage
    Disk,
}

/// With what an agent captures, by the agent's own names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The kernel's packet socket: needs NET_RAW alone
    #[default]
    #[value(name = "af_packet")]
    AfPacket,
    /// libpcap's way to the same socket
    #[value(name = "libpcap")]
    Libpcap,
    /// Clones of packets, where packet sockets are refused: needs NET_ADMIN and BPF
    #[value(name = "af_xdp")]
    AfXdp,
    /// A libpcap made for PF_RING, in an image of your own
    #[value(name = "pf_ring")]
    PfRing,
    /// The best that the node has and the agent may use
    #[value(name = "best")]
    Best,
}

impl Backend {
    /// As the agent calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AfPacket => "af_packet",
            Self::Libpcap => "libpcap",
            Self::AfXdp => "af_xdp",
            Self::PfRing => "pf_ring",
            Self::Best => "best",
        }
    }

    /// The capabilities that it needs.
    pub(super) fn capabilities(self) -> &'static [&'static str] {
        match self {
            Self::AfXdp => &["NET_RAW", "NET_ADMIN", "BPF"],
            _ => &["NET_RAW"],
        }
    }
}

/// Kubernetes' image pull policies, by their own names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// If the node does not have it
    #[default]
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    /// Each time
    #[value(name = "Always")]
    Always,
    /// Never: it has been put there
    #[value(name = "Never")]
    Never,
}

impl PullPolicy {
    /// As in a pod's spec.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

/// What an agent is to capture, and how it gets into its pod.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to capture; all if none.
    pub filter: Option<Filter>,
    /// The most bytes kept of a packet; 0 = all.
    pub snaplen: u32,
    /// How far to go back where an agent already runs.
    pub since: Option<Duration>,
    /// The agent's buffer in bytes, where the pod's memory limit allows it.
    pub buffer: u64,
    /// Where that buffer is.
    pub buffer_on: BufferOn,
    /// Whether agents are to read TLS keys, and of which container if not the default one.
    pub tls: Option<Processes>,
    /// Key logs to read inside of the pods, as absolute paths.
    pub key_logs: Vec<String>,
    /// The container that has them, if not the default one.
    pub container: Option<String>,
    /// True if agents are to compress what they send.
    pub compress: bool,
    /// What it is all for.
    pub mode: Mode,
    /// With what it captures.
    pub backend: Backend,
    /// The agent's image.
    pub image: String,
    /// When nodes pull it.
    pub pull_policy: PullPolicy,
    /// How long it stays when nobody reads.
    pub ttl: Duration,
    /// Where it runs.
    pub via: Via,
    /// The namespace of capture pods.
    pub via_namespace: String,
    /// How long an agent may take to start.
    pub start_timeout: Duration,
}

/// Whose TLS keys are read: of the container of that name, else of the pod's default container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes(pub Option<String>);

impl Processes {
    /// What a user should know before it is done.
    pub const NOTE: &str = "--tls: agents get SYS_ADMIN, to put uprobes into TLS libraries, and SYS_PTRACE, to reach the files of \
         the container whose processes they share; TLS keys and plaintext of these processes alone are read, the processes are not changed";
}

/// What agents are wanted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// To stream what they capture from now on.
    #[default]
    Follow,
    /// To stream what they have recorded until so long ago; none is put into a pod.
    LookBack(Duration),
    /// To record for so long, whether somebody reads or not.
    Arm(Duration),
}

impl Options {
    /// True if what was recorded is all that is wanted.
    pub fn looks_back(&self) -> bool {
        matches!(self.mode, Mode::LookBack(_))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filter: None,
            snaplen: 0,
            since: None,
            buffer: 16 << 20,
            buffer_on: BufferOn::default(),
            tls: None,
            key_logs: Vec::new(),
            container: None,
            compress: false,
            mode: Mode::default(),
            backend: Backend::default(),
            image: DEFAULT_IMAGE.to_owned(),
            pull_policy: PullPolicy::default(),
            ttl: Duration::from_mins(5),
            via: Via::default(),
            via_namespace: String::new(),
            start_timeout: Duration::from_mins(1),
        }
    }
}

impl Capture {
    /// The same, with the filter compiled, to follow what comes.
    ///
    /// # Errors
    /// If the filter is no pcap-filter expression.
    pub fn options(&self) -> Result<Options, Invalid> {
        Ok(Options {
            filter: self.filter.as_deref().map(Filter::compile).transpose()?,
            snaplen: self.snaplen,
            buffer: self.buffer,
            buffer_on: self.buffer_on,
            backend: self.backend,
            tls: self.tls.then(|| Processes(self.container.clone())),
            container: self.container.clone(),
            image: self.image.clone(),
            pull_policy: self.image_pull_policy,
            ttl: self.ttl,
            start_timeout: self.start_timeout,
            ..Options::default()
        })
    }
}

/// The size of a buffer as Kubernetes writes quantities: `16Mi`.
fn buffer(text: &str) -> Result<u64, String> {
    let bytes = super::container::bytes(text).ok_or_else(|| format!("{text:?} is no size such as 16Mi"))?;
    match bytes {
        ..1_048_576 => Err(format!("{text} is too little, 1Mi is the least")),
        4_294_967_296.. => Err(format!("{text} is too much, less than 4Gi is possible")),
        _ => Ok(bytes),
    }
}

/// A time as kubectl takes it: `30s`, `1m30s`, `500ms`, or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 30s, 5m or 1h30m");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = rest.split_at(digits);
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return Err(wrong()),
        };
        total = unit.checked_mul(number).and_then(|more| total.checked_add(more)).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_for_kubectl() {
        let times = ["30s", "1m30s", "500ms", "2h", "45", "0"].map(|text| duration(text).unwrap().as_millis());
        assert_eq!(times, [30_000, 90_000, 500, 7_200_000, 45_000, 0]);
        for wrong in ["", "s", "5d", "1.5s", "-1s", "99999999999h", "5m3"] {
            assert_eq!(duration(wrong), Err(format!("{wrong:?} is no time such as 30s, 5m or 1h30m")));
        }
    }

    #[test]
    fn namespaces_come_as_list_or_one_by_one() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            select: Select,
            #[command(flatten)]
            _connection: Connection,
            #[command(flatten)]
            capture: Capture,
        }
        let cli = <Cli as clap::Parser>::try_parse_from(["x", "web", "-n", "a,b", "-n", "c", "-f", "port 80"]).unwrap();
        assert_eq!(cli.select.namespace, ["a", "b", "c"]);
        let options = cli.capture.options().unwrap();
        assert_eq!((options.buffer, options.snaplen, options.start_timeout.as_secs()), (16 << 20, 0, 60));
        assert_eq!(options.filter.unwrap().text, "port 80");
    }
}
