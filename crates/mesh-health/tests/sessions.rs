//! Which connections are Nginx's, and whether they may be closed at all.
//!
//! Nginx has no source address of its own here, so only their owner tells. Whole meshes, and what clients see of
//! it, are tested with mesh-lab.
#![cfg(target_os = "linux")]

mod common;

use std::time::Duration;

use common::{Mesh, Process, wait_for};
use mesh_health::shell::sessions::Sessions;
use mesh_health::shell::sock_destroy::Diag;
use mesh_runtime::mqtt::{Connection, Identity, MqttError};
use rustix::process::{Pid, Signal, kill_process};

async fn clients(address: std::net::SocketAddr, name: &str, count: usize) -> Vec<Connection> {
    let mut clients = Vec::new();
    for number in 0..count {
        let identity = Identity {
            client_id: format!("{name}-{number}"),
            login: None,
            keep_alive_s: 60,
        };
        clients.push(Connection::open(address, &identity).await.unwrap().0);
    }
    clients
}

async fn ends(client: &mut Connection) -> bool {
    let ended = tokio::time::timeout(common::PATIENCE, client.receive()).await;
    matches!(ended, Ok(Err(MqttError::Closed | MqttError::Io(_))))
}

async fn lives(client: &mut Connection) -> bool {
    use mesh_runtime::mqtt::Packet;
    let ping = Packet::PingReq(mesh_runtime::mqtt::mqttbytes::v5::PingReq);
    client.send(&ping).await.is_ok() && matches!(client.receive().await, Ok(Packet::PingResp(_)))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn the_capability_is_proven_or_what_is_missing_is_told() {
    let mesh = Mesh::start(1).await;
    match Sessions::new(&mesh.config).capability().await {
        Ok(()) => println!("connections can be closed here"),
        Err(missing) => {
            println!("connections cannot be closed here: {missing}");
            assert!(!is_root(), "{missing}");
            assert!(missing.contains("AmbientCapabilities=CAP_NET_ADMIN"), "{missing}");
        }
    }
}

/// Ends workers whose master is gone.
struct Orphans(Vec<Pid>);

impl Drop for Orphans {
    fn drop(&mut self) {
        for pid in &self.0 {
            kill_process(*pid, Signal::KILL).ok();
        }
    }
}

#[tokio::test]
async fn of_three_kinds_of_clients_only_those_of_this_nginx_are_closed() {
    let mut mesh = Mesh::start(2).await;
    let sessions = Sessions::new(&mesh.config);
    if let Err(missing) = sessions.capability().await {
        println!("skipped: {missing}");
        return;
    }
    // Another Nginx on this machine, in front of the same broker.
    let mut other = Mesh::start(1).await;
    let conf = std::fs::read_to_string(other.config.balancer.dir.join("upstream.conf")).unwrap();
    let (own, foreign) = (other.address(1).to_string(), mesh.address(1).to_string());
    std::fs::write(
        other.config.balancer.dir.join("upstream.conf"),
        conf.replace(&own, &foreign),
    )
    .unwrap();
    other.nginx.as_mut().unwrap().end();
    other.start_nginx().await;

    let mut through = clients(mesh.config.balancer.listen, "through", 10).await;
    let mut direct = clients(mesh.address(1), "direct", 10).await;
    let mut beside = clients(other.config.balancer.listen, "beside", 10).await;
    let all = Diag::open().unwrap().connections_to(mesh.address(1)).unwrap();
    assert_eq!(all.len(), 30, "all three kinds are on one broker");
    assert_eq!(sessions.count(mesh.address(1)).await, Ok(10));
    assert_eq!(sessions.count(mesh.address(2)).await, Ok(0));
    let none = sessions.close(mesh.address(2), None).await.unwrap();
    assert_eq!((none.closed, none.left), (0, 0));
    let closed = sessions.close(mesh.address(1), None).await.unwrap();
    assert_eq!((closed.closed, closed.left), (10, 0));
    for client in &mut through {
        assert!(ends(client).await, "a session through this Nginx ends");
    }
    for client in direct.iter_mut().chain(&mut beside) {
        assert!(lives(client).await, "a session of somebody else lives on");
    }

    // Workers that outlive their master keep their sessions; they are still this Nginx's.
    let mut through = clients(mesh.config.balancer.listen, "orphaned", 10).await;
    let nginx: &mut Process = mesh.nginx.as_mut().unwrap();
    let _orphans = Orphans(nginx.children());
    nginx.kill();
    let closed = sessions.close(mesh.address(1), None).await.unwrap();
    assert_eq!((closed.closed, closed.left), (10, 0));
    for client in &mut through {
        assert!(ends(client).await, "a session in an orphan ends");
    }
    for client in direct.iter_mut().chain(&mut beside) {
        assert!(lives(client).await, "a session of somebody else lives on");
    }
    let without = sessions.old_workers_stopped(Duration::ZERO).await.unwrap_err();
    assert!(without.contains("does not run"), "{without}");
}

#[tokio::test]
async fn a_worker_that_does_not_stop_is_named_at_the_deadline() {
    let mesh = Mesh::start(1).await;
    let sessions = Sessions::new(&mesh.config);
    let nginx = mesh.nginx.as_ref().unwrap();
    sessions.old_workers_stopped(Duration::ZERO).await.unwrap();
    let before = nginx.children();
    // A stopped worker cannot hear that it shall stop.
    kill_process(before[0], Signal::STOP).unwrap();
    // A generation that is as young as the next would be taken for it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    nginx.signal(Signal::HUP);
    wait_for("new workers", async || {
        (nginx.children().iter().any(|pid| !before.contains(pid))).then_some(())
    })
    .await;
    let late = sessions.old_workers_stopped(Duration::from_millis(500)).await;
    kill_process(before[0], Signal::CONT).unwrap();
    let late = late.unwrap_err();
    assert!(
        late.contains(&before[0].as_raw_nonzero().to_string()),
        "{late} does not name {:?}",
        before[0]
    );
    sessions.old_workers_stopped(common::PATIENCE).await.unwrap();
}
