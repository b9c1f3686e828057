//! Log lines on their way into the database and out of it.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use jiff::Timestamp;
use mesh_model::{AttributeValue, Attributes, LogRecord, Severity};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::tags::{self, Kind};

/// Of what a line says this much is indexed; all of it is stored.
const INDEXED: usize = 64 * 1024;

/// A line that is ready to be stored.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Its place in time; see [`crate::id`].
    pub(crate) id: i64,
    pub(crate) source: i64,
    pub(crate) time_ns: i64,
    pub(crate) severity: Severity,
    pub(crate) body: Arc<str>,
    pub(crate) attributes: Option<Arc<str>>,
    pub(crate) event: Option<Cow<'static, str>>,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) broker: Option<Arc<str>>,
    pub(crate) service: Arc<str>,
    pub(crate) client_id: Option<Arc<str>>,
    /// What is indexed.
    pub(crate) text: Arc<str>,
}

impl NewRow {
    /// Prepares `record` of the source with number `source`; `key` is that of [`crate::id::next_key`].
    pub fn new(record: LogRecord, source: i64, key: i64) -> Self {
        let text = indexed(&record).into();
        let attributes = (!record.attributes.is_empty()).then(|| {
            serde_json::to_string(&record.attributes)
                .unwrap_or_default()
                .into()
        });
        Self {
            id: crate::id::row_id(key, source),
            source,
            time_ns: record.time_ns,
            severity: record.severity,
            body: record.body.into(),
            attributes,
            event: record.event,
            node: record.node,
            broker: record.broker,
            service: record.service,
            client_id: record.client_id.map(Into::into),
            text,
        }
    }

    /// About how many bytes of memory it takes.
    pub fn size(&self) -> usize {
        let attributes = self.attributes.as_ref().map_or(0, |text| text.len());
        256 + self.body.len() + self.text.len() + attributes
    }
}

/// The values of a row as they go into the database.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// The id.
    pub id: i64,
    /// The number of the source.
    pub source: i64,
    /// The time.
    pub time_ns: i64,
    /// The severity number.
    pub severity: u8,
    /// The body.
    pub body: &'a str,
    /// The attributes as JSON.
    pub attributes: Option<&'a str>,
    /// The event.
    pub event: Option<&'a str>,
    /// The node.
    pub node: Option<&'a str>,
    /// The broker.
    pub broker: Option<&'a str>,
    /// The service.
    pub service: &'a str,
    /// The client.
    pub client_id: Option<&'a str>,
    /// What is indexed.
    pub text: &'a str,
}

impl NewRow {
    /// A row that was stored, to be stored elsewhere.
    pub fn from_stored(row: LogRow) -> Self {
        let json = row.attributes.as_ref().map(|json| json.get()).unwrap_or_default();
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(json).unwrap_or_default();
        let mut attributes = Attributes::default();
        for (name, value) in fields {
            if let serde_json::Value::String(text) = value {
                attributes.set(name, text);
            }
        }
        let record = LogRecord {
            time_ns: row.time_ns,
            severity: row.severity,
            body: row.body,
            attributes,
            event: row.event.map(Cow::Owned),
            node: row.node.map(Into::into),
            broker: row.broker.map(Into::into),
            service: row.service.into(),
            client_id: row.client_id,
        };
        let source = row.id & 1023;
        Self {
            id: row.id,
            attributes: row.attributes.map(|json| json.get().into()),
            ..Self::new(record, source, 0)
        }
    }

    /// Its values.
    pub fn columns(&self) -> Columns<'_> {
        Columns {
            id: self.id,
            source: self.source,
            time_ns: self.time_ns,
            severity: self.severity.number(),
            body: &self.body,
            attributes: self.attributes.as_deref(),
            event: self.event.as_deref(),
            node: self.node.as_deref(),
            broker: self.broker.as_deref(),
            service: &self.service,
            client_id: self.client_id.as_deref(),
            text: &self.text,
        }
    }
}

/// The tags and the words of a line.
fn indexed(record: &LogRecord) -> String {
    let mut text = String::with_capacity(record.body.len().min(INDEXED) + 96);
    tags::push(&mut text, Kind::Severity, record.severity.name());
    text.push(' ');
    tags::push(&mut text, Kind::Service, &record.service);
    if let Some(broker) = &record.broker {
        text.push(' ');
        tags::push(&mut text, Kind::Broker, broker);
    }
    if let Some(node) = record
        .node
        .as_ref()
        .filter(|node| record.broker.as_ref() != Some(node))
    {
        text.push(' ');
        tags::push(&mut text, Kind::Node, node);
    }
    if let Some(event) = &record.event {
        text.push(' ');
        tags::push(&mut text, Kind::Event, event);
    }
    if let Some(client) = &record.client_id {
        text.push(' ');
        tags::push(&mut text, Kind::Client, client);
    }
    let body = &record.body[..record.body.floor_char_boundary(INDEXED)];
    tags::push_words(&mut text, body);
    for (_, value) in record.attributes.iter() {
        match value {
            // Most attributes are parts of the body.
            AttributeValue::Text(value) if body.contains(value.as_str()) => {}
            AttributeValue::Text(value) => {
                tags::push_words(&mut text, &value[..value.floor_char_boundary(INDEXED)]);
            }
            _ => {}
        }
    }
    text
}

/// A stored line, in OpenTelemetry's words.
#[derive(Debug, Clone, Serialize)]
pub struct LogRow {
    /// Its id; rises with time.
    pub id: i64,
    /// When it happened, in nanoseconds since 1970.
    #[serde(rename = "time", serialize_with = "timestamp")]
    pub time_ns: i64,
    /// When it was stored.
    #[serde(rename = "observed_time", serialize_with = "timestamp")]
    pub observed_ns: i64,
    /// How severe it is.
    #[serde(rename = "severity_number")]
    pub severity: Severity,
    /// The name of its class.
    pub severity_text: &'static str,
    /// What it says.
    pub body: String,
    /// What else is known of it, as JSON.
    pub attributes: Option<Box<RawValue>>,
    /// What happened, if that has a name.
    #[serde(rename = "event_name")]
    pub event: Option<String>,
    /// The machine.
    pub node: Option<String>,
    /// The broker that wrote it or that it is about.
    pub broker: Option<String>,
    /// The program.
    pub service: String,
    /// The MQTT client that it is about. Hostile input.
    pub client_id: Option<String>,
    /// The source that it was read from.
    pub source: Option<String>,
}

/// The columns that [`LogRow::read`] needs, of a table called `l`.
pub(crate) const COLUMNS: &str = "l.id, l.time_ns, l.observed_ns, l.severity, l.body, l.attributes, l.event, l.node, \
     l.broker, l.service, l.client_id, (SELECT s.name FROM source s WHERE s.id = l.source) AS source";

impl LogRow {
    pub(crate) fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let severity = Severity::from_number(row.try_get("severity")?);
        let attributes: Option<String> = row.try_get("attributes")?;
        Ok(Self {
            id: row.try_get("id")?,
            time_ns: row.try_get("time_ns")?,
            observed_ns: row.try_get("observed_ns")?,
            severity,
            severity_text: severity.name(),
            body: row.try_get("body")?,
            attributes: attributes.and_then(|text| RawValue::from_string(text).ok()),
            event: row.try_get("event")?,
            node: row.try_get("node")?,
            broker: row.try_get("broker")?,
            service: row.try_get("service")?,
            client_id: row.try_get("client_id")?,
            source: row.try_get("source")?,
        })
    }
}

/// Nanoseconds since 1970 as people write a time, in UTC.
pub fn rfc3339(time_ns: i64) -> String {
    let timestamp = Timestamp::from_nanosecond(time_ns.into()).unwrap_or_default();
    let mut text = String::new();
    write!(text, "{timestamp:.6}").expect("writing to a string cannot fail");
    text
}

fn timestamp<S: Serializer>(time_ns: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let timestamp = Timestamp::from_nanosecond((*time_ns).into()).unwrap_or_default();
    serializer.collect_str(&timestamp)
}
