//! `[logs]` and `[[logs.source]]`: what mesh-logs reads, where it stores it, and how much is kept.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_model::{BrokerId, Topology};

use super::reader::{Reader, Section};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// As the durations of `mesh.toml` count it.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// Stands in a journal's command for the option by which it goes on where it ended.
const AFTER: &str = "{after}";

/// `[logs]`: what mesh-logs reads and how much is kept.
#[derive(Debug, Clone)]
pub struct Logs {
    /// Where it answers.
    pub listen: SocketAddr,
    /// The database.
    pub database: PathBuf,
    /// How often files are looked at for new lines.
    pub poll_interval: Duration,
    /// How long lines wait for others to be stored with.
    pub batch_delay: Duration,
    /// How long a rotated file is still read after the last line came.
    pub rotation_grace: Duration,
    /// For how long lines are kept.
    pub keep_age: Duration,
    /// In how many bytes of database lines are kept.
    pub keep_bytes: u64,
    /// What is read.
    pub sources: Vec<LogSource>,
}

/// One entry of `[[logs.source]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSource {
    /// Its name, which no other source has.
    pub name: String,
    /// Where the lines are.
    pub kind: SourceKind,
    /// Who writes them.
    pub format: LogFormat,
    /// The machine that writes them.
    pub node: Option<String>,
    /// The broker that writes them.
    pub broker: Option<BrokerId>,
    /// The program that writes them, where lines do not say.
    pub service: Option<String>,
}

/// Where lines are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// In files; a pattern as shells have them.
    File(PathBuf),
    /// In what this command prints, in the form of `journalctl -o json`; it contains `{after}`.
    Journal(String),
    /// In the topics below `$SYS/broker/log/` of this broker.
    Mqtt(SocketAddr),
}

/// Who writes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Whoever each line looks like.
    Auto,
    /// Mosquitto.
    Mosquitto,
    /// Nginx: its error log, and its access log as the rendered configuration writes it.
    Nginx,
    /// Our own daemons.
    Mesh,
    /// Somebody else.
    Plain,
}

pub(super) fn read(reader: &mut Reader, topology: Option<&Topology>) -> Logs {
    let mut s = reader.section("logs");
    let mut logs = Logs {
        listen: s.address(
            "listen",
            ([127, 0, 0, 1], 3002).into(),
            "where mesh-logs answers `/healthz` and `/metrics`",
        ),
        database: s.path(
            "database",
            "/var/lib/mesh/mesh.db",
            "the SQLite database with all lines; mesh-logs writes it, others read it",
        ),
        poll_interval: s.duration(
            "poll_interval",
            "50ms",
            MS..=10 * SECOND,
            "how often files are looked at for new lines",
        ),
        batch_delay: s.duration(
            "batch_delay",
            "100ms",
            MS..=10 * SECOND,
            "how long lines wait for others to be stored together with",
        ),
        rotation_grace: s.duration(
            "rotation_grace",
            "500ms",
            MS..=600 * SECOND,
            "how long a rotated file is still read after its last line, since its writer may not have noticed yet",
        ),
        keep_age: s.duration(
            "keep_age",
            "30days",
            SECOND..=10 * YEAR,
            "lines that are older are deleted",
        ),
        keep_bytes: s.number(
            "keep_bytes",
            10_000_000_000,
            10_000_000..=1_000_000_000_000_000,
            "when the database has more bytes in use, the oldest lines are deleted",
        ),
        sources: Vec::new(),
    };
    let mut index = 0;
    let sources = reader.list("logs.source", |section| {
        index += 1;
        source(section, topology)
    });
    let mut names = BTreeSet::new();
    for (index, source) in sources.into_iter().enumerate() {
        let Some(source) = source else { continue };
        if names.insert(source.name.clone()) {
            logs.sources.push(source);
        } else {
            let message = format!("{:?} is the name of another source already", source.name);
            reader.problem(&format!("logs.source[{index}].name"), message);
        }
    }
    logs
}

/// What kind a source is of.
#[derive(Clone, Copy)]
enum Kind {
    File,
    Journal,
    Mqtt,
}

fn source(s: &mut Section<'_>, topology: Option<&Topology>) -> Option<LogSource> {
    let name = s.required::<String>("name", "text", "name of the source; no two have the same");
    let kind = s.choice(
        "kind",
        &[
            ("file", Kind::File),
            ("journal", Kind::Journal),
            ("mqtt", Kind::Mqtt),
        ],
        0,
        "where lines are: in files, in what a command prints, or under `$SYS/broker/log/` of `broker`",
    );
    let path = s.optional_path(
        "path",
        "file: a path, also with `*`; its rotated predecessors are found by themselves",
    );
    let command = s.optional_parsed::<String>(
        "command",
        "text",
        "journal: a shell's command that prints as `journalctl -o json -f {after}` does, also over ssh; `{after}` becomes \
         the option by which it goes on where it ended",
    );
    let format = s.choice(
        "format",
        &[
            ("auto", LogFormat::Auto),
            ("mosquitto", LogFormat::Mosquitto),
            ("nginx", LogFormat::Nginx),
            ("mesh", LogFormat::Mesh),
            ("plain", LogFormat::Plain),
        ],
        0,
        "who writes the lines",
    );
    let node = s.optional_parsed::<String>("node", "text", "the machine that writes them");
    let broker = s.optional_parsed::<BrokerId>("broker", "id of a broker", "the broker that writes them");
    let service = s.optional_parsed::<String>(
        "service",
        "text",
        "the program that writes them, where lines do not say",
    );
    let known = broker.as_ref().and_then(|id| topology?.get(id));
    if let (Some(id), Some(_), None) = (&broker, topology, known) {
        s.problem("broker", format!("there is no broker {id}"));
        return None;
    }
    let kind = match kind {
        Kind::File => path
            .map(SourceKind::File)
            .ok_or(("path", "must be given for files")),
        Kind::Journal => match command {
            Some(command) if command.contains(AFTER) => Ok(SourceKind::Journal(command)),
            Some(_) => Err((
                "command",
                "must contain {after}, e.g. \"journalctl -o json -f {after}\"",
            )),
            None => Err(("command", "must be given for a journal")),
        },
        Kind::Mqtt => match (known, topology) {
            (Some(broker), _) => Ok(SourceKind::Mqtt(broker.address)),
            (None, None) => return None,
            (None, Some(_)) => Err(("broker", "must be given for mqtt")),
        },
    };
    let kind = kind.map_err(|(name, message)| s.problem(name, message)).ok()?;
    Some(LogSource {
        name: name?,
        kind,
        format,
        node,
        broker,
        service,
    })
}
