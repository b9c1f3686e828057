//! The lines of our own daemons: JSON as tracing-subscriber writes it, or fields of the journal (see
//! `mesh_runtime::telemetry`).

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use mesh_model::event::field;
use mesh_model::{AttributeValue, Attributes, EventName, LogRecord, Severity};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Parsed, Parser};
use crate::core::fact::Fact;

#[derive(Deserialize)]
struct Line<'a> {
    timestamp: Cow<'a, str>,
    level: Cow<'a, str>,
    #[serde(default)]
    fields: Map<String, Value>,
    #[serde(default)]
    target: Cow<'a, str>,
}

pub(super) fn parse(parser: &Parser, line: &str) -> Option<Parsed> {
    let line: Line<'_> = serde_json::from_str(line).ok()?;
    let time: Timestamp = line.timestamp.parse().ok()?;
    let severity: Severity = line.level.parse().ok()?;
    let time_ns = i64::try_from(time.as_nanosecond()).ok()?;
    Some(of_fields(parser, time_ns, severity, line.fields, &line.target))
}

/// What the daemon with the module `target` told in these fields, the message among them.
pub(in crate::core) fn of_fields(
    parser: &Parser,
    time_ns: i64,
    severity: Severity,
    mut fields: Map<String, Value>,
    target: &str,
) -> Parsed {
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let message = take("message");
    let event = take("event");
    let broker = take(field::BROKER);
    let client_id = take(field::CLIENT_ID);
    let mut attributes = Attributes::default();
    for (name, value) in fields {
        attributes.set(name, flat(value));
    }
    let fact = fact(event.as_deref(), broker.as_deref(), &attributes);
    let service = match &parser.place.service {
        Some(service) => Arc::clone(service),
        // The crate that wrote it is the daemon, unless a library did.
        None => target
            .split("::")
            .next()
            .unwrap_or_default()
            .replace('_', "-")
            .into(),
    };
    if !target.is_empty() {
        attributes.set("target", target);
    }
    Parsed {
        record: LogRecord {
            time_ns,
            severity,
            body: message.unwrap_or_default(),
            attributes,
            event: event.map(Cow::Owned),
            node: parser.place.node.clone(),
            broker: broker.map(Into::into).or_else(|| parser.place.broker.clone()),
            service,
            client_id,
        },
        fact: fact.map(Box::new),
        understood: true,
    }
}

fn flat(value: Value) -> AttributeValue {
    match value {
        Value::String(text) => AttributeValue::Text(text),
        Value::Bool(flag) => AttributeValue::Flag(flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => AttributeValue::Integer(whole),
            (None, Some(real)) => AttributeValue::Real(real),
            (None, None) => AttributeValue::Text(number.to_string()),
        },
        other => AttributeValue::Text(other.to_string()),
    }
}

fn fact(event: Option<&str>, broker: Option<&str>, attributes: &Attributes) -> Option<Fact> {
    let broker = broker?.to_owned();
    if event == Some(EventName::BrokerDead.as_str()) {
        let reason = attributes
            .text(field::REASON)
            .unwrap_or("no reason given")
            .to_owned();
        Some(Fact::BrokerDead { broker, reason })
    } else if event == Some(EventName::BrokerHealthy.as_str()) {
        Some(Fact::BrokerHealthy { broker })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::{Format, Place};
    use jiff::tz::TimeZone;

    #[test]
    fn fields_find_their_places() {
        let mut parser = Parser::new(Format::Auto, Place::default(), TimeZone::UTC);
        let line = br#"{"timestamp":"2026-11-23T05:40:59.984972Z","level":"WARN","fields":{"message":"broker.dead","event":"broker.dead","broker":"broker3","reason":"refused","elapsed_ms":1.5,"list":[1]},"target":"mesh_health::shell::driver"}"#;
        let parsed = parser.parse(line, 0);
        let record = parsed.record;
        assert_eq!(record.time_ns, 1_795_412_459_984_972_000);
        assert_eq!(
            (record.severity, record.body.as_str()),
            (Severity::WARN, "broker.dead")
        );
        assert_eq!(record.event.as_deref(), Some("broker.dead"));
        assert_eq!(
            (record.broker.as_deref(), &*record.service),
            (Some("broker3"), "mesh-health")
        );
        assert_eq!(record.attributes.text("list"), Some("[1]"));
        assert_eq!(
            record.attributes.get("elapsed_ms"),
            Some(&AttributeValue::Real(1.5))
        );
        let dead = Fact::BrokerDead {
            broker: "broker3".to_owned(),
            reason: "refused".to_owned(),
        };
        assert_eq!(*parsed.fact.unwrap(), dead);
    }
}
