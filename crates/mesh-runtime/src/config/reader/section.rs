//! One section's settings, each asked for by its kind.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use config::ValueKind;

use super::{Reader, Setting};

/// What a value may be, for messages and for the reference.
struct Kind<'a>(&'a str);

/// The settings under one prefix.
pub struct Section<'a> {
    pub(super) reader: &'a mut Reader,
    pub(super) prefix: String,
    pub(super) shown: String,
}

impl Section<'_> {
    /// Reports that something is wrong with `name` of this section.
    pub fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.reader.problem(&format!("{}.{name}", self.prefix), message);
    }

    /// A text, not empty.
    pub fn text(&mut self, name: &str, default: Option<&str>, doc: &'static str) -> String {
        let default = default.map(str::to_owned);
        self.parsed(name, Kind("text"), default, doc, |text: &str| {
            if text.is_empty() {
                Err("must not be empty".to_owned())
            } else {
                Ok(text.to_owned())
            }
        })
        .unwrap_or_default()
    }

    /// A path; a relative one is relative to the folder of the configuration file.
    pub fn path(&mut self, name: &str, default: &str, doc: &'static str) -> PathBuf {
        let text = self.parsed(name, Kind("path"), Some(default.to_owned()), doc, non_empty);
        self.reader.folder.join(text.unwrap_or_default())
    }

    /// A path that need not be given.
    pub fn optional_path(&mut self, name: &str, doc: &'static str) -> Option<PathBuf> {
        let text = self.optional(name, Kind("path"), doc, non_empty)?;
        Some(self.reader.folder.join(text))
    }

    /// The name of a program: looked up in `PATH` if it has no `/`, else a path.
    pub fn program(&mut self, name: &str, default: &str, doc: &'static str) -> PathBuf {
        let text = self.parsed(name, Kind("program"), Some(default.to_owned()), doc, non_empty);
        let text = text.unwrap_or_default();
        if text.contains('/') {
            self.reader.folder.join(text)
        } else {
            text.into()
        }
    }

    /// An IP address and a port that must be given; `None` only if there is a problem.
    pub fn required_address(&mut self, name: &str, doc: &'static str) -> Option<SocketAddr> {
        self.parsed(name, ADDRESS, None, doc, parse_address)
    }

    /// An IP address and a port.
    pub fn address(&mut self, name: &str, default: SocketAddr, doc: &'static str) -> SocketAddr {
        self.parsed(name, ADDRESS, Some(default.to_string()), doc, parse_address)
            .unwrap_or(default)
    }

    /// Anything that parses from a text and need not be given.
    pub fn optional_parsed<T>(&mut self, name: &str, kind: &str, doc: &'static str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        self.optional(name, Kind(kind), doc, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    /// Anything that parses from a text; `None` only if there is a problem.
    pub fn required<T>(&mut self, name: &str, kind: &str, doc: &'static str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        self.parsed(name, Kind(kind), None, doc, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    /// Anything that parses from a text; `fallback` is what the text `default` means.
    pub fn parsed_or<T>(&mut self, name: &str, kind: &str, default: &str, fallback: T, doc: &'static str) -> T
    where
        T: FromStr<Err: Display>,
    {
        let value = self.parsed(name, Kind(kind), Some(default.to_owned()), doc, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        });
        value.unwrap_or(fallback)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
        default: usize,
        doc: &'static str,
    ) -> T {
        let all = words
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect::<Vec<_>>()
            .join(" or ");
        let chosen = self.parsed(name, Kind(&all), Some(words[default].0.to_owned()), doc, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("{text:?} is not {all}"))
        });
        chosen.unwrap_or(words[default].1)
    }

    /// A span of time within `range`, written with a unit.
    pub fn duration(
        &mut self,
        name: &str,
        default: &str,
        range: RangeInclusive<Duration>,
        doc: &'static str,
    ) -> Duration {
        let shown = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let kind = format!("duration, {} to {}", shown(range.start()), shown(range.end()));
        let parse = |text: &str| {
            let duration = humantime::parse_duration(text).map_err(|_| {
                format!("{text:?} is not a duration; write a number and a unit, e.g. \"250ms\"")
            })?;
            if range.contains(&duration) {
                Ok(duration)
            } else {
                Err(format!(
                    "must be {} to {}",
                    shown(range.start()),
                    shown(range.end())
                ))
            }
        };
        // After a problem the default stands in, so that comparing it with other settings finds no second one.
        self.parsed(name, Kind(&kind), Some(default.to_owned()), doc, parse)
            .or_else(|| parse(default).ok())
            .unwrap_or(*range.start())
    }

    /// A whole number within `range`.
    pub fn number(&mut self, name: &str, default: u64, range: RangeInclusive<u64>, doc: &'static str) -> u64 {
        let kind = format!("whole number, {} to {}", range.start(), range.end());
        let check = |number: i128| match u64::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("must be {} to {}", range.start(), range.end())),
        };
        let value = self.take(name, &kind, Some(default.to_string()), doc);
        let result = match value {
            None => return default,
            Some((ValueKind::I64(number), _)) => check(number.into()),
            Some((ValueKind::U64(number), _)) => check(number.into()),
            Some((ValueKind::String(text), true)) => match text.parse::<i128>() {
                Ok(number) => check(number),
                Err(_) => Err(format!("{text:?} is not a whole number")),
            },
            Some((other, _)) => Err(mismatch(&other, &kind)),
        };
        self.or_problem(name, result).unwrap_or(default)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str, default: bool, doc: &'static str) -> bool {
        let kind = "true or false";
        let result = match self.take(name, kind, Some(default.to_string()), doc) {
            None => return default,
            Some((ValueKind::Boolean(value), _)) => Ok(value),
            Some((ValueKind::String(text), true)) => {
                text.parse().map_err(|_| format!("{text:?} is not {kind}"))
            }
            Some((other, _)) => Err(mismatch(&other, kind)),
        };
        self.or_problem(name, result).unwrap_or(default)
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        kind: Kind<'_>,
        default: Option<String>,
        doc: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let quoted = default.as_ref().map(|text| format!("{text:?}"));
        let result = match (self.take(name, kind.0, quoted, doc), default) {
            (Some((ValueKind::String(text), _)), _) => parse(&text),
            (Some((other, _)), _) => Err(mismatch(&other, kind.0)),
            (None, Some(default)) => parse(&default),
            (None, None) => Err(format!("is missing; it must be given ({})", kind.0)),
        };
        self.or_problem(name, result)
    }

    fn optional<T>(
        &mut self,
        name: &str,
        kind: Kind<'_>,
        doc: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let result = match self.take(name, kind.0, Some("none".to_owned()), doc)? {
            (ValueKind::String(text), _) => parse(&text),
            (other, _) => Err(mismatch(&other, kind.0)),
        };
        self.or_problem(name, result)
    }

    /// The value of `name` and whether it is a text because it comes from the environment or a flag.
    fn take(
        &mut self,
        name: &str,
        kind: &str,
        default: Option<String>,
        doc: &'static str,
    ) -> Option<(ValueKind, bool)> {
        let key = format!("{}.{name}", self.prefix);
        let shown = format!("{}.{name}", self.shown);
        if !self.reader.reference.iter().any(|setting| setting.key == shown) {
            self.reader.reference.push(Setting {
                key: shown,
                kind: kind.to_owned(),
                default,
                doc,
            });
        }
        self.reader.asked.insert(key.clone());
        let overridden = self.reader.overrides.contains_key(&key);
        self.reader
            .values
            .get(&key)
            .map(|value| (value.kind.clone(), overridden))
    }

    fn or_problem<T>(&mut self, name: &str, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(name, message);
                None
            }
        }
    }
}

const ADDRESS: Kind<'static> = Kind("address, e.g. \"192.168.100.10:1883\"");

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err("the port must not be 0".to_owned()),
        Ok(address) => Ok(address),
        Err(_) => Err(format!("{text:?} is not an IP address with a port")),
    }
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn mismatch(found: &ValueKind, wanted: &str) -> String {
    let found = match found {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(value) => format!("the boolean {value}"),
        ValueKind::Float(number) => format!("the number {number:?}"),
        ValueKind::String(text) => format!("the text {text:?}"),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::I64(number) => format!("the number {number}"),
        other => format!("{other:?}"),
    };
    format!("found {found}, wanted: {wanted}")
}
