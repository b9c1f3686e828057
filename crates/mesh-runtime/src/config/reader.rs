//! Reads typed settings out of a merged configuration and collects every problem on the way.
//!
//! Each setting is asked for exactly once, by a call that names its key, its default, its range and its meaning.
//! That one call checks the value, makes the key known (what nobody asked for is an unknown key) and writes the
//! reference. A call always returns something usable, so that reading goes on and all problems are found; what
//! was read is handed out by [`Reader::finish`] only if there were none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use config::{Value, ValueKind};

use super::Problem;
use super::places::Places;

/// One line of the reference of all settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The dotted key; `[]` stands for an element of a list.
    pub key: String,
    /// What may be written.
    pub kind: String,
    /// The default as it would be written, or `None` if the setting must be given.
    pub default: Option<String>,
    /// What it means.
    pub doc: &'static str,
}

/// Reads settings; see the module.
pub struct Reader {
    values: BTreeMap<String, Value>,
    places: Places,
    overrides: BTreeMap<String, String>,
    folder: PathBuf,
    asked: BTreeSet<String>,
    reference: Vec<Setting>,
    problems: Vec<Problem>,
}

/// What a value may be, for messages and for the reference.
struct Kind<'a>(&'a str);

impl Reader {
    /// `overrides` maps keys that do not come from the file to the name of the variable or flag that set them.
    pub(super) fn new(
        values: BTreeMap<String, Value>,
        places: Places,
        overrides: BTreeMap<String, String>,
        folder: PathBuf,
    ) -> Self {
        let mut flat = BTreeMap::new();
        for (name, value) in values {
            flatten(&mut flat, name, value);
        }
        Self {
            values: flat,
            places,
            overrides,
            folder,
            asked: BTreeSet::new(),
            reference: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The section `name`.
    pub fn section(&mut self, name: &str) -> Section<'_> {
        Section {
            prefix: name.to_owned(),
            shown: name.to_owned(),
            reader: self,
        }
    }

    /// Every element of the list of tables `name`, read by `read`. At least one call is made for the reference.
    pub fn list<T>(&mut self, name: &str, mut read: impl FnMut(&mut Section<'_>) -> T) -> Vec<T> {
        let shown = format!("{name}[]");
        self.asked.insert(name.to_owned());
        let first = format!("{name}[0]");
        let is_list = self.values.keys().any(|key| key.starts_with(&first));
        if !is_list
            && self
                .values
                .keys()
                .any(|key| *key == name || key.starts_with(&format!("{name}.")))
        {
            self.problem(
                name,
                format!("must be a list of tables: write [[{name}]]; lists cannot be overridden"),
            );
        }
        let mut items = Vec::new();
        for index in 0.. {
            let prefix = format!("{name}[{index}]");
            let exists = self.values.keys().any(|key| {
                key.strip_prefix(&prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
            if !exists && index == 0 {
                // Nothing to read: one dry call makes the keys known, its problems and its value are dropped.
                let problems = self.problems.len();
                read(&mut Section {
                    prefix,
                    shown: shown.clone(),
                    reader: self,
                });
                self.problems.truncate(problems);
                break;
            }
            if !exists {
                break;
            }
            items.push(read(&mut Section {
                prefix,
                shown: shown.clone(),
                reader: self,
            }));
        }
        items
    }

    /// Reports that something is wrong with `key`.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.overrides.get(key).cloned();
        let line = if origin.is_some() {
            0
        } else {
            self.places.line(key)
        };
        self.problems.push(Problem {
            line,
            origin,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    /// Whether anything was wrong so far.
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// `value`, if everything was right.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<Problem>> {
        let unknown: Vec<String> = self
            .values
            .keys()
            .filter(|key| !self.is_known(key))
            .cloned()
            .collect();
        for key in unknown {
            let message = match self.nearest(&key) {
                Some(known) => format!("unknown key; did you mean {known}?"),
                None => "unknown key".to_owned(),
            };
            self.problem(&key, message);
        }
        self.problems.sort();
        self.problems.dedup();
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(self.problems),
        }
    }

    pub(super) fn into_reference(self) -> Vec<Setting> {
        self.reference
    }

    /// Whether somebody asked for `key`, or for something in it: a known section without a setting says nothing.
    fn is_known(&self, key: &str) -> bool {
        let is_empty_section = self
            .values
            .get(key)
            .is_some_and(|value| matches!(value.kind, ValueKind::Table(_)));
        let inside = |asked: &String| asked.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        self.asked.contains(key) || is_empty_section && self.asked.iter().any(inside)
    }

    /// The known key of which `key` is most probably a misspelling.
    fn nearest(&self, key: &str) -> Option<&str> {
        let distance = |known: &&String| edit_distance(key, known);
        let best = self.asked.iter().min_by_key(distance)?;
        (edit_distance(key, best) <= 3).then_some(best.as_str())
    }
}

/// The settings under one prefix.
pub struct Section<'a> {
    reader: &'a mut Reader,
    prefix: String,
    shown: String,
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

/// Puts the leaves of a tree into one map, keyed by dotted path. An empty table or list is a leaf.
fn flatten(flat: &mut BTreeMap<String, Value>, path: String, value: Value) {
    match value.kind {
        ValueKind::Table(table) if !table.is_empty() => {
            for (name, value) in table {
                flatten(flat, format!("{path}.{name}"), value);
            }
        }
        ValueKind::Array(items) if !items.is_empty() => {
            for (index, value) in items.into_iter().enumerate() {
                flatten(flat, format!("{path}[{index}]"), value);
            }
        }
        _ => {
            flat.insert(path, value);
        }
    }
}

/// Levenshtein's distance, for "did you mean".
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
