//! Mosquitto's own clients and tools: another implementation than ours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A file with a payload, for `mosquitto_pub -f`.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// `-n`: none at all.
    Nothing,
    /// `-f`: the content of a file.
    File(&'a Path),
}

/// Publishes one message with `mosquitto_pub` and waits until it is done.
pub async fn mosquitto_pub(
    address: SocketAddr,
    version: &str,
    topic: &str,
    qos: u8,
    retain: bool,
    payload: Payload<'_>,
) {
    let mut command = tokio::process::Command::new("mosquitto_pub");
    command.args([
        "-h",
        &address.ip().to_string(),
        "-p",
        &address.port().to_string(),
        "-V",
        version,
    ]);
    command.args(["-t", topic, "-q", &qos.to_string()]);
    if retain {
        command.arg("-r");
    }
    match payload {
        Payload::Nothing => command.arg("-n"),
        Payload::File(path) => command.arg("-f").arg(path),
    };
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .expect("mosquitto_pub is installed");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "mosquitto_pub -V {version} -t {topic} -q {qos}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A `mosquitto_sub` with a will; killed when dropped.
pub struct Mortal(Child);

impl Mortal {
    /// Starts it; the broker knows of the will once it has logged the client id.
    pub fn start(
        address: SocketAddr,
        version: &str,
        client_id: &str,
        will: &str,
        qos: u8,
        retain: bool,
    ) -> Self {
        let mut command = Command::new("mosquitto_sub");
        command.args([
            "-h",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
            "-V",
            version,
        ]);
        command.args(["-i", client_id, "-t", "nothing/comes/here"]);
        command.args([
            "--will-topic",
            will,
            "--will-payload",
            "gone",
            "--will-qos",
            &qos.to_string(),
        ]);
        if retain {
            command.arg("--will-retain");
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(child.expect("mosquitto_sub is installed"))
    }

    /// SIGSTOP: the connection stays, and nothing is answered any more.
    pub fn freeze(&self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("it runs"), Signal::STOP).expect("it takes a signal");
    }

    /// SIGKILL: the socket closes without a goodbye.
    pub fn die(mut self) {
        self.0.kill().expect("it still runs");
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs a tool that must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program} is installed: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {} {said}",
        output.status
    );
}

/// A `password_file` with these users, made by Mosquitto's own tool.
pub fn password_file(path: &Path, users: &[(&str, &str)]) {
    std::fs::write(path, "").expect("the folder can be written");
    for (name, password) in users {
        run(
            "mosquitto_passwd",
            &["-b", &path.to_string_lossy(), name, password],
        );
    }
}

/// The plugin that allows everyone everything: an example of mesh-plugin, built with all targets.
pub fn allow_all() -> String {
    built(&format!(
        "examples/{}allow_all{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    ))
}

/// mesh-plugin itself.
pub fn mesh_plugin() -> String {
    built(&format!(
        "{}mesh_plugin{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    ))
}

/// A file that cargo has built beside this test.
fn built(name: &str) -> String {
    let path = target().join(name);
    assert!(
        path.is_file(),
        "{} is missing; run: cargo build --workspace --all-targets",
        path.display()
    );
    path.to_string_lossy().into_owned()
}

/// Where cargo puts what it builds for this test: `target/PROFILE`.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a program knows where it is");
    let folder = test.parent().and_then(Path::parent);
    folder.expect("tests are in target/PROFILE/deps").to_owned()
}
