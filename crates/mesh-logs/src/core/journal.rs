//! journald's entries, as `journalctl -o json` prints them: one JSON object a line.

use mesh_model::Severity;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::parse::{Parsed, Parser};

/// The fields that are needed. A field with bytes that are no text is a list of numbers; one that is too long is null.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime_us: String,
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "PRIORITY", default)]
    priority: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Value,
    #[serde(rename = "_SYSTEMD_UNIT", default)]
    unit: Value,
    #[serde(rename = "_HOSTNAME", default)]
    host: Value,
    /// What the program told beside, in capitals, and what journald knows of it.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Fields that journald and its clients add to what a program tells.
const ADDED: [&str; 4] = ["_", "SYSLOG_", "CODE_", "INVOCATION_"];

impl Entry {
    /// What a daemon of ours told, by the names that it has in the code.
    fn told(&self) -> Map<String, Value> {
        let is_added = |name: &str| ADDED.iter().any(|prefix| name.starts_with(prefix));
        let mut fields: Map<String, Value> = self
            .others
            .iter()
            .filter(|(name, _)| !is_added(name))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
            .collect();
        fields.insert("message".to_owned(), self.message.clone());
        fields
    }
}

/// Makes a record of one line of `journalctl -o json`, with the entry's cursor; `None` if it is no entry.
pub fn parse(parser: &mut Parser, line: &[u8]) -> Option<(String, Parsed)> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    if !is_cursor(&entry.cursor) {
        return None;
    }
    let time_ns = entry.realtime_us.parse::<i64>().ok()?.checked_mul(1000)?;
    if let Some(parsed) = of_ours(parser, &entry, time_ns) {
        return Some((entry.cursor, parsed));
    }
    let message = match &entry.message {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes
                .iter()
                .filter_map(|byte| u8::try_from(byte.as_u64()?).ok())
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    let mut parsed = parser.parse_message(&message, entry.identifier.as_str(), time_ns);
    let record = &mut parsed.record;
    if &*record.service == "unknown" {
        if let Some(identifier) = entry.identifier.as_str() {
            record.service = identifier.into();
        }
        parsed.understood = entry.message.is_string();
    }
    // What a service merely prints has priority 6; anything graver was meant.
    if let Some(severity) = entry.priority.as_str().and_then(of_priority) {
        record.severity = record.severity.max(severity);
    }
    if record.node.is_none() {
        record.node = entry.host.as_str().map(Into::into);
    }
    if let Some(unit) = entry.unit.as_str() {
        record.attributes.set("unit", unit);
    }
    Some((entry.cursor, parsed))
}

/// What one of our daemons told: with `TARGET` its other fields are those of the code. What it merely printed has none.
fn of_ours(parser: &Parser, entry: &Entry, time_ns: i64) -> Option<Parsed> {
    if !entry.others.contains_key("TARGET") {
        return None;
    }
    let severity = match entry.priority.as_str() {
        Some("6") => Severity::INFO,
        Some("7") => Severity::DEBUG,
        priority => priority.and_then(of_priority).unwrap_or(Severity::INFO),
    };
    let mut parsed = parser.parse_fields(entry.told(), entry.identifier.as_str(), severity, time_ns)?;
    let record = &mut parsed.record;
    if record.node.is_none() {
        record.node = entry.host.as_str().map(Into::into);
    }
    Some(parsed)
}

fn of_priority(text: &str) -> Option<Severity> {
    Some(match text {
        "0" | "1" => Severity::FATAL,
        "2" => Severity::CRITICAL,
        "3" => Severity::ERROR,
        "4" => Severity::WARN,
        "5" => Severity::NOTICE,
        _ => return None,
    })
}

/// Whether a text is a cursor and can stand in a shell's command between single quotes.
pub fn is_cursor(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b';' | b'-' | b'_' | b'.' | b':');
    !text.is_empty() && text.len() < 1024 && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Fact;
    use crate::core::parse::{Format, Place};
    use jiff::tz::TimeZone;

    #[test]
    fn entries_keep_their_time_and_bytes_become_text() {
        let mut parser = Parser::new(Format::Auto, Place::default(), TimeZone::UTC);
        let line = br#"{"__CURSOR":"s=a;i=1","__REALTIME_TIMESTAMP":"1700000000123456","MESSAGE":"2023-11-14T22:13:20: Client a disconnected.","PRIORITY":"6","_HOSTNAME":"vm1","_SYSTEMD_UNIT":"mosquitto.service"}"#;
        let (cursor, parsed) = parse(&mut parser, line).unwrap();
        assert_eq!(cursor, "s=a;i=1");
        assert_eq!(parsed.record.time_ns, 1_700_000_000_123_456_000);
        assert_eq!(parsed.record.body, "Client a disconnected.");
        assert_eq!(parsed.record.node.as_deref(), Some("vm1"));
        assert_eq!(parsed.record.client_id.as_deref(), Some("a"));
        let line = br#"{"__CURSOR":"s=a;i=2","__REALTIME_TIMESTAMP":"1700000000123456","MESSAGE":[104,105,255],"PRIORITY":"3","SYSLOG_IDENTIFIER":"sshd"}"#;
        let (_, parsed) = parse(&mut parser, line).unwrap();
        assert_eq!(
            (parsed.record.body.as_str(), parsed.record.severity),
            ("hi\u{fffd}", Severity::ERROR)
        );
        assert_eq!(&*parsed.record.service, "sshd");
    }

    #[test]
    fn what_our_daemons_tell_in_fields_is_an_event_with_its_fields() {
        let mut parser = Parser::new(Format::Auto, Place::default(), TimeZone::UTC);
        let line = br#"{"__CURSOR":"s=a;i=1","__REALTIME_TIMESTAMP":"1700000000123456","MESSAGE":"broker.dead","PRIORITY":"4","SYSLOG_IDENTIFIER":"mesh-health","_HOSTNAME":"host","_SYSTEMD_UNIT":"mesh-health.service","TARGET":"mesh_health::shell::driver","CODE_LINE":"7","EVENT":"broker.dead","BROKER":"broker3","REASON":"refused","ELAPSED_MS":"1.5"}"#;
        let (_, parsed) = parse(&mut parser, line).unwrap();
        let record = &parsed.record;
        assert_eq!(record.event.as_deref(), Some("broker.dead"));
        assert_eq!(
            (record.broker.as_deref(), record.node.as_deref(), &*record.service),
            (Some("broker3"), Some("host"), "mesh-health")
        );
        assert_eq!(record.severity, Severity::WARN);
        let names: Vec<&str> = record.attributes.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["elapsed_ms", "reason", "target"]);
        let dead = Fact::BrokerDead {
            broker: "broker3".to_owned(),
            reason: "refused".to_owned(),
        };
        assert_eq!(*parsed.fact.unwrap(), dead);
        // Nobody else passes for one of them.
        let forged = String::from_utf8_lossy(line).replace("\"mesh-health\"", "\"sshd\"");
        let (_, parsed) = parse(&mut parser, forged.as_bytes()).unwrap();
        assert_eq!((parsed.record.event, parsed.fact), (None, None));
    }

    #[test]
    fn a_mosquitto_that_writes_no_times_is_understood_through_journald() {
        let mut parser = Parser::new(Format::Mosquitto, Place::default(), TimeZone::UTC);
        let line = br#"{"__CURSOR":"s=a;i=1","__REALTIME_TIMESTAMP":"1700000000123456","MESSAGE":"Client a closed its connection."}"#;
        let (_, parsed) = parse(&mut parser, line).unwrap();
        assert_eq!(parsed.record.event.as_deref(), Some("client.disconnected"));
    }

    #[test]
    fn no_cursor_reaches_a_shell_that_is_none() {
        assert!(is_cursor("s=6b;i=5a;b=0f;m=1;t=63;x=9c"));
        for text in ["", "s=1' ; rm -rf /", "$(x)", "a\nb"] {
            assert!(!is_cursor(text), "{text}");
        }
    }
}
