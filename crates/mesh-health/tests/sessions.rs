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
    assert_eq!(sessions.count(&[mesh.address(1)]).await, Ok(10));
    assert_eq!(sessions.count(&[mesh.address(2)]).await, Ok(0));
    let none = sessions.close(&[mesh.address(2)], None).await.unwrap();
    assert_eq!((none.closed, none.left), (0, 0));
    let closed = sessions.close(&[mesh.address(1)], None).await.unwrap();
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
    let closed = sessions.close(&[mesh.address(1)], None).await.unwrap();
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

/// Where the test below finds its configuration.
const AS_ANOTHER: &str = "MESH_TEST_SESSIONS_CONFIG";

/// Closes what it can, as another user. It is run by the test below.
#[tokio::test]
#[ignore = "a part of another test, which runs it"]
async fn close_as_another_user() {
    let path = std::env::var(AS_ANOTHER).unwrap();
    let config = mesh_runtime::Config::load(path.as_ref(), [], &[]).unwrap();
    let broker = config.topology.brokers()[0].address;
    let _own = clients(broker, "prober", 3).await;
    let closed = Sessions::new(&config).close(&[broker], None).await;
    println!("\nanswer {closed:?}");
}

/// Runs it as `nobody` with the one right that mesh-health needs, and returns what it answers.
fn as_nobody(mesh: &Mesh) -> Option<String> {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(["--inh-caps=+net_admin", "--ambient-caps=+net_admin"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "close_as_another_user", "--ignored", "--nocapture"]);
    let output = command.env(AS_ANOTHER, &mesh.config.path).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = text.lines().find_map(|line| line.strip_prefix("answer "));
    if answer.is_none() {
        println!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    answer.map(str::to_owned)
}

#[tokio::test]
async fn where_open_files_may_not_be_read_the_user_of_the_workers_tells_or_nothing_is_closed() {
    use std::os::unix::fs::PermissionsExt;
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let other = ["www-data", "nginx", "daemon"]
        .into_iter()
        .find(|name| users.lines().any(|line| line.starts_with(&format!("{name}:"))));
    let (true, Some(other)) = (is_root(), other) else {
        println!("skipped: only root can become somebody else, and there must be somebody");
        return;
    };
    let mut mesh = Mesh::start(1).await;
    let address = mesh.address(1);
    let folder = mesh.config.path.parent().unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();

    let mut through = clients(mesh.config.balancer.listen, "through", 10).await;
    let Some(answer) = as_nobody(&mesh) else {
        println!("skipped: this program cannot be run as nobody");
        return;
    };
    assert!(answer.contains("balancer.proxy_bind"), "{answer}");
    for client in &mut through {
        assert!(
            lives(client).await,
            "nothing is closed if it cannot be told whose it is"
        );
    }

    let conf = mesh.config.balancer.dir.join("nginx.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    assert!(text.contains("user root;"));
    std::fs::write(&conf, text.replace("user root;", &format!("user {other};"))).unwrap();
    mesh.nginx.as_mut().unwrap().end();
    mesh.start_nginx().await;
    let mut through = clients(mesh.config.balancer.listen, "again", 10).await;
    let mut direct = clients(address, "direct", 10).await;
    assert_eq!(as_nobody(&mesh).unwrap(), "Ok(Closed { closed: 10, left: 0 })");
    for client in &mut through {
        assert!(ends(client).await, "a session through Nginx ends");
    }
    for client in &mut direct {
        assert!(lives(client).await, "a session of somebody else lives on");
    }
}
