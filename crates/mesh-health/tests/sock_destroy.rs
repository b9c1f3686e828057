//! The kernel closes exactly the connections that it is asked to close.
#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesh_health::shell::sock_destroy::{Destroyed, Diag};

/// Destroying needs rights that not everyone who runs the tests has.
fn may_not() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root may destroy sockets");
    }
    !is_root
}

fn pairs(listener: &TcpListener, count: usize) -> Vec<(TcpStream, TcpStream)> {
    let pair = |_| {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (near, listener.accept().unwrap().0)
    };
    (0..count).map(pair).collect()
}

/// Whether bytes go through in both directions.
fn works((near, far): &mut (TcpStream, TcpStream)) -> bool {
    let mut byte = [0];
    near.write_all(b"x").is_ok()
        && far.read_exact(&mut byte).is_ok()
        && far.write_all(b"y").is_ok()
        && near.read_exact(&mut byte).is_ok()
}

/// Another process with a connection to `address`, which it keeps.
struct Other(Child);

impl Other {
    fn connect(address: SocketAddr) -> Self {
        let script = format!(
            "exec 3<>/dev/tcp/{}/{}; exec cat <&3",
            address.ip(),
            address.port()
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script]).stdin(Stdio::null());
        Self(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn exactly_those_that_are_named(first: &str) {
    let [asked, spared] = [(); 2].map(|()| TcpListener::bind(first).unwrap());
    let address = asked.local_addr().unwrap();
    let mut ours = pairs(&asked, 300);
    let mut elsewhere = pairs(&spared, 10);
    let mut diag = Diag::open().unwrap();
    let listed = diag.connections_to(address).unwrap();
    assert_eq!(
        listed.len(),
        300,
        "neither the other listener's nor the accepted ends"
    );
    assert!(listed.iter().all(|socket| socket.remote == address));

    // Every second of them, by their local ends.
    let named: Vec<_> = ours.iter().map(|(near, _)| near.local_addr().unwrap()).collect();
    let named: Vec<_> = named.into_iter().step_by(2).collect();
    let chosen: Vec<_> = listed
        .iter()
        .filter(|socket| named.contains(&socket.local))
        .collect();
    assert_eq!(chosen.len(), 150);
    let done = diag.destroy(chosen.iter().copied()).unwrap();
    assert_eq!(
        done,
        Destroyed {
            destroyed: 150,
            gone: 0
        }
    );
    for (number, pair) in ours.iter_mut().enumerate() {
        if number % 2 == 0 {
            let error = pair.0.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
            let error = pair.1.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the other side is told");
        } else {
            assert!(works(pair), "connection {number} was not named");
        }
    }
    assert!(elsewhere.iter_mut().all(works));

    // Named once more, they are gone, and nobody else is taken for them.
    let again = diag.destroy(chosen.iter().copied()).unwrap();
    assert_eq!(
        again,
        Destroyed {
            destroyed: 0,
            gone: 150
        }
    );
    assert_eq!(diag.connections_to(address).unwrap().len(), 150);
    assert_eq!(diag.destroy([]).unwrap(), Destroyed::default());
}

#[test]
fn exactly_those_that_are_named_are_destroyed() {
    if !may_not() {
        exactly_those_that_are_named("127.0.0.1:0");
    }
}

#[test]
fn and_with_ipv6_too() {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: there is no IPv6 here");
    } else if !may_not() {
        exactly_those_that_are_named("[::1]:0");
    }
}

#[test]
fn of_two_processes_the_one_that_is_asked_for_loses_its_connection() {
    if may_not() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut others = [(); 2].map(|()| Other::connect(address));
    let _accepted = [(); 2].map(|()| listener.accept().unwrap());
    let mut ours = pairs(&listener, 1);
    let mut diag = Diag::open().unwrap();
    let listed = diag.connections_to(address).unwrap();
    assert_eq!(listed.len(), 3);
    let pid = others[0].0.id();
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links: Vec<_> = links
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .collect();
    let owned = |inode: u32| {
        links
            .iter()
            .any(|link| link.as_os_str() == format!("socket:[{inode}]").as_str())
    };
    let chosen: Vec<_> = listed.iter().filter(|socket| owned(socket.inode)).collect();
    assert_eq!(chosen.len(), 1, "the inode tells the owner");
    diag.destroy(chosen).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !others[0].has_ended() {
        assert!(Instant::now() < deadline, "its connection is not closed");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!others[1].has_ended(), "that of the other process is");
    assert_eq!(diag.connections_to(address).unwrap().len(), 2);
    assert!(works(&mut ours[0]));
}
