//! `meshctl import` on three configurations as people have them, and real brokers on what it wrote.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mesh_lab::ports::PortBlock;
use mesh_lab::{Lab, LabOptions, wait_until};
use mesh_runtime::Config;

const PATIENCE: Duration = Duration::from_secs(20);

/// A copy of a fixture, with its folder and `more` in the places of `@NAME@`.
struct Old {
    folder: tempfile::TempDir,
}

impl Old {
    fn new(fixture: &str, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/import")
            .join(fixture);
        let root = folder.path().join("mosquitto");
        copy(&source, &root, &|text| {
            let text = text.replace("@ROOT@", root.to_str().unwrap());
            more.iter().fold(text, |text, (name, value)| {
                text.replace(&format!("@{name}@"), value)
            })
        });
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("mosquitto")
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("mesh")
    }

    fn import(&self) -> Output {
        meshctl(&[
            "import",
            self.root().to_str().unwrap(),
            "--out",
            self.out().to_str().unwrap(),
        ])
    }

    /// Imports, and returns the account and the configuration, which `meshctl check` accepts.
    fn imported(&self) -> (String, Config) {
        let before = snapshot(&self.root());
        let output = self.import();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(snapshot(&self.root()), before, "nothing is written there");
        let mesh_toml = self.out().join("mesh.toml");
        let checked = meshctl(&["check", "--config", mesh_toml.to_str().unwrap()]);
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
        (text(&output.stdout), Config::load(&mesh_toml, [], &[]).unwrap())
    }

    fn written(&self, file: &str) -> String {
        let path = self.out().join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

fn copy(from: &Path, to: &Path, change: &impl Fn(String) -> String) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target, change);
        } else {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            std::fs::write(target, change(text)).unwrap();
        }
    }
}

/// Every file below `folder` with its content.
fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(snapshot(&path));
        } else {
            all.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

fn meshctl(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MESH_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks that the account has a line that begins with `word` and has all of `parts` in it.
fn told(account: &str, word: &str, parts: &[&str]) {
    let is = |line: &&str| line.starts_with(word) && parts.iter().all(|part| line.contains(part));
    assert!(
        account.lines().any(|line| is(&line)),
        "no line {word} … {parts:?} in\n{account}"
    );
}

/// Ends a broker when it is dropped.
struct Stock(Child);

impl Stock {
    /// Runs Mosquitto on a configuration as the user of this test, and waits until it listens.
    async fn run(conf: &Path, port: u16) -> Self {
        let program = mesh_lab::mosquitto_program().unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(conf)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let stock = Self(child.unwrap());
        wait_until("a listening broker", PATIENCE, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .map(drop)
        })
        .await
        .unwrap();
        stock
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // In order, so that it saves.
        Command::new("kill").arg(self.0.id().to_string()).status().ok();
        self.0.wait().ok();
    }
}

fn user_of_this_test() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    text(&output.stdout).trim().to_owned()
}

/// Whether `login` may publish; for MQTT 5 also what the rules say.
fn publish(port: u16, login: (&str, &str), topic: &str, message: &str, more: &[&str]) -> bool {
    let output = Command::new("mosquitto_pub")
        .args([
            "-V",
            "5",
            "-q",
            "1",
            "-p",
            &port.to_string(),
            "-u",
            login.0,
            "-P",
            login.1,
        ])
        .args(["-t", topic, "-m", message])
        .args(more)
        .output()
        .unwrap();
    // It ends well where rules forbid the topic, but says so.
    output.status.success() && !text(&output.stderr).contains("ot authorized")
}

/// What is retained below `filter`, a line of topic and message each, when `count` have come.
fn retained(port: u16, login: (&str, &str), filter: &str, count: usize) -> Vec<String> {
    let output = Command::new("mosquitto_sub")
        .args([
            "-p",
            &port.to_string(),
            "-u",
            login.0,
            "-P",
            login.1,
            "-t",
            filter,
            "-v",
        ])
        .args(["-C", &count.to_string(), "-W", "5"])
        .output()
        .unwrap();
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_home_moves_with_its_users_rules_and_retained_messages() {
    let ports = PortBlock::reserve().unwrap();
    let port = ports.base();
    let old = Old::new("home-assistant", &[("PORT", &format!("{port} 127.0.0.1"))]);
    // Started by root, it would else become somebody who may not write here.
    let user = format!("user {}\n", user_of_this_test());
    std::fs::write(old.root().join("conf.d/zz-user.conf"), user).unwrap();
    let home = ("homeassistant", "ha-secret");
    let stock = Stock::run(&old.root().join("mosquitto.conf"), port).await;
    let mut expected = Vec::new();
    for n in 0..50 {
        let topic = format!("zigbee2mqtt/lamp{n}");
        assert!(publish(
            port,
            ("zigbee2mqtt", "zigbee-secret"),
            &topic,
            "on",
            &["-r"]
        ));
        expected.push(format!("{topic} on"));
    }
    expected.sort();
    drop(stock);

    let (account, config) = old.imported();
    told(
        &account,
        "took",
        &["listener", "homeassistant.conf:2", &format!("127.0.0.1:{port}")],
    );
    told(&account, "took", &["allow_anonymous false"]);
    told(&account, "took", &["users of", ": 3, with"]);
    told(&account, "took", &["acl_file"]);
    told(&account, "took", &["autosave_interval 300"]);
    told(&account, "took", &["mosquitto.db", "broker1/mosquitto.db"]);
    told(&account, "changed", &["max_queued_messages 5000", "100000"]);
    told(&account, "kept", &["persistent_client_expiration 14d"]);
    told(&account, "left", &["log_dest", "mosquitto.conf:11"]);
    assert_eq!(config.balancer.listen.port(), port);
    assert_eq!(config.mosquitto.autosave_interval.as_secs(), 300);
    let first_database = old.out().join("{broker}/mosquitto.db");
    assert_eq!(config.mosquitto.first_database, Some(first_database));

    // As it is deployed, but that the machines are folders.
    let machines = old.folder.path().join("machines");
    for broker in ["broker1", "broker2", "broker3"] {
        std::fs::create_dir_all(machines.join(broker)).unwrap();
    }
    std::fs::copy(
        old.out().join("broker1/mosquitto.db"),
        machines.join("broker1/mosquitto.db"),
    )
    .unwrap();
    let lab = lab(
        &config,
        &format!("data_dir = \"{}/{{broker}}\"\n", machines.display()),
    )
    .await;
    for id in lab.config().topology.ids() {
        let port = lab.broker(id).port();
        wait_until("everything on every broker", PATIENCE, async || {
            match retained(port, home, "zigbee2mqtt/#", 50) {
                found if found == expected => Ok(()),
                found => Err(format!("{id} has {} of 50", found.len())),
            }
        })
        .await
        .unwrap();
        assert!(!publish(port, ("homeassistant", "wrong"), "t", "x", &[]));
        assert!(publish(port, ("tasmota", "plug-secret"), "tele/plug", "x", &[]));
        assert!(!publish(
            port,
            ("tasmota", "plug-secret"),
            "zigbee2mqtt/lamp1",
            "off",
            &[]
        ));
    }
    // A value of before is replaced, and one deleted, everywhere.
    let port = |place: usize| lab.broker(lab.config().topology.ids().nth(place).unwrap()).port();
    assert!(publish(port(1), home, "zigbee2mqtt/lamp0", "off", &["-r"]));
    let deleted = Command::new("mosquitto_pub")
        .args([
            "-q",
            "1",
            "-r",
            "-n",
            "-t",
            "zigbee2mqtt/lamp1",
            "-u",
            home.0,
            "-P",
            home.1,
        ])
        .args(["-p", &port(2).to_string()])
        .status();
    assert!(deleted.unwrap().success());
    expected.retain(|line| line != "zigbee2mqtt/lamp1 on");
    expected[0] = "zigbee2mqtt/lamp0 off".to_owned();
    for place in 0..3 {
        wait_until("the new state", PATIENCE, async || {
            match retained(port(place), home, "zigbee2mqtt/#", 49) {
                found if found == expected => Ok(()),
                found => Err(format!("{:?}", &found[..3.min(found.len())])),
            }
        })
        .await
        .unwrap();
    }
    lab.stop().await.unwrap();
}

/// Three brokers with the access control and own directives of `config`.
async fn lab(config: &Config, more: &str) -> Lab {
    let mosquitto = &config.mosquitto;
    let mut settings = format!(
        "[mosquitto]\nallow_anonymous = {}\n{more}",
        mosquitto.allow_anonymous
    );
    for (key, path) in [
        ("password_file", &mosquitto.password_file),
        ("acl_file", &mosquitto.acl_file),
        ("extra_dir", &mosquitto.extra_dir),
    ] {
        if let Some(path) = path {
            settings += &format!("{key} = \"{}\"\n", path.display());
        }
    }
    let options = LabOptions {
        brokers: 3,
        balancer: false,
        health: false,
        settings,
        ..LabOptions::default()
    };
    Lab::start(options).await.unwrap()
}

#[test]
fn tls_and_websockets_become_doors_of_the_balancer() {
    let old = Old::new("tls-websockets", &[]);
    let (account, config) = old.imported();
    let balancer = &config.balancer;
    assert_eq!(balancer.listen.to_string(), "127.0.0.1:1883");
    assert_eq!(balancer.tls.unwrap().to_string(), "0.0.0.0:8883");
    assert_eq!(balancer.websockets.unwrap().to_string(), "0.0.0.0:9001");
    assert_eq!(balancer.websockets_tls.unwrap().to_string(), "192.0.2.17:8084");
    for broker in config.topology.brokers() {
        let expected = (broker.address.ip(), 8083).into();
        assert_eq!(broker.websockets, Some(expected));
    }
    assert_eq!(
        old.written("certs/balancer.crt"),
        "fullchain of mqtt.example.org\n"
    );
    assert_eq!(old.written("certs/balancer.key"), "privkey of mqtt.example.org\n");
    assert!(old.written("users").starts_with("sensor:$7$101$"));
    for secret in ["certs/balancer.key", "users", "extra/broker1/bridges.conf"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(old.out().join(secret))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    assert_eq!(
        (
            config.mosquitto.max_inflight_messages,
            config.mosquitto.max_queued_messages
        ),
        (65_534, 100_000_000)
    );
    let own = "message_size_limit 1048576\nmax_keepalive 600\nallow_zero_length_clientid false\n";
    assert_eq!(old.written("extra/broker5/own.conf"), own);
    assert!(
        old.written("extra/broker1/bridges.conf")
            .contains("topic shadow/# both 1 \"\" $aws/things/gateway/\n")
    );
    assert!(!old.out().join("extra/broker2/bridges.conf").exists());
    told(
        &account,
        "kept",
        &["connection awsiot", "broker1's alone", "rootCA.pem"],
    );
    told(
        &account,
        "left",
        &["max_packet_size", "limits.conf:4", "message_size_limit"],
    );
    told(&account, "left", &["max_connections 2000", "tls.conf:6"]);
    told(&account, "left", &["http_dir", "Websockets.conf:9"]);
    told(&account, "left", &["mosquitto.db", "it is not there"]);
    assert!(!account.contains("broker1/mosquitto.db"), "{account}");

    let again = old.import();
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is not empty, and nothing is overwritten"));
    let inside = old.root().join("mesh");
    let refused = meshctl(&[
        "import",
        old.root().to_str().unwrap(),
        "--out",
        inside.to_str().unwrap(),
    ]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("where nothing is written"));
    assert!(!inside.exists());
}

#[tokio::test]
async fn what_a_mesh_cannot_have_is_left_and_nothing_is_opened_wider() {
    let ports = PortBlock::reserve().unwrap();
    let port = ports.base();
    let headquarters = format!("127.0.0.1:{port}");
    let old = Old::new("bridges-listeners", &[("HEADQUARTERS", &headquarters)]);
    let (account, config) = old.imported();
    told(
        &account,
        "changed",
        &["per_listener_settings true", "mosquitto.conf:2"],
    );
    told(
        &account,
        "changed",
        &["allow_anonymous true", "allow_anonymous = false", "plugin"],
    );
    told(&account, "changed", &["acl_file", "for clients of all listeners"]);
    told(&account, "left", &["phones.acl", "machines.acl are taken"]);
    told(
        &account,
        "left",
        &["listener 1883 127.0.0.1", "go to 0.0.0.0:1884"],
    );
    told(
        &account,
        "left",
        &["listener 0 /run/mosquitto/mosquitto.sock", "Unix socket"],
    );
    told(&account, "left", &["mount_point workshop/"]);
    told(&account, "left", &["require_certificate true", "password"]);
    told(&account, "left", &["the user mesh-link"]);
    told(
        &account,
        "kept",
        &["auth_plugin /usr/lib/mosquitto/go-auth.so", "rename it"],
    );
    told(&account, "kept", &["of_the_future yes", "will not start"]);
    told(&account, "changed", &["persistence false"]);
    assert!(!config.mosquitto.allow_anonymous);
    assert_eq!(
        old.written("users"),
        "lathe:x\nann:y\n",
        "of two with a name the first"
    );
    assert_eq!(
        old.written("extra/broker3/plugins.conf.off"),
        "auth_plugin /usr/lib/mosquitto/go-auth.so\nauth_opt_backends sqlite\n\
         auth_opt_sqlite_source /var/lib/mosquitto/auth.db\n"
    );

    // The bridge works on: what comes over it is on every broker once, and what any broker has goes out over it once.
    let own = old.out().join("extra");
    for broker in ["broker1", "broker2", "broker3"] {
        std::fs::write(own.join(broker).join("own.conf"), "queue_qos0_messages true\n").unwrap();
    }
    for (file, text) in [("users", ""), ("acl", "topic readwrite #\n")] {
        std::fs::write(old.out().join(file), text).unwrap();
    }
    let conf = old.folder.path().join("headquarters.conf");
    std::fs::write(
        &conf,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\n"),
    )
    .unwrap();
    let headquarters = Stock::run(&conf, port).await;
    let mut config = config;
    config.mosquitto.allow_anonymous = true;
    let lab = lab(&config, "").await;
    let headquarters_port = port;
    let ports: Vec<u16> = lab
        .config()
        .topology
        .ids()
        .map(|id| lab.broker(id).port())
        .collect();
    let folder = old.folder.path();
    let outside = Listener::begin(folder, port, "measured/#", ports[2]).await;
    let mut inside = Vec::new();
    for port in &ports {
        inside.push(Listener::begin(folder, *port, "orders/#", headquarters_port).await);
    }
    for (place, port) in ports.iter().enumerate() {
        anonymous(*port, &format!("measured/{place}"), "x");
    }
    outside
        .hears(&["measured/0 x", "measured/1 x", "measured/2 x"])
        .await;
    for n in 0..3 {
        anonymous(port, &format!("orders/{n}"), "x");
    }
    for listener in &inside {
        listener.hears(&["orders/0 x", "orders/1 x", "orders/2 x"]).await;
    }
    drop(inside);
    lab.stop().await.unwrap();
    drop(headquarters);
}

fn anonymous(port: u16, topic: &str, message: &str) {
    let status = Command::new("mosquitto_pub")
        .args(["-p", &port.to_string(), "-q", "1", "-t", topic, "-m", message])
        .status();
    assert!(status.unwrap().success());
}

/// A subscriber that writes into a file.
struct Listener {
    child: Child,
    file: PathBuf,
}

impl Listener {
    /// Begins to listen at `port`; returns when it hears what is published at `other`.
    async fn begin(folder: &Path, port: u16, filter: &str, other: u16) -> Self {
        let file = folder.join(format!("heard-{port}"));
        let child = Command::new("mosquitto_sub")
            .args(["-p", &port.to_string(), "-q", "1", "-v", "-t", filter])
            .stdout(std::fs::File::create(&file).unwrap())
            .spawn()
            .unwrap();
        let listener = Self { child, file };
        let topic = filter.replace('#', "begin");
        wait_until("a subscription", PATIENCE, async || {
            anonymous(other, &topic, "x");
            let heard = std::fs::read_to_string(&listener.file).unwrap();
            if heard.is_empty() {
                Err("nothing came")
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
        listener
    }

    /// Waits for `lines`, and checks that each comes once.
    async fn hears(&self, lines: &[&str]) {
        let heard = || {
            let text = std::fs::read_to_string(&self.file).unwrap();
            let mut heard: Vec<String> = text
                .lines()
                .filter(|line| !line.contains("begin"))
                .map(str::to_owned)
                .collect();
            heard.sort();
            heard
        };
        wait_until("messages", PATIENCE, async || {
            let heard = heard();
            if heard.len() >= lines.len() {
                Ok(())
            } else {
                Err(heard.join(", "))
            }
        })
        .await
        .unwrap();
        assert_eq!(heard(), lines);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn bad_input_is_told_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("mosquitto.conf");
    let out = folder.path().join("out");
    let import = |text: &str| {
        std::fs::write(&conf, text).unwrap();
        let output = meshctl(&["import", conf.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        assert!(!out.exists(), "nothing is written");
        (output.status.code(), text_of(&output))
    };
    let (code, said) =
        import("listener x\nallow_anonymous perhaps\nmax_queued_messages -1\n\npassword_file\ntopic # out\n");
    assert_eq!(code, Some(64), "{said}");
    for line in [
        "mosquitto.conf:5: password_file: has no value",
        "mosquitto.conf:6: topic: stands before any `connection`",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let (code, said) = import(
        "listener x\nallow_anonymous perhaps\nmax_queued_messages -1\npersistence maybe\npassword_file none\n",
    );
    assert_eq!(code, Some(64), "{said}");
    for line in [
        "mosquitto.conf:1: listener: \"x\" is no port",
        "mosquitto.conf:2: allow_anonymous: must be true or false",
        "mosquitto.conf:3: max_queued_messages: must be a whole number",
        "mosquitto.conf:4: persistence: must be true or false",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let (code, said) = import("password_file none\nacl_file nowhere\n");
    assert_eq!(code, Some(64), "{said}");
    assert!(
        said.contains("mosquitto.conf:1: password_file: cannot read"),
        "{said}"
    );
    assert!(said.contains("mosquitto.conf:2: acl_file: cannot read"), "{said}");
    let (code, said) = import("include_dir /nowhere\n");
    assert_eq!(code, Some(64), "{said}");
    std::fs::remove_file(&conf).unwrap();
    let output = meshctl(&["import", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));
}

fn text_of(output: &Output) -> String {
    text(&output.stderr)
}
