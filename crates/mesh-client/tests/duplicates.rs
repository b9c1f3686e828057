//! Duplicates, in both languages, and TLS and passwords, against a broker on its own: whoever publishes here writes
//! the stamps himself.

mod support;

use std::path::Path;

use support::{Language, Program, Stock, python, run};

/// Publishes `payload` with these user properties.
fn publish(broker: &Stock, payload: &str, properties: &[(&str, &str)]) {
    let port = broker.port();
    let mut arguments = vec![
        "-V",
        "mqttv5",
        "-p",
        &port,
        "-q",
        "1",
        "-t",
        "example/x",
        "-m",
        payload,
    ];
    for (name, value) in properties {
        arguments.extend(["-D", "PUBLISH", "user-property", name, value]);
    }
    run("mosquitto_pub", arguments);
}

async fn duplicates(language: Language) {
    let broker = Stock::start(|_| "allow_anonymous true".to_owned()).await;
    let mut command = language.subscriber();
    command.args([
        "--broker",
        &broker.address(),
        "--topic",
        "example/#",
        "--count",
        "7",
    ]);
    let mut subscriber = Program::start(&mut command, broker.folder(), "subscriber");
    let ready = match language {
        Language::Python => "Granted QoS 1",
        Language::Rust => "ready at",
    };
    subscriber.wait_to_say(ready, 1).await;

    publish(&broker, "stamped", &[("mesh", "1 broker1 a 1 ff 1")]);
    publish(&broker, "stamped again", &[("mesh", "1 broker1 a 1 ff 1")]);
    publish(&broker, "stamped, on request", &[("mesh", "1 broker1 a 1 ff s1")]);
    publish(&broker, "another epoch", &[("mesh", "1 broker1 b 1 ff 1")]);
    let forged = [("mesh", "1 broker1 b 1 ff 1"), ("mesh", "1 broker1 b 2 ff 1")];
    publish(&broker, "only the last stamp counts", &forged);
    publish(
        &broker,
        "with an id",
        &[("message-id", "p/1"), ("mesh", "1 broker1 b 3 ff 1")],
    );
    publish(
        &broker,
        "sent again",
        &[("message-id", "p/1"), ("mesh", "1 broker2 a 1 ff 1")],
    );
    publish(&broker, "no stamp", &[("mesh", "none")]);
    publish(&broker, "no stamp", &[("mesh", "none")]);
    publish(&broker, "nothing at all", &[]);
    subscriber.succeeded().await;
    let expected = [
        "stamped",
        "another epoch",
        "only the last stamp counts",
        "with an id",
        "no stamp",
        "no stamp",
        "nothing at all",
    ];
    assert_eq!(
        subscriber.lines(),
        expected.map(|payload| format!("example/x\t{payload}"))
    );
    assert!(
        subscriber.said().contains("3 duplicates dropped"),
        "{}",
        subscriber.said()
    );
}

#[tokio::test]
async fn python_drops_what_has_come_before() {
    duplicates(Language::Python).await;
}

#[tokio::test]
async fn rust_drops_what_has_come_before() {
    duplicates(Language::Rust).await;
}

/// A session of an earlier run is resumed, and what it lacks is subscribed.
async fn other_topics(language: Language) {
    let broker = Stock::start(|_| "allow_anonymous true".to_owned()).await;
    let start = |name: &str, topic: &str| {
        let mut command = language.subscriber();
        command.args([
            "--broker",
            &broker.address(),
            "--client-id",
            "reader",
            "--topic",
            topic,
        ]);
        Program::start(&mut command, broker.folder(), name)
    };
    let ready = match language {
        Language::Python => "Granted QoS 1",
        Language::Rust => "ready at",
    };
    let mut first = start("first", "another/topic");
    first.wait_to_say(ready, 1).await;
    first.kill();
    let second = start("second", "example/#");
    second.wait_to_say(ready, 1).await;
    publish(&broker, "new", &[]);
    second.wait_for_lines(1).await;
    assert!(second.said().contains("resumed"), "{}", second.said());
}

#[tokio::test]
async fn python_subscribes_to_what_a_resumed_session_lacks() {
    other_topics(Language::Python).await;
}

#[tokio::test]
async fn rust_subscribes_to_what_a_resumed_session_lacks() {
    other_topics(Language::Rust).await;
}

/// An authority, a certificate of 127.0.0.1 by it, and a user `alice` with the password `secret`.
fn secured(folder: &Path) -> String {
    let openssl = |command: &str| {
        let command = command.replace("FOLDER", &folder.to_string_lossy());
        run("openssl", command.split(' '));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout FOLDER/ca.key -out FOLDER/ca.crt",
    );
    openssl("req -newkey rsa:2048 -nodes -subj /CN=broker -keyout FOLDER/server.key -out FOLDER/server.csr");
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        "x509 -req -days 2 -in FOLDER/server.csr -CA FOLDER/ca.crt -CAkey FOLDER/ca.key -CAcreateserial \
         -extfile FOLDER/names -out FOLDER/server.crt",
    );
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    std::fs::write(path("passwords"), "").unwrap();
    run("mosquitto_passwd", ["-b", &path("passwords"), "alice", "secret"]);
    format!(
        "allow_anonymous false\npassword_file {}\ncertfile {}\nkeyfile {}",
        path("passwords"),
        path("server.crt"),
        path("server.key")
    )
}

async fn secure(language: Language) {
    let broker = Stock::start(secured).await;
    let address = broker.address();
    let certificate = broker.folder().join("ca.crt");
    let connect = |mut command: std::process::Command, password: &str| {
        command.env("MQTT_PASSWORD", password);
        command.args(["--broker", &address, "--username", "alice", "--ca-file"]);
        command.arg(&certificate);
        command
    };
    let refused = match language {
        Language::Python => "Not authorized",
        Language::Rust => "NotAuthorized",
    };
    let mut intruder = connect(language.subscriber(), "wrong");
    let intruder = Program::start(&mut intruder, broker.folder(), "intruder");
    intruder.wait_to_say(refused, 2).await;

    let mut command = connect(language.subscriber(), "secret");
    let mut subscriber = Program::start(command.args(["--count", "3"]), broker.folder(), "subscriber");
    let ready = match language {
        Language::Python => "Granted QoS 1",
        Language::Rust => "ready at",
    };
    subscriber.wait_to_say(ready, 1).await;
    let mut command = connect(language.publisher(), "secret");
    command.args(["--count", "3", "--rate", "100", "--outbox"]);
    let mut publisher = Program::start(
        command.arg(broker.folder().join("outbox.db")),
        broker.folder(),
        "publisher",
    );
    publisher.succeeded().await;
    subscriber.succeeded().await;
    assert!(intruder.lines().is_empty());
}

#[tokio::test]
async fn python_speaks_tls_and_logs_in() {
    secure(Language::Python).await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn rust_speaks_tls_and_logs_in() {
    secure(Language::Rust).await;
}

#[tokio::test]
async fn python_passes_the_checkers() {
    let python = python();
    let bin = python.parent().unwrap();
    let checks: [(&str, &[&str]); 3] = [
        ("mypy", &["."]),
        ("ruff", &["check", "--no-cache", "."]),
        ("ruff", &["format", "--no-cache", "--check", "."]),
    ];
    for (tool, arguments) in checks {
        let mut command = std::process::Command::new(bin.join(tool));
        command.args(arguments).current_dir(support::examples());
        // mypy's cache would else lie among the examples.
        let output = command
            .env("MYPY_CACHE_DIR", bin.with_file_name("mypy-cache"))
            .output();
        let output = output.unwrap_or_else(|error| panic!("{tool}: {error}"));
        assert!(
            output.status.success(),
            "{tool} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}
