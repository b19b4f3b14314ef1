//! Whose the sockets are that the probes have no keys of, with programs of a container and of another one of its pod.

use std::process::Stdio;

use serde_json::{Value, json};

use super::support::{Agent, Block, Killed, Net, until};
use super::tls::{Processes, ready};

/// Listens, and says nothing to anybody.
const SILENT: &str = "import socket, sys, time; it = socket.create_server((sys.argv[1], int(sys.argv[2]))); print('ready', flush=True); time.sleep(600)";

fn told<'a>(tls: &'a Value, field: &str) -> Vec<&'a str> {
    tls[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn sockets_are_told_of_with_their_program_or_as_another_containers() {
    let net = Net::new();
    let (pod, others) = (Processes::new(&net), Processes::new(&net));
    let silent = |of: &Processes<'_>, address: &str, port: &str| {
        let mut command = of.command("python3");
        command.args(["-c", SILENT, address, port]);
        ready(command)
    };
    // One of a program without TLS, of the container's own, and two of another container's.
    let _own = silent(&pod, "0.0.0.0", "9001");
    let _others = [silent(&others, "0.0.0.0", "9002"), silent(&others, "10.9.0.2", "9003")];
    let mut agent = pod.agent(1);
    let stream = agent.stream(&[]);
    // Java waits for an answer.
    let mut java = pod.command("keytool");
    java.args(["-printcert", "-sslserver", "10.9.0.2:9003"]).stdout(Stdio::null());
    let _java = Killed(java.spawn().expect("nsenter runs"));
    let tls = |agent: &Agent<'_>| agent.told()["tls"].clone();
    until("Java's connection", || tls(&agent)["sockets"].as_object().is_some_and(|programs| !programs.is_empty()));
    until("the other container's", || told(&tls(&agent), "outside").len() == 2);
    let now = tls(&agent);
    assert_eq!(told(&now, "outside"), ["10.9.0.2:9002", "10.9.0.2:9003"]);
    let javas = told(&now["sockets"], "keytool (Java's own)");
    let port = javas.first().and_then(|socket| socket.strip_prefix("10.9.0.2:")?.parse::<u16>().ok());
    assert!(javas.len() == 1 && port.is_some_and(|port| port > 9003), "{now}");
    agent.stop();
    let blocks = stream.end();
    let last = blocks.iter().rev().find_map(|block| if let Block::Probes(told) = block { Some(told) } else { None });
    let last = last.expect("the probes' account");
    assert_eq!((&last["sockets"], &last["outside"]), (&now["sockets"], &now["outside"]));
    assert_eq!(last["unknown"], json!(["keytool (Java's own)"]));
}
