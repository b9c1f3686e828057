//! Where in the file each key stands, so that a problem can be reported with its line.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike};

use super::Problem;

/// The lines of all keys of one file, by dotted path; list elements as `broker[0].id`.
#[derive(Debug, Default)]
pub(super) struct Places {
    lines: BTreeMap<String, usize>,
}

impl Places {
    /// Reads the places out of `text`.
    ///
    /// # Errors
    ///
    /// The one problem of a text that is not TOML.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let line_at = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        let document = Document::parse(text).map_err(|error| Problem {
            line: error.span().map_or(0, |span| line_at(span.start)),
            origin: None,
            key: String::new(),
            message: format!("not TOML: {}", error.message().trim().replace('\n', ", ")),
        })?;
        let mut places = Self::default();
        places.walk("", document.as_table(), &line_at);
        Ok(places)
    }

    /// The line of `key`, or of the nearest part of the file that contains it; 0 if it is not in the file.
    pub(super) fn line(&self, key: &str) -> usize {
        let mut key = key;
        loop {
            if let Some(line) = self.lines.get(key) {
                return *line;
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return 0,
            }
        }
    }

    fn walk(&mut self, prefix: &str, table: &dyn TableLike, line_at: &dyn Fn(usize) -> usize) {
        for (name, item) in table.iter() {
            let path = if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}.{name}")
            };
            let span = table.key(name).and_then(|key| key.span()).or_else(|| item.span());
            self.note(&path, span, line_at);
            self.descend(&path, item, line_at);
        }
    }

    fn descend(&mut self, path: &str, item: &Item, line_at: &dyn Fn(usize) -> usize) {
        if let Some(table) = item.as_table_like() {
            self.walk(path, table, line_at);
        } else if let Some(tables) = item.as_array_of_tables() {
            for (index, table) in tables.iter().enumerate() {
                let path = format!("{path}[{index}]");
                self.note(&path, table.span(), line_at);
                self.walk(&path, table, line_at);
            }
        } else if let Some(array) = item.as_array() {
            for (index, value) in array.iter().enumerate() {
                let path = format!("{path}[{index}]");
                self.note(&path, value.span(), line_at);
                if let Some(table) = value.as_inline_table() {
                    self.walk(&path, table, line_at);
                }
            }
        }
    }

    fn note(&mut self, path: &str, span: Option<Range<usize>>, line_at: &dyn Fn(usize) -> usize) {
        if let Some(span) = span {
            self.lines.insert(path.to_owned(), line_at(span.start));
        }
    }
}
