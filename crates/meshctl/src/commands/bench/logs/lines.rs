//! Files as the programs of a mesh write them: lines of five brokers, of Nginx and of mesh-health, in the forms and with
//! the frequencies of a mesh with clients that come and go.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

const BROKERS: usize = 5;

/// Files of lines that grow.
pub(super) struct Lines {
    folder: PathBuf,
    files: Vec<BufWriter<File>>,
    count: u64,
    bytes: u64,
    random: u64,
    client: u64,
}

const NAMES: [&str; BROKERS + 3] = [
    "broker1",
    "broker2",
    "broker3",
    "broker4",
    "broker5",
    "nginx-error",
    "nginx-access",
    "mesh-health",
];

impl Lines {
    pub(super) fn new(folder: &Path) -> std::io::Result<Self> {
        let open = |name: &&str| {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(folder.join(format!("{name}.log")))?;
            Ok(BufWriter::with_capacity(1 << 20, file))
        };
        Ok(Self {
            folder: folder.to_owned(),
            files: NAMES.iter().map(open).collect::<std::io::Result<_>>()?,
            count: 0,
            bytes: 0,
            random: 0x2545_f491_4f6c_dd1d,
            client: 0,
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        NAMES
            .iter()
            .map(|name| self.folder.join(format!("{name}.log")))
            .collect()
    }

    /// The sources as `mesh.toml` names them.
    pub(super) fn sources(&self) -> String {
        let mut text = String::new();
        for (name, path) in NAMES.iter().zip(self.paths()) {
            let broker = if name.starts_with("broker") {
                format!("broker = \"{name}\"\n")
            } else {
                String::new()
            };
            write!(
                text,
                "[[logs.source]]\nname = \"{name}\"\npath = \"{}\"\n{broker}\n",
                path.display()
            )
            .expect("writing to a string cannot fail");
        }
        text
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Adds lines until there are `count`, about a thousand a second of the time that they tell.
    pub(super) fn extend_to(&mut self, count: u64) -> std::io::Result<()> {
        while self.count < count {
            let ns = 1_790_000_000_000_000_000 + i128::from(self.count) * 1_000_000;
            let time = Timestamp::from_nanosecond(ns).unwrap_or_default();
            self.session(time, count)?;
        }
        self.files.iter_mut().try_for_each(BufWriter::flush)
    }

    fn add(&mut self, file: usize, line: &str, most: u64) -> std::io::Result<()> {
        if self.count < most {
            self.files[file].write_all(line.as_bytes())?;
            self.files[file].write_all(b"\n")?;
            self.count += 1;
            self.bytes += line.len() as u64 + 1;
        }
        Ok(())
    }

    /// A client that comes through the balancer, and what else happens meanwhile.
    fn session(&mut self, time: Timestamp, most: u64) -> std::io::Result<()> {
        let local = time.to_zoned(TimeZone::system());
        let iso = local.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        let slashed = local.strftime("%Y/%m/%d %H:%M:%S").to_string();
        let number = self.client;
        self.client += 1;
        let broker = self.below(BROKERS as u64) as usize;
        // One of them comes often, so that a short run has it too.
        let client = match self.below(100) {
            0 => 17,
            _ => self.below(20_000),
        };
        let client = format!("sensor-{client}");
        let (port, proxy) = (1024 + self.below(60_000), 1024 + self.below(60_000));
        let remote = format!("192.168.{}.{}:{port}", self.below(250), self.below(250));
        let (seen, upstream) = (
            format!("127.0.0.2:{proxy}"),
            format!("127.0.0.1:{}", 18_831 + broker),
        );
        let (nginx, access, health) = (BROKERS, BROKERS + 1, BROKERS + 2);
        let head = format!("{slashed} [info] 7902#7902: *{number}");
        self.add(
            nginx,
            &format!("{head} client {remote} connected to 0.0.0.0:1883"),
            most,
        )?;
        self.add(
            nginx,
            &format!("{head} proxy {seen} connected to {upstream}"),
            most,
        )?;
        self.add(
            broker,
            &format!("{iso}: New connection from {seen} on port {}.", 18_831 + broker),
            most,
        )?;
        let user = if number.is_multiple_of(3) {
            ", u'plant'"
        } else {
            ""
        };
        let line = format!(
            "{iso}: New client connected from {seen} as {client} (p{}, c1, k60{user}).",
            2 + number % 2 * 3
        );
        self.add(broker, &line, most)?;
        let line = match number % 50 {
            0 => format!("{iso}: Client {client} has exceeded timeout, disconnecting."),
            1 => format!("{iso}: Client {client} disconnected due to protocol error."),
            2..20 => format!("{iso}: Client {client} closed its connection."),
            _ => format!("{iso}: Client {client} disconnected."),
        };
        self.add(broker, &line, most)?;
        let ended = "client disconnected, bytes from/to client:65/9, bytes from/to upstream:9/65";
        self.add(nginx, &format!("{head} {ended}"), most)?;
        let (ip, port) = remote.split_once(':').unwrap_or_default();
        let line = format!(
            "{{\"time\":\"{iso}+00:00\",\"msec\":{:.3},\"connection\":{number},\"remote_addr\":\"{ip}\",\"remote_port\":\"{port}\",\
             \"upstream_addr\":\"{upstream}\",\"status\":200,\"session_time\":1.{:03},\"bytes_received\":65,\"bytes_sent\":9}}",
            time.as_millisecond() as f64 / 1000.0,
            number % 1000,
        );
        self.add(access, &line, most)?;
        if number.is_multiple_of(20) {
            let other = (broker + 1) % BROKERS;
            let line = format!(
                "{{\"timestamp\":\"{time:.6}\",\"level\":\"WARN\",\"fields\":{{\"message\":\"link.down\",\"event\":\"link.down\",\
                 \"from\":\"broker{}\",\"to\":\"broker{}\",\"elapsed_ms\":2500.0}},\"target\":\"mesh_health::shell::driver\"}}",
                broker + 1,
                other + 1,
            );
            self.add(health, &line, most)?;
            let line = format!(
                "{iso}: Error: Unable to open pwfile \"/etc/mosquitto/passwd\": No such file, request {number}."
            );
            self.add(other, &line, most)?;
        }
        if number == 40_000 {
            let line = format!("{iso}: Bad socket read/write on client {client}: Broken pipe");
            self.add(broker, &line, most)?;
        }
        Ok(())
    }
}
