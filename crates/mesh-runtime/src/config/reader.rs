//! Reads typed settings out of a merged configuration and collects every problem on the way.
//!
//! Each setting is asked for exactly once, by a call that names its key, its default, its range and its meaning.
//! That one call checks the value, makes the key known (what nobody asked for is an unknown key) and writes the
//! reference. A call always returns something usable, so that reading goes on and all problems are found; what
//! was read is handed out by [`Reader::finish`] only if there were none.

mod section;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use config::{Value, ValueKind};

use super::Problem;
use super::places::Places;

pub use section::Section;

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
