//! A real network: what brokers, Nginx and mesh-health log becomes lines, sessions, incidents and samples.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesh_lab::{Fault, Lab, LabOptions, wait_until};
use mesh_store::reader::Place;
use mesh_store::sessions::SessionFilter;
use mesh_store::{Query, Reader};

const DEADLINE: Duration = Duration::from_secs(60);

const EVIL: &str = "evil \"quoted\" as x (p2, c1)";

/// A client that reconnects for ever; killed when dropped.
struct Client(Child);

impl Client {
    fn start(port: u16, id: &str) -> Self {
        let program = mesh_lab::system_program("mosquitto_sub", "apt install mosquitto-clients").unwrap();
        let child = Command::new(program)
            .args(["-p", &port.to_string(), "-i", id, "-t", "x", "-k", "5"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn found(reader: &Reader, query: &str) -> usize {
    let query: Query = query.parse().unwrap();
    reader.page(&query, Place::Newest, 100).await.unwrap().rows.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_failover_is_in_the_database() {
    let options = LabOptions {
        brokers: 3,
        logs: true,
        ..LabOptions::default()
    };
    let lab = Lab::start(options).await.unwrap();
    let reader = Reader::open(&lab.config().logs.database).await.unwrap();
    let client = Client::start(lab.balancer().port(), EVIL);

    let session = wait_until("a session with its real address", DEADLINE, async || {
        let open = SessionFilter {
            client_id: Some(EVIL),
            open: true,
            limit: 1,
            ..SessionFilter::default()
        };
        let session = reader.sessions(open).await.unwrap().pop();
        session
            .filter(|session| session.remote_addr.is_some())
            .ok_or("none")
    });
    let session = session.await.unwrap();
    assert_eq!(
        (session.broker.as_str(), session.protocol.as_deref()),
        ("broker1", Some("3.1.1"))
    );
    assert_ne!(session.remote_addr, session.broker_addr, "Nginx is in between");
    assert_eq!(
        found(
            &reader,
            r#"client:"evil \"quoted\" as x (p2, c1)" event:client.connected"#
        )
        .await,
        1
    );

    // mesh-logs is away while the broker dies, and there again within 500 ms.
    let before = lab.pid("mesh-logs").unwrap();
    let process = |name: &str| Fault::Kill {
        process: name.to_owned(),
    };
    let killed = Instant::now();
    lab.fault(&process("mesh-logs")).await.unwrap();
    lab.fault(&process("broker1")).await.unwrap();
    wait_until("mesh-logs to run again", DEADLINE, async || {
        match lab.pid("mesh-logs") {
            Some(pid) if pid != before => Ok(()),
            _ => Err("it does not run"),
        }
    })
    .await
    .unwrap();
    println!("mesh-logs was started again after {:?}", killed.elapsed());

    let path = wait_until("the client on the next broker", DEADLINE, async || {
        let path = reader.client(EVIL).await.unwrap().ok_or("unknown")?;
        if path.live_on == ["broker2"] {
            Ok(path)
        } else {
            Err("not there yet")
        }
    });
    let path = path.await.unwrap();
    let first = &path.sessions[0];
    let reason = first.reason.as_deref().unwrap_or_default();
    assert!(
        first.broker == "broker1" && reason.starts_with("broker dead: "),
        "{first:?}"
    );
    assert_eq!(path.reconnects, 1);

    lab.fault(&Fault::Restart {
        process: "broker1".to_owned(),
    })
    .await
    .unwrap();
    wait_until("the incident with its end", DEADLINE, async || {
        let incidents = reader.incidents(None, 10).await.unwrap();
        let incident = incidents
            .iter()
            .find(|incident| {
                incident
                    .broker
                    .as_ref()
                    .is_some_and(|id| id.as_str() == "broker1")
            })
            .ok_or("none")?;
        if incident.ended_at.is_some() && incident.phases.len() >= 5 {
            Ok(())
        } else {
            Err("not over")
        }
    })
    .await
    .unwrap();
    assert!(
        found(
            &reader,
            "service:mesh-health event:broker.dead broker:broker1 level:warn"
        )
        .await
            >= 1
    );

    // What is counted from lines agrees with what the brokers count.
    wait_until("samples and no drift", DEADLINE, async || {
        let samples = reader.samples("clients", "broker2", 0, i64::MAX).await.unwrap();
        let page = metrics(&lab).await;
        let drift = page
            .lines()
            .find(|line| line.starts_with("mesh_logs_session_drift{broker=\"broker2\"}"));
        match (samples.last(), drift) {
            (Some(sample), Some(drift)) if sample.value == 1.0 && drift.ends_with(" 0") => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await
    .unwrap();
    let unparsed = metrics(&lab).await;
    let unparsed: Vec<&str> = unparsed
        .lines()
        .filter(|line| line.starts_with("mesh_logs_unparsed"))
        .collect();
    assert!(
        unparsed.iter().all(|line| line.ends_with(" 0")),
        "every line was understood: {unparsed:?}"
    );
    drop(client);
    lab.stop().await.unwrap();
}

async fn metrics(lab: &Lab) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = lab.logs_url().replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
