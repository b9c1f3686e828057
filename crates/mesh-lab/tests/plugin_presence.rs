//! What brokers believe about where clients are, when clients move and brokers are hung or read their configuration again.

mod support;

use std::process::Command;

use support::client::{Client, Who};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use support::{PATIENCE, all, at, brokers, logged, reload, start};

/// Leaves a session behind at broker `n` that waits three seconds for its client.
fn leave_a_session(lab: &mesh_lab::Lab, n: usize, client_id: &str) {
    let port = at(lab, n).port().to_string();
    let status = Command::new("mosquitto_sub")
        .args(["-V", "5", "-x", "3"])
        .args([
            "-p",
            &port,
            "-c",
            "-i",
            client_id,
            "-q",
            "1",
            "-t",
            "some/topic",
            "-E",
        ])
        .status();
    assert!(status.expect("mosquitto_sub is installed").success());
}

/// A connection with a session that outlives it by three seconds.
struct Persistent(TcpStream);

impl Persistent {
    async fn open(lab: &mesh_lab::Lab, broker: usize, client: usize) -> Self {
        let mut this = Self::knock(lab, broker, client).await;
        this.is_let_in().await;
        this
    }

    /// Sends a CONNECT.
    async fn knock(lab: &mesh_lab::Lab, broker: usize, client: usize) -> Self {
        const EXPIRES_AFTER_3_S: [u8; 6] = [5, 0x11, 0, 0, 0, 3];
        let id = format!("moves-{client}");
        let mut connect = b"\x10\x00\x00\x04MQTT\x05\x00\x00\x3c".to_vec();
        connect.extend(EXPIRES_AFTER_3_S);
        connect.extend([0, id.len() as u8]);
        connect.extend(id.as_bytes());
        connect[1] = connect.len() as u8 - 2;
        let mut stream = TcpStream::connect(at(lab, broker)).await.unwrap();
        stream.write_all(&connect).await.unwrap();
        Self(stream)
    }

    async fn is_let_in(&mut self) {
        let connack = timeout(PATIENCE, self.0.read_u8()).await.expect("an answer");
        assert_eq!(connack.unwrap(), 0x20);
    }
}

/// logrotate sends SIGHUP to every broker each night, and operators do after a change of users or certificates.
#[tokio::test]
async fn a_broker_that_is_asked_again_about_a_session_whose_client_has_moved_does_not_call_it_back() {
    let lab = start(brokers(2)).await;
    leave_a_session(&lab, 1, "roamer");
    let mut roamer = Client::open(at(&lab, 2), &Who::named("roamer")).await;
    let mut fence = Client::open(at(&lab, 2), &Who::named("fence")).await;
    for _ in all(&lab) {
        reload(&lab).await;
    }
    // What brokers tell each other of clients arrives in order.
    let second = Client::open(at(&lab, 1), &Who::named("fence")).await;
    tokio::time::timeout(PATIENCE, fence.ended())
        .await
        .expect("a client that moves has one session");
    assert!(roamer.is_alive().await, "it has not connected anywhere else");
    drop((second, roamer));
    lab.stop().await.unwrap();
}

/// Mosquitto 2.0 keeps a session in its list of those that expire twice if it is asked to end one whose client is away,
/// and uses the second entry when the session is long freed.
#[tokio::test]
async fn clients_that_leave_a_hung_broker_and_come_back_do_not_bring_it_down() {
    const CLIENTS: usize = 30;
    let lab = start(brokers(2)).await;
    let pid = lab.pid("broker1");
    let mut left = Vec::new();
    for n in 0..CLIENTS {
        left.push(Persistent::open(&lab, 1, n).await);
    }
    lab.hang("broker1").await.unwrap();
    // The other broker lets them in and tells of them all at once, and then they close their old connections: the hung
    // one hears both in one turn.
    lab.hang("broker2").await.unwrap();
    let mut moved = Vec::new();
    for n in 0..CLIENTS {
        moved.push(Persistent::knock(&lab, 2, n).await);
    }
    lab.resume("broker2").await.unwrap();
    for client in &mut moved {
        client.is_let_in().await;
    }
    drop(left);
    lab.resume("broker1").await.unwrap();
    drop(moved);
    // A session that comes back is freed; what was kept of it is used when the others expire.
    for n in 0..CLIENTS / 2 {
        drop(Persistent::open(&lab, 1, n).await);
    }
    let expired = async || match logged(&lab, 1, &["Expiring client"]) {
        count if count >= CLIENTS => Ok(()),
        count => Err(format!(
            "{count} sessions have expired; the broker is {:?}",
            lab.pid("broker1")
        )),
    };
    mesh_lab::wait_until("the sessions to expire", PATIENCE, expired)
        .await
        .unwrap();
    assert_eq!(lab.pid("broker1"), pid, "it is the same process");
    lab.stop().await.unwrap();
}
