//! One log line in the words of OpenTelemetry's log data model.
//!
//! <https://opentelemetry.io/docs/specs/otel/logs/data-model/>: a time and an observed time, a severity number, a body,
//! attributes, an event name, and the resource it comes from (here: node, broker, service).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

/// How severe a line is: OpenTelemetry's severity number, 1 to 24, in six classes of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Severity(u8);

impl Severity {
    /// Every step.
    pub const TRACE: Self = Self(1);
    /// For who looks for a defect.
    pub const DEBUG: Self = Self(5);
    /// What happens.
    pub const INFO: Self = Self(9);
    /// What happens and matters: syslog's and Nginx's `notice`.
    pub const NOTICE: Self = Self(10);
    /// Something is degraded.
    pub const WARN: Self = Self(13);
    /// Something failed.
    pub const ERROR: Self = Self(17);
    /// Syslog's and Nginx's `crit`.
    pub const CRITICAL: Self = Self(18);
    /// Syslog's and Nginx's `alert`; Nginx says so of a connection that was closed for it.
    pub const ALERT: Self = Self(19);
    /// Nothing works any more.
    pub const FATAL: Self = Self(21);

    /// The names of the six classes, mildest first.
    pub const CLASSES: [&'static str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

    /// The severity with this number, brought into 1 to 24.
    pub fn from_number(number: i64) -> Self {
        Self(u8::try_from(number.clamp(1, 24)).unwrap_or(1))
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The place of its class in [`Self::CLASSES`].
    pub const fn class(self) -> usize {
        ((self.0 - 1) / 4) as usize
    }

    /// The name of its class.
    pub const fn name(self) -> &'static str {
        Self::CLASSES[self.class()]
    }

    /// The mildest severity of the class with this place in [`Self::CLASSES`].
    pub const fn of_class(class: usize) -> Self {
        let class = if class > 5 { 5 } else { class as u8 };
        Self(class * 4 + 1)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text is not the name of a severity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a level: use trace, debug, info, warn, error or fatal")]
pub struct InvalidSeverity(pub String);

impl FromStr for Severity {
    type Err = InvalidSeverity;

    /// Also the names that syslog, Nginx and tracing use, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "trace" => Self::TRACE,
            "debug" => Self::DEBUG,
            "info" => Self::INFO,
            "notice" => Self::NOTICE,
            "warn" | "warning" => Self::WARN,
            "error" | "err" => Self::ERROR,
            "crit" | "critical" => Self::CRITICAL,
            "alert" => Self::ALERT,
            "fatal" | "emerg" => Self::FATAL,
            _ => return Err(InvalidSeverity(text.to_owned())),
        })
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AttributeValue {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// True or false.
    Flag(bool),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for AttributeValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// What else is known of a line, by name, in the order in which it was found. On the wire a map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes(Vec<(Cow<'static, str>, AttributeValue)>);

impl Attributes {
    /// Adds `value` as `key`, or replaces what is there under that name.
    pub fn set(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<AttributeValue>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&AttributeValue> {
        let found = self.0.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value)
    }

    /// The value of `key` if it is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            AttributeValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AttributeValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// One log line.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// When it happened, in nanoseconds since 1970, as the line itself says; when it was read if it does not say.
    pub time_ns: i64,
    /// How severe it is.
    pub severity: Severity,
    /// The line without what stands in the other fields.
    pub body: String,
    /// What else is known of it.
    pub attributes: Attributes,
    /// What happened, if that has a name: one of [`EventName`](crate::EventName) or of a program's own.
    pub event: Option<Cow<'static, str>>,
    /// The machine that it comes from.
    pub node: Option<Arc<str>>,
    /// The broker that wrote it or that it is about.
    pub broker: Option<Arc<str>>,
    /// The program that wrote it.
    pub service: Arc<str>,
    /// The MQTT client that it is about. Hostile input.
    pub client_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_opentelemetry() {
        for (number, name) in [
            (1, "trace"),
            (8, "debug"),
            (9, "info"),
            (12, "info"),
            (13, "warn"),
            (24, "fatal"),
        ] {
            assert_eq!(Severity::from_number(number).name(), name);
        }
        assert_eq!("WARNING".parse::<Severity>().unwrap(), Severity::WARN);
        assert_eq!("notice".parse::<Severity>().unwrap().name(), "info");
        assert_eq!(Severity::of_class(3), Severity::WARN);
        assert!("loud".parse::<Severity>().is_err());
    }

    #[test]
    fn attributes_are_a_map_with_one_value_a_name() {
        let mut attributes = Attributes::default();
        attributes.set("b", "x");
        attributes.set("a", 7);
        attributes.set("b", true);
        let json = serde_json::to_string(&attributes).unwrap();
        assert_eq!(json, r#"{"b":true,"a":7}"#);
    }
}
