//! mesh-health as a service: what it tells a real datagram socket in the place of systemd's.

mod common;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::{Mesh, PATIENCE, Process};
use mesh_model::HealthStatus;
use rustix::process::Signal;
use tokio::time::Instant;

/// The service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn start(mesh: &Mesh) -> (Self, String) {
        let path = mesh.config.path.with_file_name("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        (Self(socket), path.to_str().unwrap().to_owned())
    }

    /// The next message, or `None` after `patience`.
    fn next(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// The first message with `line`, and those before it.
    fn until(&self, line: &str) -> (String, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        let mut before = Vec::new();
        while Instant::now() < deadline {
            if let Some(message) = self.next(Duration::from_secs(1)) {
                if message.lines().any(|other| other.starts_with(line)) {
                    return (message, before);
                }
                before.push(message);
            }
        }
        panic!("no {line} among {before:?}");
    }

    /// Everything that has arrived.
    fn drain(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next(Duration::from_millis(1))).collect()
    }
}

fn watched(mesh: &Mesh, socket: &str, period: Duration) -> Process {
    let usec = period.as_micros().to_string();
    mesh.spawn_daemon(&[("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", &usec)])
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_only_when_there_is_a_verdict_on_every_broker() {
    let mut mesh = Mesh::start(2).await;
    // It accepts connections and says nothing: neither alive nor, for a second, dead.
    mesh.broker(2).signal(Signal::STOP);
    let (manager, socket) = Manager::start(&mesh);
    let started = Instant::now();
    let mut daemon = watched(&mesh, &socket, Duration::from_secs(10));
    let (ready, before) = manager.until("READY=1");
    assert!(
        started.elapsed() >= mesh.config.health.dead_after,
        "{:?}",
        started.elapsed()
    );
    assert!(
        before.iter().any(|m| m.contains("STATUS=no verdict yet on ")),
        "{before:?}"
    );
    assert!(
        before.iter().any(|m| m.contains("EXTEND_TIMEOUT_USEC=")),
        "{before:?}"
    );
    assert!(
        ready.contains("STATUS=ok: b1 serves, 1 of 2 brokers healthy, generation 0"),
        "{ready}"
    );
    let status = mesh.status().await.unwrap();
    assert!(status.brokers.iter().all(|b| b.health != HealthStatus::Unknown));
    mesh.broker(2).signal(Signal::CONT);
    manager.until("STATUS=ok: b1 serves, 2 of 2 brokers healthy, generation 0");

    daemon.signal(Signal::TERM);
    let (_, before) = manager.until("STOPPING=1");
    assert!(
        before.iter().all(|message| !message.contains("READY=1")),
        "{before:?}"
    );
    daemon.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_by_a_loop_that_turns_and_starved_by_one_that_does_not() {
    let mesh = Mesh::start(2).await;
    let (manager, socket) = Manager::start(&mesh);
    let period = Duration::from_secs(1);
    let daemon = watched(&mesh, &socket, period);
    let (ready, _) = manager.until("READY=1");
    assert!(
        ready.contains("WATCHDOG=1"),
        "it is fed from the beginning: {ready}"
    );
    let mut fed = Instant::now();
    for _ in 0..5 {
        manager.until("WATCHDOG=1");
        println!("fed after {:?}", fed.elapsed());
        assert!(
            fed.elapsed() < period,
            "systemd would have killed it: {:?}",
            fed.elapsed()
        );
        fed = Instant::now();
    }
    daemon.signal(Signal::STOP);
    manager.drain();
    assert_eq!(manager.next(period * 2), None);
    daemon.signal(Signal::CONT);
    manager.until("WATCHDOG=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_is_gone_or_was_never_there_changes_nothing() {
    let mesh = Mesh::start(2).await;
    let (manager, socket) = Manager::start(&mesh);
    drop(manager);
    let mut daemon = watched(&mesh, &socket, Duration::from_secs(1));
    mesh.wait("all well", |s| s.state == mesh_model::MeshState::Ok)
        .await;
    daemon.end();
    let log = std::fs::read_to_string(mesh.daemon_log()).unwrap();
    let complaints = log.matches("does not take what it is told").count();
    assert_eq!(complaints, 1, "it is said once");

    let _daemon = mesh.spawn_daemon(&[("NOTIFY_SOCKET", "vsock:2:1")]);
    mesh.wait("all well", |s| s.state == mesh_model::MeshState::Ok)
        .await;
}
