//! The parts of retained convergence that lean on a real broker: its database, and reading from it.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mesh_lab::wait_until;
use mesh_plugin::message::Property;
use mesh_plugin::retained::reader::{Login, Reader, Reply};
use mesh_plugin::retained::replica::Found;
use mesh_plugin::retained::{Version, store_file};
use mesh_plugin::salvage;
use support::client::{Client, Who};
use support::stock::Stock;
use support::{PATIENCE, time_for};

/// What a value's `mesh` property says, and its payload.
type About = (Option<String>, Vec<u8>);

fn about(properties: &[Property<'_>], payload: &[u8]) -> About {
    let mesh = properties.iter().rev().find_map(|property| match property {
        Property::User("mesh", value) => Some((*value).to_owned()),
        _ => None,
    });
    (mesh, payload.to_vec())
}

fn stored(database: &Path) -> Result<BTreeMap<String, (Option<u32>, About)>, String> {
    let file = File::open(database).map_err(|error| error.to_string())?;
    let mut all = BTreeMap::new();
    let used = store_file::read(BufReader::new(file), about, |stored| {
        let before = all.insert(stored.topic, (stored.expires, stored.about));
        assert_eq!(before, None);
    });
    let used = used.map_err(|error| error.to_string())?;
    assert!(used.whole && used.found == all.len());
    Ok(all)
}

/// Publishes retained with `mosquitto_pub`, which knows properties.
async fn publish(stock: &Stock, topic: &str, payload: &str, more: &[&str]) {
    let address = stock.address();
    let output = tokio::process::Command::new("mosquitto_pub")
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-V", "5", "-q", "1", "-r", "-t", topic, "-m", payload])
        .args(more)
        .output()
        .await
        .expect("mosquitto_pub is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn expiring(seconds: &str) -> [&str; 4] {
    ["-D", "publish", "message-expiry-interval", seconds]
}

fn now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() as u32
}

#[tokio::test]
async fn the_brokers_own_database_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let persistence = format!(
        "allow_anonymous true\npersistence true\npersistence_location {}/\nautosave_interval 1\nautosave_on_changes true",
        folder.path().display()
    );
    let stock = Stock::start(folder.path(), &persistence).await;
    let mut expected = BTreeMap::new();
    publish(&stock, "plain", "one", &[]).await;
    expected.insert("plain".to_owned(), (None, b"one".to_vec()));
    let properties = [
        "-D",
        "publish",
        "user-property",
        "mesh",
        "forged",
        "-D",
        "publish",
        "content-type",
        "text",
    ];
    let last = ["-D", "publish", "user-property", "mesh", "last"];
    publish(&stock, "a/ö/🦟", "two", &[&properties[..], &last].concat()).await;
    expected.insert("a/ö/🦟".to_owned(), (Some("last".to_owned()), b"two".to_vec()));
    publish(&stock, "expires", "three", &expiring("5000")).await;
    expected.insert("expires".to_owned(), (None, b"three".to_vec()));
    publish(&stock, "replaced", "old", &[]).await;
    publish(&stock, "replaced", "new", &[]).await;
    expected.insert("replaced".to_owned(), (None, b"new".to_vec()));
    publish(&stock, "cleared", "old", &[]).await;
    let mut client = Client::open(stock.address(), &Who::anonymous()).await;
    client.publish("cleared", 1, true, "").await;
    client.publish("live", 1, false, "not retained").await;
    client.publish("qos2", 2, true, vec![0; 300_000]).await;
    expected.insert("qos2".to_owned(), (None, vec![0; 300_000]));
    // Every change is saved, so the last one is there soon.
    let database = folder.path().join("mosquitto.db");
    let saved = wait_until("all of it in mosquitto.db", PATIENCE, async || {
        let found = stored(&database)?;
        let values: BTreeMap<_, _> = found
            .iter()
            .map(|(topic, value)| (topic.clone(), value.1.clone()))
            .collect();
        if values == expected {
            Ok(found)
        } else {
            Err(format!("{:?}", values.keys()))
        }
    });
    let found = saved.await.unwrap();
    for (topic, (expires, _)) in found {
        let left = expires.map(|second| second.saturating_sub(now()));
        if topic == "expires" {
            assert!((4900..=5001).contains(&left.unwrap()), "{left:?}");
        } else {
            assert_eq!(left, None, "{topic}");
        }
    }
}

fn reader(address: std::net::SocketAddr) -> Reader {
    let login = Login {
        address,
        client_id: "reader".to_owned(),
        user: "somebody".to_owned(),
        password: "anything".to_owned(),
    };
    Reader::start(login).unwrap()
}

/// Waits for the end of a job.
fn result(reader: &Reader) -> Result<Vec<Found>, String> {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    loop {
        match reader.reply() {
            Some(Reply::Found(7, found)) => all.push(found),
            Some(Reply::Done(7, result)) => return result.map(|()| all),
            Some(other) => panic!("{other:?}"),
            None => {
                assert!(Instant::now() < deadline, "the job ends");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_finds_what_is_stored_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::start(folder.path(), "allow_anonymous true").await;
    let reader = reader(stock.address());
    let mut client = Client::open(stock.address(), &Who::anonymous()).await;
    for n in 0..700u32 {
        client
            .publish(&format!("t/{n}"), (n % 3) as u8, true, format!("value {n}"))
            .await;
    }
    for n in 0..20 {
        client
            .publish(&format!("large/{n}"), 1, true, vec![n; 1 << 20])
            .await;
    }
    publish(&stock, "expires", "soon", &expiring("500")).await;
    publish(&stock, "expired", "sooner", &expiring("1")).await;
    client.publish("t/3", 1, true, "").await;
    let expired = wait_until("a value that expires", PATIENCE, async || {
        reader.read(7, vec!["expired".into()]);
        match result(&reader)?.len() {
            0 => Ok(()),
            _ => Err("it is there".to_owned()),
        }
    });
    expired.await.unwrap();

    let topics = (0..800)
        .map(|n| format!("t/{n}"))
        .chain((0..20).map(|n| format!("large/{n}")));
    let topics = topics.chain(["expires", "expired", "never/was"].map(str::to_owned));
    reader.read(7, topics.map(Into::into).collect());
    let found = result(&reader).unwrap();
    let by_topic: BTreeMap<&str, &Found> = found.iter().map(|found| (&*found.topic, found)).collect();
    assert_eq!((found.len(), by_topic.len()), (720, 720), "each once");
    assert!(!by_topic.contains_key("t/3") && !by_topic.contains_key("expired"));
    let left = by_topic["expires"].expires_in.unwrap();
    assert!((490..500).contains(&left), "{left}");
    for n in (0..700u32).filter(|n| *n != 3) {
        let found = by_topic[&*format!("t/{n}")];
        let messages = salvage::parse(&found.packet);
        assert_eq!(messages[0].payload, format!("value {n}").as_bytes());
        assert_eq!(
            (found.version, found.expires_in),
            (Version::unstamped(messages[0].payload), None)
        );
    }
    time_for("the end of an idle connection", Duration::from_secs(6)).await;
    reader.read(7, vec!["t/5".into(), "t/3".into()]);
    assert_eq!(result(&reader).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_told_and_the_reader_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let refusing = Stock::start(folder.path(), "allow_anonymous false").await;
    let refused = reader(refusing.address());
    refused.read(7, vec!["t".into()]);
    assert!(result(&refused).unwrap_err().contains("refuses"));
    // Somebody who listens and never says anything.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let waiting = reader(silent.local_addr().unwrap());
    waiting.read(7, vec!["t".into()]);
    let _accepted = silent.accept().unwrap();
    let begin = Instant::now();
    drop(waiting);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
