//! Real brokers and a real Nginx on free ports, and mesh-health in this process between them.
//!
//! The brokers have no plugin and no links: what mesh-health makes of a whole mesh is tested with mesh-lab.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mesh_lab::ports::PortBlock;
use mesh_model::{BrokerId, HealthStatus, Snapshot};
use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How long anything may take. Generous: tests judge order and content, not speed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `probe` gives something.
pub async fn wait_for<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    let found = poll(probe).await;
    found.unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

async fn poll<T>(mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe().await {
            None if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
            found => return found,
        }
    }
}

/// A child process that does not outlive the test.
pub struct Process(Child);

impl Process {
    fn spawn(program: &str, arguments: &[&str], log: &Path) -> Self {
        Self::spawn_with(program, arguments, &[], log)
    }

    fn spawn_with(program: &str, arguments: &[&str], env: &[(&str, &str)], log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
        Self(child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub fn children(&self) -> Vec<Pid> {
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let parse = |child: &str| Pid::from_raw(child.parse().unwrap()).unwrap();
        children.split_whitespace().map(parse).collect()
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to end, so that an Nginx takes its workers with it, and kills it if it does not.
    pub fn end(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        self.signal(Signal::TERM);
        // A stopped process hears nothing.
        self.signal(Signal::CONT);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while self.0.try_wait().is_ok_and(|status| status.is_none()) {
            if std::time::Instant::now() > deadline {
                self.0.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// mesh-health in this process.
pub struct Daemon {
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

pub struct Mesh {
    pub config: Config,
    pub brokers: Vec<Option<Process>>,
    pub nginx: Option<Process>,
    daemon: Option<Daemon>,
    secrets: Secrets,
    dir: TempDir,
    _block: PortBlock,
}

impl Mesh {
    /// Brokers `b1`, `b2`, … and Nginx; mesh-health is started by [`Self::watch`].
    pub async fn start(count: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("mesh-health-").tempdir().unwrap();
        // Not ports that the operating system gives away: those that a test's own servers get might be among them.
        let block = PortBlock::reserve().unwrap();
        let ports: Vec<u16> = (block.base()..).take(count + 3).collect();
        let path = dir.path().join("mesh.toml");
        fs::write(&path, settings(&ports)).unwrap();
        let config = Config::load(&path, [], &[]).unwrap();
        let secrets = Secrets::load_or_create(&config.security.secrets_dir).unwrap();
        fs::create_dir(&config.balancer.dir).unwrap();
        let mut mesh = Self {
            brokers: (0..count).map(|_| None).collect(),
            nginx: None,
            daemon: None,
            config,
            secrets,
            dir,
            _block: block,
        };
        let nginx = &mesh.config.balancer.dir;
        fs::write(
            nginx.join("nginx.conf"),
            mesh_render::nginx_conf(&mesh.config).unwrap(),
        )
        .unwrap();
        let first = mesh_render::first_plan(&mesh.config);
        let upstream = mesh_render::upstream_conf(&mesh.config, &first).unwrap();
        fs::write(nginx.join("upstream.conf"), upstream).unwrap();
        for n in 1..=count {
            mesh.start_broker(n).await;
        }
        mesh.start_nginx().await;
        mesh
    }

    /// Starts mesh-health and waits until all is well.
    pub async fn watched(count: usize) -> Self {
        let mut mesh = Self::start(count).await;
        mesh.watch().await;
        mesh.wait("all healthy", |s| {
            s.balancer.confirmed && s.brokers.iter().all(|b| b.health == HealthStatus::Healthy)
        })
        .await;
        mesh
    }

    pub async fn watch(&mut self) {
        let listener = TcpListener::bind(self.config.health.listen).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let run = mesh_health::run(self.config.clone(), self.secrets.clone(), listener, shutdown);
        let task = tokio::spawn(run);
        self.daemon = Some(Daemon { stop, task });
    }

    pub async fn unwatch(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.stop.send(()).unwrap();
        daemon.task.await.unwrap().unwrap();
    }

    /// mesh-health as a program of its own, with these variables.
    pub fn spawn_daemon(&self, env: &[(&str, &str)]) -> Process {
        let program = env!("CARGO_BIN_EXE_mesh-health");
        let arguments = ["--config", self.config.path.to_str().unwrap()];
        Process::spawn_with(program, &arguments, env, &self.daemon_log())
    }

    pub fn daemon_log(&self) -> PathBuf {
        self.dir.path().join("mesh-health.log")
    }

    pub async fn start_broker(&mut self, n: usize) {
        let address = self.address(n);
        let conf = self.dir.path().join(format!("b{n}.conf"));
        let text = format!(
            "listener {} {}\nallow_anonymous true\nsys_interval 1\nlog_dest stderr\n",
            address.port(),
            address.ip()
        );
        fs::write(&conf, text).unwrap();
        let process = Process::spawn("mosquitto", &["-c", conf.to_str().unwrap()], &self.broker_log(n));
        self.brokers[n - 1] = Some(process);
        wait_for("a broker listens", async || {
            TcpStream::connect(address).await.ok()
        })
        .await;
    }

    pub async fn start_nginx(&mut self) {
        let conf = self.config.balancer.dir.join("nginx.conf");
        let log = self.dir.path().join("nginx.log");
        self.nginx = Some(Process::spawn("nginx", &["-c", conf.to_str().unwrap()], &log));
        wait_for("Nginx tells its plan", async || self.read_back().await).await;
    }

    pub fn broker(&mut self, n: usize) -> &mut Process {
        self.brokers[n - 1].as_mut().unwrap()
    }

    pub fn address(&self, n: usize) -> SocketAddr {
        self.config.topology.brokers()[n - 1].address
    }

    pub fn broker_log(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("b{n}.log"))
    }

    pub fn upstream(&self) -> String {
        fs::read_to_string(self.config.balancer.dir.join("upstream.conf")).unwrap()
    }

    /// What Nginx answers at the read-back.
    pub async fn read_back(&self) -> Option<mesh_model::Plan> {
        let mut stream = TcpStream::connect(self.config.balancer.readback).await.ok()?;
        let mut line = String::new();
        stream.read_to_string(&mut line).await.ok()?;
        mesh_render::parse_read_back(&line).ok()
    }

    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        self.request("GET", path).await
    }

    pub async fn post(&self, path: &str) -> (u16, serde_json::Value) {
        let (status, body) = self.request("POST", path).await.expect("an answer");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    async fn request(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.config.health.listen).await.ok()?;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    pub async fn status(&self) -> Option<Snapshot> {
        let (_, body) = self.get("/v1/status").await?;
        Some(serde_json::from_str(&body).expect("a snapshot"))
    }

    /// Waits until the state is as `wanted`.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        if let Some(status) = poll(async || self.status().await.filter(&wanted)).await {
            return status;
        }
        let log = fs::read_to_string(self.daemon_log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].join("\n");
        let status = self.status().await;
        panic!("{what}: not within {PATIENCE:?}\nit says {status:#?}\nand logged last:\n{last}")
    }

    pub async fn wait_health(&self, n: usize, health: HealthStatus) -> Snapshot {
        let what = format!("b{n} is {health}");
        self.wait(&what, |snapshot| snapshot.brokers[n - 1].health == health)
            .await
    }

    /// Opens an event stream.
    pub async fn events(&self) -> Events {
        self.events_after("").await
    }

    /// Opens an event stream that goes on after this id.
    pub async fn events_after(&self, id: &str) -> Events {
        let mut stream = TcpStream::connect(self.config.health.listen).await.unwrap();
        let last = if id.is_empty() {
            String::new()
        } else {
            format!("Last-Event-ID: {id}\r\n")
        };
        let request = format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Events {
            stream: BufReader::new(stream),
            last_id: String::new(),
        }
    }
}

/// A reader of server-sent events.
pub struct Events {
    stream: BufReader<TcpStream>,
    /// The id that was told last.
    pub last_id: String,
}

impl Events {
    /// The next event's name and data; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<(String, serde_json::Value)> {
        let (mut name, mut data) = (String::new(), None);
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line)).await;
            if read.expect("an event in time").ok()? == 0 {
                return None;
            }
            if let Some(text) = line.strip_prefix("event: ") {
                name = text.trim().to_owned();
            }
            if let Some(text) = line.strip_prefix("id: ") {
                text.trim().clone_into(&mut self.last_id);
            }
            if let Some(text) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str(text.trim()).unwrap());
            }
            if line.trim().is_empty()
                && let Some(data) = data.take()
            {
                return Some((name, data));
            }
        }
    }

    /// The data of the next event called `name`, and the names of those before, but for links, which are all down
    /// here, and for the steps of incidents.
    pub async fn until(&mut self, name: &str) -> (serde_json::Value, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let (next, data) = self.next().await.expect("the stream goes on");
            if next == name {
                return (data, before);
            }
            if !next.starts_with("link.") && next != "incident.step" {
                before.push(next);
            }
        }
    }
}

pub fn id(n: usize) -> BrokerId {
    format!("b{n}").parse().unwrap()
}

fn settings(ports: &[u16]) -> String {
    let module = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"]
        .map(|folder| Path::new(folder).join("ngx_stream_module.so"))
        .into_iter()
        .find(|path| path.exists())
        .map(|path| format!("stream_module = {path:?}\n"))
        .unwrap_or_default();
    let brokers: String = ports[3..]
        .iter()
        .enumerate()
        .map(|(n, port)| {
            format!(
                "[[broker]]\nid = \"b{}\"\naddress = \"127.0.0.1:{port}\"\n",
                n + 1
            )
        })
        .collect();
    let user = if rustix::process::geteuid().is_root() {
        "user = \"root\"\n"
    } else {
        ""
    };
    format!(
        "{brokers}
[balancer]
listen = \"127.0.0.1:{}\"
readback = \"127.0.0.1:{}\"
dir = \"nginx\"
{module}{user}
[health]
listen = \"127.0.0.1:{}\"
probe_interval = \"100ms\"
round_trip_interval = \"300ms\"
recovery_time = \"500ms\"
recovery_time_max = \"1s\"
canary_interval = \"200ms\"
link_down_after = \"1s\"
",
        ports[0], ports[1], ports[2]
    )
}
