//! What the tests of the lab share: what still runs, and what still listens.
#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod clients;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mesh_lab::{Lab, LabOptions, Ports};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Three brokers and Nginx.
pub(crate) fn options() -> LabOptions {
    LabOptions {
        brokers: 3,
        health: false,
        progress: Some(Arc::new(|line| eprintln!("lab: {line}"))),
        ..LabOptions::default()
    }
}

/// The process groups of a lab.
pub(crate) fn groups(lab: &Lab) -> BTreeSet<u32> {
    let brokers = lab.config().topology.ids().map(ToString::to_string);
    brokers
        .chain(["nginx".to_owned()])
        .map(|name| lab.pid(&name).expect("it runs"))
        .collect()
}

/// Processes, but for zombies, that belong to one of `groups`.
pub(crate) fn left_of(groups: &BTreeSet<u32>) -> Vec<String> {
    let output = Command::new("ps")
        .args(["-axo", "pgid=,pid=,stat=,comm="])
        .output()
        .unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    assert!(listing.lines().count() > 1, "ps lists processes");
    let of_ours = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[0].parse().is_ok_and(|group| groups.contains(&group)) && !words[2].starts_with('Z')
    };
    listing.lines().filter(of_ours).map(str::to_owned).collect()
}

/// Ports of a lab on which somebody still listens.
pub(crate) fn still_listening(ports: &Ports) -> Vec<u16> {
    let all = [ports.balancer, ports.readback, ports.health]
        .into_iter()
        .chain(ports.brokers.iter().copied())
        .chain(ports.extra.iter().copied());
    all.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_err())
        .collect()
}

/// Whether anything is left, as the condition of a wait.
pub(crate) fn nothing_left(groups: &BTreeSet<u32>, ports: &Ports) -> Result<(), String> {
    let (processes, ports) = (left_of(groups), still_listening(ports));
    if processes.is_empty() && ports.is_empty() {
        Ok(())
    } else {
        Err(format!("{processes:?}, ports {ports:?}"))
    }
}
