//! The language in which log lines are searched.
//!
//! ```text
//! broker:broker3 level>=warn client:sensor-1 event:link.* "broken pipe" since:10m
//! ```
//!
//! Everything must hold. A word or a `"quoted text"` is searched for in what lines say; `word*` is the beginning of one;
//! `field:value`, `field:a,b` (either) and `field:begin*` ask for fields; `level` also takes `>=`, `>`, `<=` and `<`; a
//! `-` in front turns a condition round; `since:` and `until:` take a span (`10m`, `2h30m`) or a time in RFC 3339.

mod lexer;
mod parse;
mod plan;
pub(crate) mod sql;
pub(crate) mod terms;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use mesh_model::Severity;

pub(crate) use plan::Plan;

/// What is searched for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub(crate) terms: Vec<Term>,
    pub(crate) since: Option<When>,
    pub(crate) until: Option<When>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) negated: bool,
    pub(crate) what: What,
}

/// What a condition asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// These words one after the other.
    Text(Pattern),
    /// A field has one of these values.
    Field(Field, Vec<Pattern>),
    /// The class of the severity is in this range, by its place in [`Severity::CLASSES`].
    Level(usize, usize),
}

/// A text, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    pub(crate) is_prefix: bool,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// So long before now.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

impl When {
    /// In nanoseconds since 1970.
    pub(crate) fn resolve(self, now: Timestamp) -> i64 {
        let nanos = match self {
            Self::Ago(span) => now.as_nanosecond() - span.as_nanos() as i128,
            Self::At(time) => time.as_nanosecond(),
        };
        i64::try_from(nanos.max(0)).unwrap_or(i64::MAX)
    }
}

/// What can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Broker,
    Node,
    Service,
    Event,
    Client,
    /// An attribute of this name.
    Attribute(&'static str),
}

/// The fields by their names, `level`, `since` and `until` apart.
pub(crate) const FIELDS: [(&str, Field); 15] = [
    ("broker", Field::Broker),
    ("node", Field::Node),
    ("service", Field::Service),
    ("event", Field::Event),
    ("client", Field::Client),
    ("from", Field::Attribute("from")),
    ("to", Field::Attribute("to")),
    ("generation", Field::Attribute("generation")),
    ("incident", Field::Attribute("incident")),
    ("reason", Field::Attribute("reason")),
    ("error", Field::Attribute("error")),
    ("user", Field::Attribute("username")),
    ("remote_addr", Field::Attribute("remote_addr")),
    ("upstream", Field::Attribute("upstream_addr")),
    ("target", Field::Attribute("target")),
];

/// Why a text is not a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// The place of the first character that is wrong, counted in characters from 0.
    pub at: usize,
    /// How many are.
    pub length: usize,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.at + 1, self.message)
    }
}

impl std::error::Error for QueryError {}

impl QueryError {
    /// Three lines for a terminal: the query, marks under what is wrong, and why.
    pub fn pointed(&self, query: &str) -> String {
        let line: String = query
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let marks = "^".repeat(self.length.max(1));
        format!("{line}\n{}{marks}\n{self}", " ".repeat(self.at))
    }
}

impl std::str::FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::parse(text)
    }
}

/// A range of classes of severity that `op` and `severity` mean.
pub(crate) fn level_range(op: Op, severity: Severity) -> Option<(usize, usize)> {
    let (class, last) = (severity.class(), Severity::CLASSES.len() - 1);
    match op {
        Op::Is => Some((class, class)),
        Op::AtLeast => Some((class, last)),
        Op::AtMost => Some((0, class)),
        Op::Above => (class < last).then_some((class + 1, last)),
        Op::Below => class.checked_sub(1).map(|below| (0, below)),
    }
}

/// What stands between a field and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Is,
    AtLeast,
    AtMost,
    Above,
    Below,
}
