//! Further ways in: TLS and WebSockets at Nginx, encrypted links between brokers.

mod common;
mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use common::SECOND;
use common::clients::{ids, wait_for_primary};
use futures_util::{SinkExt, StreamExt};
use mesh_lab::{Lab, LabOptions, wait_until};
use support::client::Who;
use support::inbox::Inbox;
use support::{PATIENCE, start};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Has `deploy/make-certs.sh` make or renew certificates for 127.0.0.1.
fn make_certificates(folder: &Path, names: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/make-certs.sh");
    let mut command = Command::new(script);
    command
        .arg(folder)
        .args(names.iter().map(|name| format!("{name}=127.0.0.1")));
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    make_certificates(folder.path(), &["balancer", "broker1", "broker2", "broker3"]);
    folder
}

fn options() -> LabOptions {
    LabOptions {
        brokers: 3,
        ..LabOptions::default()
    }
}

async fn listen(lab: &Lab, filter: &str) -> Vec<Inbox> {
    let mut inboxes = Vec::new();
    for id in ids(lab) {
        let name = format!("subscriber at {id}");
        inboxes.push(Inbox::open(lab.broker(&id), &Who::anonymous(), &[filter], &name).await);
    }
    inboxes
}

/// Publishes with `mosquitto_pub` over TLS, trusting `ca`, and tells what it says if it fails.
fn publish_with_tls(address: SocketAddr, ca: &Path, text: &str) -> Result<(), String> {
    let output = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "--cafile"])
        .arg(ca)
        .args(["-q", "1", "-t", "doors/tls", "-m", text])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

/// The serial number of the certificate that is shown at `address`.
fn shown_serial(address: SocketAddr) -> String {
    let shown =
        format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -serial");
    let output = Command::new("sh").args(["-c", &shown]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An MQTT 3.1.1 session over WebSockets.
struct Browser(WebSocketStream<TcpStream>);

impl Browser {
    async fn open(address: SocketAddr, client_id: &str) -> Result<Self, String> {
        let mut request = format!("ws://{address}/mqtt").into_client_request().unwrap();
        let protocol = "mqtt".parse().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let opened = tokio_tungstenite::client_async(request, stream).await;
        let mut browser = Self(opened.map_err(|error| error.to_string())?.0);
        let id = client_id.as_bytes();
        let mut connect = vec![0x10, 12 + id.len() as u8, 0, 4];
        connect.extend(b"MQTT\x04\x02\x00\x3c\x00");
        connect.push(id.len() as u8);
        connect.extend(id);
        browser.send(connect).await;
        match browser.next().await {
            Some(packet) if packet == [0x20, 2, 0, 0] => Ok(browser),
            other => Err(format!("{other:?} is no CONNACK")),
        }
    }

    async fn send(&mut self, packet: Vec<u8>) {
        self.0.send(Message::Binary(packet.into())).await.unwrap();
    }

    /// The next packet; `None` if the session ended.
    async fn next(&mut self) -> Option<Vec<u8>> {
        match timeout(PATIENCE, self.0.next())
            .await
            .expect("a packet or an end")
        {
            Some(Ok(Message::Binary(packet))) => Some(packet.to_vec()),
            _ => None,
        }
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    async fn publish(&mut self, topic: &str, text: &str) {
        let length = 2 + topic.len() + 2 + text.len();
        let mut packet = vec![0x32, length as u8, 0, topic.len() as u8];
        packet.extend(topic.as_bytes());
        packet.extend([0, 7]);
        packet.extend(text.as_bytes());
        self.send(packet).await;
        assert_eq!(self.next().await.unwrap(), [0x40, 2, 0, 7]);
    }
}

#[tokio::test]
async fn browsers_come_by_websockets_and_fail_over_like_everybody() {
    let options = LabOptions {
        websockets: true,
        ..options()
    };
    let lab = start(options).await;
    let brokers = ids(&lab);
    let address = lab.balancer_websockets().unwrap();
    let inboxes = listen(&lab, "doors/#").await;
    for broker in lab.config().topology.brokers() {
        for door in [broker.address, broker.websockets.unwrap()] {
            TcpStream::connect(door).await.unwrap();
            // On Linux this machine has all of 127.0.0.0/8.
            if cfg!(target_os = "linux") {
                let elsewhere = SocketAddr::from(([127, 0, 0, 3], door.port()));
                let refused = TcpStream::connect(elsewhere).await.map_err(|error| error.kind());
                assert_eq!(
                    refused.err(),
                    Some(std::io::ErrorKind::ConnectionRefused),
                    "{elsewhere} is not closed, though only {door} is asked for"
                );
            }
        }
    }
    let mut browser = Browser::open(address, "browser").await.unwrap();
    browser.publish("doors/ws", "first").await;
    for inbox in &inboxes {
        assert_eq!(inbox.first("doors/ws").await.text(), "first", "{}", inbox.name());
    }

    // A broker that hangs closes nothing: mesh-health must know these sessions too.
    lab.hang(brokers[0].as_str()).await.unwrap();
    wait_for_primary(&lab, &brokers[1]).await;
    assert_eq!(
        browser.next().await,
        None,
        "the session on the hung broker is closed"
    );
    let mut browser = Browser::open(address, "browser").await.unwrap();
    browser.publish("doors/ws", "second").await;
    lab.resume(brokers[0].as_str()).await.unwrap();
    for inbox in &inboxes {
        inbox
            .wait_for("both messages", |messages| messages.len() >= 2)
            .await;
    }

    // And one that dies is passed over by Nginx alone.
    lab.kill("broker2").await.unwrap();
    assert_eq!(browser.next().await, None);
    Browser::open(address, "browser")
        .await
        .unwrap()
        .publish("doors/ws", "third")
        .await;
    let last = inboxes.last().unwrap();
    last.wait_for("the third message", |messages| messages.len() == 3)
        .await;
    drop(inboxes);
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn clients_and_links_use_tls_and_certificates_are_renewed_without_a_cut() {
    let folder = certificates();
    let options = LabOptions {
        certificates: Some(folder.path().to_owned()),
        ..options()
    };
    let lab = start(options).await;
    let address = lab.balancer_tls().unwrap();
    let ca = folder.path().join("ca.crt");
    let inboxes = listen(&lab, "doors/#").await;
    publish_with_tls(address, &ca, "first").unwrap();
    for inbox in &inboxes {
        assert_eq!(inbox.first("doors/tls").await.text(), "first", "{}", inbox.name());
    }
    let elsewhere = tempfile::tempdir().unwrap();
    make_certificates(elsewhere.path(), &["other"]);
    let refused = publish_with_tls(address, &elsewhere.path().join("ca.crt"), "refused").unwrap_err();
    assert!(refused.contains("TLS error"), "{refused}");

    // Renewed: who comes now sees the new one, and who was there stays.
    let steady = Inbox::open(lab.balancer(), &Who::anonymous(), &["doors/#"], "steady client").await;
    let before = shown_serial(address);
    assert!(before.starts_with("serial="), "{before:?}");
    std::fs::remove_file(folder.path().join("balancer.crt")).unwrap();
    make_certificates(folder.path(), &["balancer"]);
    let reloaded = Command::new("kill")
        .args(["-HUP", &lab.pid("nginx").unwrap().to_string()])
        .status();
    assert!(reloaded.unwrap().success());
    wait_until("the new certificate", PATIENCE, async || {
        match shown_serial(address) {
            now if now == before || now.is_empty() => Err(now),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    publish_with_tls(address, &ca, "second").unwrap();
    let second = |messages: &[support::inbox::Message]| messages.iter().any(|m| m.text() == "second");
    steady.wait_for("what came after the renewal", second).await;
    drop((steady, inboxes));
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn a_broker_with_a_foreign_certificate_gets_no_link() {
    let folder = certificates();
    let options = LabOptions {
        certificates: Some(folder.path().to_owned()),
        ..options()
    };
    let lab = start(options).await;
    // Somebody who has the address of broker3, but not its certificate.
    let elsewhere = tempfile::tempdir().unwrap();
    make_certificates(elsewhere.path(), &["broker3"]);
    for file in ["broker3.crt", "broker3.key"] {
        std::fs::copy(elsewhere.path().join(file), folder.path().join(file)).unwrap();
    }
    lab.restart("broker3").await.unwrap();
    let inboxes = listen(&lab, "doors/#").await;
    let refused = async || match support::logged(&lab, 1, &["certificate verify failed"]) {
        0 => Err("no word of a certificate".to_owned()),
        _ => Ok(()),
    };
    wait_until("broker1 to refuse the link", 10 * SECOND, refused)
        .await
        .unwrap();
    // Its own links to the others are as good as before: they show their certificates to it.
    publish_with_tls(
        lab.balancer_tls().unwrap(),
        &folder.path().join("ca.crt"),
        "still",
    )
    .unwrap();
    for inbox in &inboxes {
        assert_eq!(inbox.first("doors/tls").await.text(), "still", "{}", inbox.name());
    }
    drop(inboxes);
    lab.stop().await.unwrap();
}
