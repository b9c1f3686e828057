//! The examples, Python and Rust, against a real mesh: brokers die under them, and they die themselves.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use mesh_lab::{Lab, LabOptions, wait_until};
use rusqlite::Connection;
use support::{Language, PATIENCE, Program};
use tempfile::TempDir;

async fn lab() -> Lab {
    let options = LabOptions {
        brokers: 3,
        ..LabOptions::default()
    };
    Lab::start(options)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

fn broker(lab: &Lab, n: usize) -> String {
    lab.broker(&format!("broker{n}").parse().unwrap()).to_string()
}

/// A subscriber that is on a broker which lives; it has all that the mesh has.
async fn witness(lab: &Lab, language: Language, folder: &Path, count: usize) -> Program {
    let mut command = language.subscriber();
    command.args(["--broker", &broker(lab, 3), "--topic", "numbers/#"]);
    if count > 0 {
        command.args(["--count", &count.to_string()]);
    }
    let program = Program::start(&mut command, folder, "witness");
    subscribed(language, &program, 1).await;
    program
}

/// Waits until `program` has subscribed so many times.
async fn subscribed(language: Language, program: &Program, times: usize) {
    let said = match language {
        Language::Python => "Granted QoS 1",
        Language::Rust => "ready at",
    };
    program.wait_to_say(said, times).await;
}

fn publisher(language: Language, address: &str, topic: &str, outbox: &Path) -> Command {
    let mut command = language.publisher();
    command.args(["--broker", address, "--topic", topic, "--longest-pause", "2"]);
    command.arg("--outbox").arg(outbox);
    command
}

/// What came, each a topic and a payload; it must not have come twice.
fn once(program: &Program) -> BTreeSet<String> {
    let lines = program.lines();
    let all: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(all.len(), lines.len(), "something came twice");
    all
}

async fn two_primaries_die(language: Language) {
    const COUNT: usize = 1500;
    let lab = lab().await;
    let folder = TempDir::new().unwrap();
    let mut witness = witness(&lab, language, folder.path(), COUNT).await;
    // It goes down the list as its brokers die.
    let mut command = language.subscriber();
    for n in 1..=3 {
        command.args(["--broker", &broker(&lab, n)]);
    }
    let mut wanderer = Program::start(command.args(["--topic", "numbers/#"]), folder.path(), "wanderer");
    subscribed(language, &wanderer, 1).await;

    let balancer = lab.balancer().to_string();
    let mut command = publisher(language, &balancer, "numbers/a", &folder.path().join("outbox.db"));
    command.args(["--count", &COUNT.to_string(), "--rate", "200"]);
    let mut publisher = Program::start(&mut command, folder.path(), "publisher");
    for (dies, after) in [("broker1", 300), ("broker2", 800)] {
        witness.wait_for_lines(after).await;
        lab.kill(dies).await.unwrap();
    }
    publisher.succeeded().await;
    witness.succeeded().await;
    let expected: BTreeSet<String> = (1..=COUNT).map(|number| format!("numbers/a\t{number}")).collect();
    assert_eq!(once(&witness), expected, "everything, and each message once");

    subscribed(language, &wanderer, 3).await;
    let last = format!("numbers/a\t{COUNT}");
    let arrived = wait_until("the last message", PATIENCE, async || {
        if once(&wanderer).contains(&last) {
            Ok(())
        } else {
            Err(wanderer.said())
        }
    });
    arrived.await.unwrap_or_else(|late| panic!("{late}"));
    wanderer.kill();
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn python_loses_nothing_when_two_primaries_die() {
    two_primaries_die(Language::Python).await;
}

#[tokio::test]
async fn rust_loses_nothing_when_two_primaries_die() {
    two_primaries_die(Language::Rust).await;
}

/// How many messages were ever put into the outbox, and how many wait there.
fn outbox(path: &Path) -> (usize, usize) {
    let database = Connection::open(path).unwrap();
    let number = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let ever = number("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'");
    let waiting = number("SELECT count(*) FROM outbox");
    (usize::try_from(ever).unwrap(), usize::try_from(waiting).unwrap())
}

async fn publisher_dies(language: Language) {
    let lab = lab().await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("outbox.db");
    // A publisher that sees only this broker cannot send while it hangs.
    let first = broker(&lab, 1);
    let mut witness = witness(&lab, language, folder.path(), 0).await;
    let mut command = publisher(language, &first, "numbers/first", &path);
    let mut killed = Program::start(command.args(["--rate", "300"]), folder.path(), "killed");
    witness.wait_for_lines(100).await;
    lab.hang("broker1").await.unwrap();
    // Messages go into the outbox, and none leaves it.
    let wal = path.with_file_name("outbox.db-wal");
    let size = || std::fs::metadata(&wal).map_or(0, |file| file.len());
    let before = size();
    let filling = wait_until("100 more pages in the outbox", PATIENCE, async || match size() {
        now if now.abs_diff(before) > 100 * 4096 => Ok(()),
        now => Err(format!("{before}, then {now} bytes")),
    });
    filling.await.unwrap();
    killed.kill();
    let (ever, waiting) = outbox(&path);
    assert!(waiting > 10, "{waiting} of {ever} wait");
    lab.resume("broker1").await.unwrap();

    let mut command = publisher(language, &lab.balancer().to_string(), "numbers/second", &path);
    let mut second = Program::start(
        command.args(["--count", "5", "--rate", "100"]),
        folder.path(),
        "second",
    );
    second.succeeded().await;
    witness.wait_for_lines(ever + 5).await;
    let first = (1..=ever).map(|number| format!("numbers/first\t{number}"));
    let second = (1..=5).map(|number| format!("numbers/second\t{number}"));
    assert_eq!(once(&witness), first.chain(second).collect());
    assert_eq!(outbox(&path), (ever + 5, 0), "the outbox is empty");
    witness.kill();
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn the_outbox_of_python_survives_a_kill() {
    publisher_dies(Language::Python).await;
}

#[tokio::test]
async fn the_outbox_of_rust_survives_a_kill() {
    publisher_dies(Language::Rust).await;
}

/// Publishes one message at a broker, with Mosquitto's own client.
fn say(lab: &Lab, n: usize, topic: &str) {
    let address = lab.broker(&format!("broker{n}").parse().unwrap());
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    support::run(
        "mosquitto_pub",
        ["-h", &host, "-p", &port, "-q", "1", "-t", topic, "-m", "x"],
    );
}

async fn session(language: Language) {
    let lab = lab().await;
    let folder = TempDir::new().unwrap();
    let balancer = lab.balancer().to_string();
    let mut command = language.subscriber();
    command.args([
        "--broker",
        &balancer,
        "--client-id",
        "reader",
        "--topic",
        "numbers/#",
    ]);
    let mut reader = Program::start(&mut command, folder.path(), "reader");
    subscribed(language, &reader, 1).await;

    // The broker lives and keeps the session; what is published meanwhile waits there.
    reader.signal(rustix::process::Signal::STOP);
    lab.kill("nginx").await.unwrap();
    say(&lab, 1, "numbers/while-cut-off");
    reader.signal(rustix::process::Signal::CONT);
    reader.wait_for_lines(1).await;
    let resumed = match language {
        Language::Python => "session resumed",
        Language::Rust => "resumed 1",
    };
    reader.wait_to_say(resumed, 1).await;

    // The next broker does not know the session.
    lab.kill("broker1").await.unwrap();
    let times = match language {
        Language::Python => 2,
        // It says so of the resumed session too.
        Language::Rust => 3,
    };
    subscribed(language, &reader, times).await;
    say(&lab, 3, "numbers/on-the-next-broker");
    reader.wait_for_lines(2).await;
    assert_eq!(
        reader.lines(),
        ["numbers/while-cut-off\tx", "numbers/on-the-next-broker\tx"]
    );
    reader.kill();
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn python_resumes_its_session_and_subscribes_again_where_there_is_none() {
    session(Language::Python).await;
}

#[tokio::test]
async fn rust_resumes_its_session_and_subscribes_again_where_there_is_none() {
    session(Language::Rust).await;
}

#[tokio::test]
async fn a_message_to_ourselves() {
    let broker = support::Stock::start(|_| "allow_anonymous true".to_owned()).await;
    let hello = mesh_lab::own_program("examples/hello").unwrap();
    let mut hello = Program::start(Command::new(hello).arg(broker.port()), broker.folder(), "hello");
    hello.succeeded().await;
    assert_eq!(hello.lines(), ["hello/world: It is me"]);
}
