//! Lines of Mosquitto, Nginx and our own daemons.
//!
//! A parser never refuses a line: what it does not understand is kept whole as the body and counted. Client ids, user
//! names and topics are hostile, so lines that contain them are read from the right, where only the program writes.

mod mosquitto;
mod nginx;
pub(super) mod own;
mod time;

use std::sync::Arc;

use jiff::tz::TimeZone;
use mesh_model::{Attributes, LogRecord, Severity};
use serde_json::{Map, Value};

use super::fact::Fact;
pub use mosquitto::Message;
use time::Clock;

/// Who writes the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Whoever the line looks like.
    #[default]
    Auto,
    /// Mosquitto.
    Mosquitto,
    /// Nginx: its error log, and its access log as JSON.
    Nginx,
    /// Our own daemons.
    Mesh,
    /// Somebody else: every line is a body.
    Plain,
}

/// Where lines come from.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The machine.
    pub node: Option<Arc<str>>,
    /// The broker.
    pub broker: Option<Arc<str>>,
    /// The program, where lines do not say.
    pub service: Option<Arc<str>>,
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The record.
    pub record: LogRecord,
    /// What it tells beside.
    pub fact: Option<Box<Fact>>,
    /// Whether a parser knew what to do with it.
    pub understood: bool,
}

/// Makes records of lines; see the module.
#[derive(Debug)]
pub struct Parser {
    format: Format,
    place: Place,
    clock: Clock,
    services: Services,
}

/// The names of services that lines do not tell.
#[derive(Debug)]
struct Services {
    mosquitto: Arc<str>,
    nginx: Arc<str>,
    unknown: Arc<str>,
}

impl Parser {
    /// A parser of lines in `format` that come from `place`; times without a zone are times of `zone`.
    pub fn new(format: Format, place: Place, zone: TimeZone) -> Self {
        let service = |name: &str| place.service.clone().unwrap_or_else(|| name.into());
        Self {
            format,
            services: Services {
                mosquitto: service("mosquitto"),
                nginx: service("nginx"),
                unknown: service("unknown"),
            },
            place,
            clock: Clock::new(zone),
        }
    }

    /// Makes a record of `line`, which was read at `read_ns` and has no newline at its end.
    pub fn parse(&mut self, line: &[u8], read_ns: i64) -> Parsed {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match std::str::from_utf8(line) {
            Ok(text) => self.parse_text(text, read_ns),
            Err(_) => {
                let mut parsed = self.parse_text(&String::from_utf8_lossy(line), read_ns);
                parsed.record.attributes.set("log.invalid_utf8", true);
                parsed
            }
        }
    }

    fn parse_text(&mut self, line: &str, read_ns: i64) -> Parsed {
        let format = match self.format {
            Format::Auto => guess(line),
            known => known,
        };
        let parsed = match format {
            Format::Nginx => nginx::parse(self, line),
            Format::Mesh => own::parse(self, line),
            Format::Mosquitto => mosquitto::parse(self, line),
            Format::Auto | Format::Plain => None,
        };
        parsed.unwrap_or_else(|| Parsed {
            understood: self.format == Format::Plain,
            ..self.plain(line, read_ns)
        })
    }

    /// A line of which only is known where it comes from.
    fn plain(&self, body: &str, time_ns: i64) -> Parsed {
        Parsed {
            record: LogRecord {
                time_ns,
                severity: Severity::INFO,
                body: body.to_owned(),
                attributes: Attributes::default(),
                event: None,
                node: self.place.node.clone(),
                broker: self.place.broker.clone(),
                service: Arc::clone(&self.services.unknown),
                client_id: None,
            },
            fact: None,
            understood: true,
        }
    }

    /// Makes a record of the fields that a daemon of ours gave to journald; `None` if it is not one, or is not asked for.
    pub(super) fn parse_fields(
        &self,
        fields: Map<String, Value>,
        identifier: Option<&str>,
        severity: Severity,
        time_ns: i64,
    ) -> Option<Parsed> {
        let is_asked_for = matches!(self.format, Format::Auto | Format::Mesh);
        let is_ours = identifier.is_some_and(|identifier| identifier.starts_with("mesh-"));
        let target = fields.get("target").and_then(Value::as_str).map(str::to_owned)?;
        (is_asked_for && is_ours).then(|| {
            let mut parsed = own::of_fields(self, time_ns, severity, fields, &target);
            // The journal knows the program also where a library of ours spoke.
            if let (None, Some(identifier)) = (&self.place.service, identifier) {
                parsed.record.service = identifier.into();
            }
            parsed
        })
    }

    /// Makes a record of a message of the program `identifier` that came with its own time, e.g. from journald.
    pub(super) fn parse_message(&mut self, message: &str, identifier: Option<&str>, time_ns: i64) -> Parsed {
        let mut parsed = self.parse_text(message, time_ns);
        let is_mosquitto = match self.format {
            Format::Mosquitto => true,
            Format::Auto => identifier == Some("mosquitto"),
            _ => false,
        };
        if !parsed.understood && is_mosquitto {
            // Under systemd Mosquitto may write without times.
            parsed = mosquitto::parse_body(self, message, time_ns);
        }
        parsed.record.time_ns = time_ns;
        parsed
    }
}

/// Whose line this looks like.
fn guess(line: &str) -> Format {
    let bytes = line.as_bytes();
    match bytes.first() {
        Some(b'{') if line.starts_with("{\"time\":") => Format::Nginx,
        Some(b'{') => Format::Mesh,
        Some(b'0'..=b'9') if bytes.get(4) == Some(&b'/') => Format::Nginx,
        Some(b'0'..=b'9') => Format::Mosquitto,
        _ => Format::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_understands_is_kept_whole_and_counted() {
        let mut parser = Parser::new(Format::Auto, Place::default(), TimeZone::UTC);
        for line in ["{\"half\": ", "2026/13/99 x", "17: ", "\u{0} odd", ""] {
            let parsed = parser.parse(line.as_bytes(), 7);
            assert_eq!((parsed.record.body.as_str(), parsed.record.time_ns), (line, 7));
            assert!(parsed.fact.is_none());
        }
        let parsed = parser.parse(b"\xff\xfe odd\r", 7);
        assert_eq!(parsed.record.body, "\u{fffd}\u{fffd} odd");
        assert!(parsed.record.attributes.get("log.invalid_utf8").is_some());
    }
}
