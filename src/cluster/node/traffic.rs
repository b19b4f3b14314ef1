//! Which of a node's packets are a pod's: by address, and in the node's own network by port.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::super::container::OWN_STREAM;
use super::super::error::Error;
use super::super::select::{is_host_network, ports};
use crate::capture::filter::Filter;

/// The most instructions of a program that agents take; it is [`crate::capture`]'s limit, by half the kernel's.
const MOST_INSTRUCTIONS: usize = 2044;

/// A pod's share of its node's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Share {
    /// In pcap-filter syntax.
    expression: String,
    /// It has addresses of its own, so that nothing of the node's can be meant.
    is_own: bool,
    /// What the user should know of it.
    pub(in crate::cluster) note: Option<String>,
}

impl Share {
    /// What is known of the pod's packets; none if it has no address.
    pub(in crate::cluster) fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref()?;
        let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
        let addresses: BTreeSet<IpAddr> = listed.filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            return None;
        }
        let hosts = addresses.iter().map(|ip| format!("{} host {ip}", if ip.is_ipv4() { "ip" } else { "ip6" }));
        let hosts = any(hosts);
        if !is_host_network(pod) {
            return Some(Self { expression: hosts, is_own: true, note: None });
        }
        let ports = ports(pod);
        if ports.is_empty() {
            let note = "it is in the node's network and declares no ports: all of the node's traffic is captured";
            return Some(Self { expression: hosts, is_own: false, note: Some(note.to_owned()) });
        }
        let words: Vec<String> = ports.iter().map(|(protocol, port)| format!("{protocol} port {port}")).collect();
        let said: Vec<String> = ports.iter().map(|(protocol, port)| format!("{port}/{protocol}")).collect();
        let mut note =
            format!("it is in the node's network: only its declared ports are captured ({})", said.join(", "));
        if ports.iter().any(|port| [("tcp", 6443), ("tcp", 10250)].contains(port)) {
            note.push_str(", without 6443 and 10250, over which the packets themselves come to you");
        }
        Some(Self { expression: format!("{hosts} and {}", any(words.into_iter())), is_own: false, note: Some(note) })
    }
}

impl Share {
    /// True if a filter that [`filter`] has made takes it.
    pub(super) fn is_in(&self, text: &str) -> bool {
        // An address must not be the beginning of a longer one.
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_hexdigit() || matches!(next, '.' | ':'));
        text.match_indices(&self.expression).any(|(at, found)| text.get(at + found.len()..).is_some_and(ends))
    }
}

/// The filter for those pods, of whose packets the user wants what `wanted` accepts.
///
/// # Errors
/// If it is too long for an agent.
pub(in crate::cluster) fn filter<'a>(
    shares: impl Iterator<Item = &'a Share>,
    wanted: Option<&Filter>,
) -> Result<Filter, Error> {
    let (own, host): (Vec<&Share>, Vec<&Share>) = shares.partition(|share| share.is_own);
    let unique = |shares: Vec<&Share>| -> BTreeSet<String> {
        shares.into_iter().map(|share| share.expression.clone()).collect()
    };
    let mut parts: Vec<String> = unique(own).into_iter().collect();
    let host = unique(host);
    if !host.is_empty() {
        parts.push(format!("({} and {OWN_STREAM})", any(host.into_iter())));
    }
    if parts.is_empty() {
        return Ok(Filter { text: "no pod".to_owned(), program: "1,6 0 0 0".to_owned() });
    }
    let mut text = any(parts.into_iter());
    if let Some(wanted) = wanted {
        text = format!("({}) and {text}", wanted.text);
    }
    let filter = Filter::compile(&text).map_err(|invalid| Error::new(invalid.to_string()))?;
    let length = filter.program.split(',').count() - 1;
    if length > MOST_INSTRUCTIONS {
        return Err(Error::new(format!(
            "the capture filter of the node has {length} instructions, {MOST_INSTRUCTIONS} are the most"
        ))
        .hint("fewer pods, as by --field-selector spec.nodeName=NODE and a narrower choice"));
    }
    Ok(filter)
}

/// `(a or b)`, or the only one.
fn any(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    match parts.as_slice() {
        [one] => one.clone(),
        all => format!("({})", all.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(host: bool, addresses: &[&str], ports: &Value) -> Pod {
        let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let pod = json!({"metadata": {"name": "web-1", "namespace": "shop"},
            "spec": {"hostNetwork": host, "containers": [{"name": "c", "ports": ports}]},
            "status": {"podIPs": addresses}});
        serde_json::from_value(pod).unwrap()
    }

    fn text(pods: &[Pod], wanted: Option<&str>) -> String {
        let shares: Vec<Share> = pods.iter().filter_map(Share::of).collect();
        let wanted = wanted.map(|text| Filter::compile(text).unwrap());
        filter(shares.iter(), wanted.as_ref()).unwrap().text
    }

    #[test]
    fn pods_are_told_by_their_addresses() {
        let none = json!([]);
        let (one, two) = (pod(false, &["10.0.0.1", "fd00::1"], &none), pod(false, &["10.0.0.2"], &none));
        assert_eq!(text(std::slice::from_ref(&two), None), "ip host 10.0.0.2");
        assert_eq!(
            text(&[one.clone(), two.clone()], None),
            "((ip host 10.0.0.1 or ip6 host fd00::1) or ip host 10.0.0.2)"
        );
        assert_eq!(text(&[two], Some("port 80 or port 53")), "(port 80 or port 53) and ip host 10.0.0.2");
        assert_eq!(text(&[], Some("port 80")), "no pod");
        let (one, another) = (Share::of(&one).unwrap(), Share::of(&pod(false, &["10.0.0.10"], &none)).unwrap());
        let both = filter([&one, &another].into_iter(), None).unwrap().text;
        assert!(one.is_in(&both) && another.is_in(&both) && !one.is_in("ip host 10.0.0.1"));
        assert!(!Share::of(&pod(false, &["10.0.0.1"], &none)).unwrap().is_in(&another.expression));
        assert_eq!(Share::of(&pod(false, &["x or tcp"], &none)), None);
    }

    #[test]
    fn in_the_nodes_network_only_declared_ports_count_and_never_the_own_stream() {
        let ports = json!([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 6443}]);
        let host = pod(true, &["192.168.0.1"], &ports);
        let expected = format!("(ip host 192.168.0.1 and (tcp port 6443 or udp port 53) and {OWN_STREAM})");
        assert_eq!(text(std::slice::from_ref(&host), None), expected);
        let note = Share::of(&host).unwrap().note.unwrap();
        assert!(note.contains("(6443/tcp, 53/udp), without 6443"), "{note}");
        let all = pod(true, &["192.168.0.1"], &json!([]));
        assert!(Share::of(&all).unwrap().note.unwrap().contains("all of the node's traffic"));
    }

    #[test]
    fn a_hundred_pods_of_both_families_fit() {
        let pods: Vec<Pod> =
            (0..100).map(|n| pod(false, &[&format!("10.0.0.{n}"), &format!("fd00::1:{n:x}")], &json!([]))).collect();
        let shares: Vec<Share> = pods.iter().filter_map(Share::of).collect();
        let wanted = Filter::compile("tcp port 80").unwrap();
        assert!(filter(shares.iter(), Some(&wanted)).is_ok());
    }
}
