//! People are told: by a real program and over real HTTP, once, and again until somebody takes it.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{Mesh, wait_for};
use mesh_runtime::config::Announce;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::{TlsAcceptor, rustls};

fn rules() -> Announce {
    Announce {
        command: None,
        webhook: None,
        webhook_ca: None,
        repeat_after: Duration::from_secs(600),
        timeout: Duration::from_secs(5),
        retry_interval: Duration::from_millis(50),
        give_up_after: Duration::from_secs(30),
    }
}

/// One request: its head and its body; `None` if it breaks off.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Value)> {
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        text.extend_from_slice(&chunk[..length]);
        let read = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = read.split_once("\r\n\r\n") else {
            continue;
        };
        if let Ok(body) = serde_json::from_str(body) {
            return Some((head.to_owned(), body));
        }
    }
}

/// A server that answers each request as `answers` say, then 204, and hands on what it got.
async fn server(
    answers: &'static [&'static str],
) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (got, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answers = answers.iter();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answers.next().copied().unwrap_or("204 No Content");
            if answer != "hang up" {
                serve(stream, answer, &got).await;
            }
        }
    });
    (address, received)
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &str,
    got: &mpsc::UnboundedSender<(String, Value)>,
) {
    if let Some(request) = request(&mut stream).await {
        got.send(request).ok();
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        // A daemon that ends meanwhile does not wait for the answer.
        stream.write_all(answer.as_bytes()).await.ok();
    }
}

/// Certificates that nobody but a test trusts, and the key of the first.
const TRUSTED: &[u8] = include_bytes!("tls/trusted.pem");
const KEY: &[u8] = include_bytes!("tls/trusted.key");
const OTHER: &[u8] = include_bytes!("tls/other.pem");

/// The same over TLS, as `127.0.0.1`, proven by [`TRUSTED`]. The errors of those who turn away are handed on too.
async fn safe_server() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<(String, Value)>) {
    let certificate = CertificateDer::from_pem_slice(TRUSTED).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (got, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            match acceptor.accept(stream).await {
                Ok(stream) => serve(stream, "204 No Content", &got).await,
                Err(error) => drop(got.send((error.to_string(), Value::Null))),
            }
        }
    });
    (address, received)
}

async fn next(received: &mut mpsc::UnboundedReceiver<(String, Value)>) -> (String, Value) {
    let next = tokio::time::timeout(common::PATIENCE, received.recv()).await;
    next.expect("a request in time").unwrap()
}

async fn metric(mesh: &Mesh, line: &str) {
    wait_for(line, async || {
        let (_, page) = mesh.get("/metrics").await?;
        page.lines().any(|other| other == line).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_first_fails_is_told_of_everything_in_order_and_once() {
    let (address, mut received) = server(&["hang up", "503 Service Unavailable"]).await;
    let mut mesh = Mesh::start(2).await;
    mesh.config.announce = Announce {
        webhook: Some(format!("http://{address}/mesh?to=me").parse().unwrap()),
        ..rules()
    };
    mesh.watch().await;
    mesh.wait("both healthy", |s| {
        s.brokers.iter().all(|b| b.rtt_ms.is_some()) && s.balancer.confirmed
    })
    .await;
    mesh.wait_health(2, mesh_model::HealthStatus::Healthy).await;
    mesh.broker(1).kill();
    // Refused with 503, and therefore told again.
    let (head, started) = next(&mut received).await;
    assert!(head.starts_with("POST /mesh?to=me HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains(&format!("host: {address}")), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(started["name"], "failover.started");
    assert_eq!((&started["from"], &started["to"]), (&"b1".into(), &"b2".into()));
    assert_eq!(next(&mut received).await.1, started);
    assert_eq!(next(&mut received).await.1["name"], "failover.switched");
    assert_eq!(next(&mut received).await.1["name"], "failover.completed");
    metric(&mesh, "mesh_announcements_total{outcome=\"failed\"} 2").await;
    metric(&mesh, "mesh_announcements_total{outcome=\"delivered\"} 3").await;

    // Nobody is left; that is said too.
    mesh.broker(2).kill();
    assert_eq!(next(&mut received).await.1["name"], "failover.blocked");
    mesh.unwatch().await;
    assert!(
        received.try_recv().is_err(),
        "nothing is told that was not expected"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_configuration_is_told_once_however_often_it_is_tried() {
    let (address, mut received) = server(&[]).await;
    let mut mesh = Mesh::start(2).await;
    mesh.config.announce = Announce {
        webhook: Some(format!("http://{address}").parse().unwrap()),
        ..rules()
    };
    mesh.watch().await;
    mesh.wait_health(2, mesh_model::HealthStatus::Healthy).await;
    mesh.nginx.as_mut().unwrap().end();
    let (head, told) = next(&mut received).await;
    assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
    assert_eq!(told["name"], "balancer.rejected");
    // It ends between any two questions of mesh-health: it does not tell its plan, or it does not run.
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.starts_with("Nginx does not "), "{told}");
    // It is restored, and then the same again, of which people know.
    mesh.start_nginx().await;
    mesh.wait("confirmed", |s| s.balancer.confirmed).await;
    mesh.nginx.as_mut().unwrap().end();
    wait_for("it is taken for a repetition", async || {
        let (_, page) = mesh.get("/metrics").await?;
        let again = "mesh_announcements_total{outcome=\"repeated\"} ";
        let count: u64 = page
            .lines()
            .find_map(|line| line.strip_prefix(again))?
            .parse()
            .ok()?;
        (count > 0).then_some(())
    })
    .await;
    metric(&mesh, "mesh_announcements_total{outcome=\"delivered\"} 1").await;
    assert!(received.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_only_a_server_that_is_trusted_is_told() {
    let (address, mut received) = safe_server().await;
    let mut mesh = Mesh::start(2).await;
    let ca = mesh.config.path.with_file_name("ca.pem");
    mesh.config.announce = Announce {
        webhook: Some(format!("https://{address}/secret").parse().unwrap()),
        webhook_ca: Some(ca.clone()),
        ..rules()
    };
    let problem = mesh_health::shell::announce::Webhook::of(&mesh.config.announce).unwrap_err();
    assert!(problem.to_string().contains("ca.pem"), "{problem}");
    fs::write(&ca, TRUSTED).unwrap();
    mesh.watch().await;
    mesh.wait_health(2, mesh_model::HealthStatus::Healthy).await;
    mesh.nginx.as_mut().unwrap().end();
    let (head, told) = next(&mut received).await;
    assert!(head.starts_with("POST /secret HTTP/1.1\r\n"), "{head}");
    assert_eq!(told["name"], "balancer.rejected");
    metric(&mesh, "mesh_announcements_total{outcome=\"delivered\"} 1").await;
    mesh.unwatch().await;

    // Another certificate of the same name is not enough.
    fs::write(&ca, OTHER).unwrap();
    mesh.watch().await;
    let (refused, nothing) = next(&mut received).await;
    assert!(nothing.is_null(), "{nothing}");
    assert!(refused.contains("alert"), "{refused}");
    wait_for("it is counted as failed", async || {
        let (_, page) = mesh.get("/metrics").await?;
        (!page.contains("mesh_announcements_total{outcome=\"failed\"} 0")).then_some(())
    })
    .await;
    metric(&mesh, "mesh_announcements_total{outcome=\"delivered\"} 0").await;
}

/// A program that appends what it was given to a file, but fails at its first run.
fn program(mesh: &Mesh) -> (PathBuf, PathBuf) {
    let told = mesh.config.path.with_file_name("told");
    let program = mesh.config.path.with_file_name("tell me.sh");
    let text = format!(
        "#!/bin/sh\nif [ ! -e '{0}' ]; then : >'{0}'; echo 'the pager is off' >&2; exit 3; fi\n\
         {{ printf '%s|%s|%s|%s|' \"$MESH_EVENT\" \"$MESH_FROM\" \"$MESH_TO\" \"${{NOTIFY_SOCKET-none}}\"; cat; }} >>'{0}'\n",
        told.display()
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_event_as_json_and_in_its_environment() {
    let mut mesh = Mesh::start(2).await;
    let (program, told) = program(&mesh);
    // A webhook that nobody serves holds up nobody else.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    mesh.config.announce = Announce {
        command: Some(program),
        webhook: Some(
            format!("http://{}", nobody.local_addr().unwrap())
                .parse()
                .unwrap(),
        ),
        ..rules()
    };
    mesh.watch().await;
    mesh.wait_health(2, mesh_model::HealthStatus::Healthy).await;
    mesh.broker(1).kill();
    let lines = wait_for("three are told", async || {
        let text = fs::read_to_string(&told).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // The program writes a line in two pieces.
        let whole = lines.iter().filter(|line| line.ends_with('}'));
        (whole.count() >= 3).then_some(lines)
    })
    .await;
    let events = ["failover.started", "failover.switched", "failover.completed"];
    for (line, name) in lines.iter().zip(events) {
        let json = line.strip_prefix(&format!("{name}|b1|b2|none|"));
        let event: BTreeMap<String, Value> = serde_json::from_str(json.expect(line)).unwrap();
        assert_eq!(event["name"], name);
        assert!(event.contains_key("at"), "{event:?}");
    }
    // The failed first run was said, with its own words.
    metric(&mesh, "mesh_announcements_total{outcome=\"failed\"} 1").await;
    // An announcement under way does not keep the daemon from ending.
    mesh.unwatch().await;
}
