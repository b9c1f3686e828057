//! What faults do to packets, measured. Needs root on Linux and says so where it is skipped.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::*;
use crate::ports::PortBlock;

/// For packets that are on their way.
const SOON: Duration = Duration::from_millis(100);

/// For what must come.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn one_way_is_dropped_and_the_other_passes() {
    let mut cuts = Cuts::default();
    cuts.ways.insert((0, 2));
    let rules = filter(&cuts);
    assert!(rules.contains("iifname node0 oifname node2 drop\n"), "{rules}");
    assert!(!rules.contains("iifname node2"), "{rules}");
    cuts.losses.insert(1, 20);
    assert!(filter(&cuts).contains("iifname node1 numgen random mod 100 < 20 drop\n"));
}

/// Three nodes, and the ports that are theirs while the block lives.
fn network() -> Option<(Namespaces, PortBlock)> {
    let block = PortBlock::reserve().unwrap();
    match Namespaces::new(&Ports::new(block.base(), 3).unwrap()) {
        Ok(network) => Some((network, block)),
        Err(error @ LabError::Net(_)) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Of 1,000 packets from one node to another so many arrive.
fn arrive(network: &Namespaces, from: usize, to: usize) -> usize {
    let socket = |node| {
        let bind = move || UdpSocket::bind((node_address(node), 0)).unwrap();
        network.at(Place::Node(node), bind).unwrap()
    };
    let (sender, receiver) = (socket(from), socket(to));
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let target = receiver.local_addr().unwrap();
    let mut arrived = 0;
    for _ in 0..20 {
        // Fewer at a time than a socket's buffer takes.
        for _ in 0..50 {
            sender.send_to(b"packet", target).unwrap();
        }
        loop {
            match receiver.recv(&mut [0; 16]) {
                Ok(_) => arrived += 1,
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    arrived
}

/// How long 64 KiB take from one node to another.
fn transfer(network: &Namespaces, from: usize, to: usize) -> Duration {
    let listen = move || TcpListener::bind((node_address(to), 0)).unwrap();
    let listener = network.at(Place::Node(to), listen).unwrap();
    let target = listener.local_addr().unwrap();
    let dial = move || TcpStream::connect_timeout(&target, PATIENCE).unwrap();
    let begin = Instant::now();
    let mut sender = network.at(Place::Node(from), dial).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let writer = std::thread::spawn(move || sender.write_all(&[0; 64 << 10]));
    let mut received = Vec::new();
    receiver.read_to_end(&mut received).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(received.len(), 64 << 10);
    begin.elapsed()
}

#[tokio::test]
async fn packets_are_lost_on_the_way_to_one_node_and_from_it() {
    let Some((network, _block)) = network() else {
        return;
    };
    assert_eq!(arrive(&network, 0, 1), 1000, "none is lost before");
    network.loss(1, 20).unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        let arrived = arrive(&network, from, to);
        // 800, give or take eight times what chance does.
        assert!((700..=900).contains(&arrived), "{arrived} of 1000 arrive");
    }
    assert_eq!(arrive(&network, 0, 2), 1000, "others are not concerned");
    network.heal(1, None).unwrap();
    assert_eq!(arrive(&network, 0, 1), 1000, "none is lost afterwards");
}

#[tokio::test]
async fn a_slow_cable_takes_its_time_each_way() {
    let Some((network, _block)) = network() else {
        return;
    };
    transfer(&network, 0, 1);
    network.slow(1, 128).unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        let slow = transfer(&network, from, to);
        // 128,000 bits a second take 3 s for what is above the 16 KiB that pass at once.
        assert!(slow > Duration::from_millis(2500), "{slow:?}");
    }
    // A slow cable is never quick, and a busy machine not always slow.
    let is_quick = |to| (0..20).any(|_| transfer(&network, 0, to) < Duration::from_millis(2500));
    assert!(is_quick(2), "others are not concerned");
    network.heal(1, None).unwrap();
    assert!(is_quick(1), "it is as it was before");
}
