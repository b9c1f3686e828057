//! The examples of both languages as programs to run, and a broker on its own.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use mesh_lab::ports::PortBlock;
use mesh_lab::{own_program, system_program, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// For what must happen. Generous, since tests share two cores.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// In which language the examples are.
#[derive(Debug, Clone, Copy)]
pub enum Language {
    Python,
    Rust,
}

impl Language {
    pub fn publisher(self) -> Command {
        self.example("publish", "publisher.py")
    }

    pub fn subscriber(self) -> Command {
        self.example("subscribe", "subscriber.py")
    }

    fn example(self, subcommand: &str, script: &str) -> Command {
        match self {
            Self::Rust => {
                let program = own_program("examples/numbers").unwrap_or_else(|error| panic!("{error}"));
                let mut command = Command::new(program);
                command.arg(subcommand);
                command
            }
            Self::Python => {
                let mut command = Command::new(python());
                command.arg(examples().join(script));
                command
            }
        }
    }
}

/// Where the Python examples are.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../client-examples/python")
}

/// The interpreter that has what `requirements.txt` asks for.
pub fn python() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/TEST
    let target = test.ancestors().nth(3).unwrap();
    let python = target.join("python-clients/bin/python");
    assert!(
        python.exists(),
        "{} is missing; ./deploy/run-tests.sh makes it, or: python3 -m venv {} && {}/bin/pip install -r {}",
        python.display(),
        target.join("python-clients").display(),
        target.join("python-clients").display(),
        examples().join("requirements.txt").display()
    );
    python
}

/// A program that is killed when this is dropped; what it says is in files.
pub struct Program {
    child: Child,
    name: String,
    folder: PathBuf,
}

impl Program {
    pub fn start(command: &mut Command, folder: &Path, name: &str) -> Self {
        let file = |kind: &str| File::create(folder.join(format!("{name}.{kind}"))).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self {
            child,
            name: name.to_owned(),
            folder: folder.to_owned(),
        }
    }

    /// The lines on its standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.text("out").lines().map(str::to_owned).collect()
    }

    /// What it has said on its standard error so far.
    pub fn said(&self) -> String {
        self.text("err")
    }

    fn text(&self, kind: &str) -> String {
        let path = self.folder.join(format!("{}.{kind}", self.name));
        String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("end of {}", self.name);
        let end = wait_until(&what, PATIENCE, async || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err(format!("{} lines; it says: {}", self.lines().len(), self.said())),
        });
        end.await.unwrap_or_else(|late| panic!("{late}"))
    }

    /// Waits until it has ended with exit code 0.
    pub async fn succeeded(&mut self) {
        let status = self.ended().await;
        assert!(status.success(), "{}: {status}: {}", self.name, self.said());
    }

    /// Waits until its standard output has at least `count` lines.
    pub async fn wait_for_lines(&self, count: usize) {
        let what = format!("{count} lines of {}", self.name);
        let lines = wait_until(&what, PATIENCE, async || match self.lines().len() {
            found if found >= count => Ok(()),
            found => Err(format!("{found} lines; it says: {}", self.said())),
        });
        lines.await.unwrap_or_else(|late| panic!("{late}"));
    }

    /// Waits until its standard error has `text` at least `times` times.
    pub async fn wait_to_say(&self, text: &str, times: usize) {
        let what = format!("{} to say {text:?} {times} times", self.name);
        let said = wait_until(&what, PATIENCE, async || {
            let said = self.said();
            if said.matches(text).count() >= times {
                Ok(())
            } else {
                Err(said)
            }
        });
        said.await.unwrap_or_else(|late| panic!("{late}"));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A broker without plugin, with its files in a folder of its own.
pub struct Stock {
    _program: Program,
    address: SocketAddr,
    folder: TempDir,
    _ports: PortBlock,
}

impl Stock {
    /// Starts it with a listener and what `lines` makes of its folder.
    pub async fn start(lines: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = PortBlock::reserve().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.base()));
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let conf = folder.path().join("mosquitto.conf");
        let lines = lines(folder.path());
        let text = format!(
            "user {}\nlistener {} 127.0.0.1\n{lines}\n",
            user.trim(),
            address.port()
        );
        std::fs::write(&conf, text).unwrap();
        let mosquitto = system_program("mosquitto", "install it").unwrap();
        let program = Program::start(
            Command::new(mosquitto).arg("-c").arg(&conf),
            folder.path(),
            "broker",
        );
        let listens = wait_until("a listening broker", PATIENCE, async || {
            let stream = tokio::net::TcpStream::connect(address).await;
            stream.map(drop).map_err(|_| program.said())
        });
        listens.await.unwrap_or_else(|late| panic!("{late}"));
        Self {
            _program: program,
            address,
            folder,
            _ports: ports,
        }
    }

    pub fn port(&self) -> String {
        self.address.port().to_string()
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Runs a tool that must succeed.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{program} is installed: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {} {said}", output.status);
}
