//! A query as one question to the full-text index, plus what the index cannot tell.

use jiff::Timestamp;
use mesh_model::Severity;

use super::{Field, Pattern, Query, Term, What};
use crate::tags::{self, Kind};

/// How a query is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The expression for `MATCH`; `None` if every line will do.
    pub(crate) words: Option<String>,
    /// The first id.
    pub(crate) from: i64,
    /// The id after the last.
    pub(crate) to: i64,
    /// Conditions on attributes: the name, the values, and whether it is turned round.
    pub(crate) attributes: Vec<(&'static str, Vec<String>, bool)>,
}

impl Plan {
    pub(crate) fn new(query: &Query, now: Timestamp) -> Self {
        let id = |when: super::When| crate::id::first_at(when.resolve(now));
        let mut plan = Self {
            words: None,
            from: query.since.map_or(i64::MIN, id),
            to: query.until.map_or(i64::MAX, id),
            attributes: Vec::new(),
        };
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for Term { negated, what } in &query.terms {
            if let What::Field(Field::Attribute(name), values) = what {
                let texts = values.iter().map(|value| value.text.clone()).collect();
                plan.attributes.push((name, texts, *negated));
            }
            if let Some(expression) = expression(what, *negated) {
                if *negated { &mut unwanted } else { &mut wanted }.push(expression);
            }
        }
        if wanted.is_empty() && !unwanted.is_empty() {
            // The index can only take away from something: every line has a level.
            wanted.push(levels(0, Severity::CLASSES.len() - 1));
        }
        if !wanted.is_empty() {
            let mut words = wanted.join(" AND ");
            for expression in unwanted {
                words = format!("({words}) NOT {expression}");
            }
            plan.words = Some(words);
        }
        plan
    }

    /// The same with the level in this range as well.
    pub(crate) fn with_levels(&self, first: usize, last: usize) -> Self {
        let levels = levels(first, last);
        let words = match &self.words {
            Some(words) => format!("({words}) AND {levels}"),
            None => levels,
        };
        Self {
            words: Some(words),
            ..self.clone()
        }
    }
}

/// What the index is asked for one condition; `None` if it cannot help.
fn expression(what: &What, negated: bool) -> Option<String> {
    Some(match what {
        What::Text(pattern) => quoted(&pattern.text, pattern.is_prefix),
        What::Level(first, last) => levels(*first, *last),
        What::Field(Field::Attribute(_), values) => {
            // The values of attributes are indexed, but not which attribute they are of: that can narrow a search and
            // not widen it.
            let all_have_words = values
                .iter()
                .all(|value| value.text.chars().any(char::is_alphanumeric));
            // Numbers are not indexed.
            let any_number = values.iter().any(|value| value.text.parse::<f64>().is_ok());
            if negated || !all_have_words || any_number {
                return None;
            }
            either(values.iter().map(|value| quoted(&value.text, false)))
        }
        What::Field(field, values) => either(values.iter().map(|value| field_is(*field, value))),
    })
}

fn field_is(field: Field, value: &Pattern) -> String {
    let tag = |kind| {
        if value.is_prefix {
            quoted(&tags::prefix(kind, &value.text), true)
        } else {
            let mut tag = String::new();
            tags::push(&mut tag, kind, &value.text);
            quoted(&tag, false)
        }
    };
    match field {
        Field::Broker => tag(Kind::Broker),
        // A node that is called like its broker has no tag of its own.
        Field::Node => format!("({} OR {})", tag(Kind::Node), tag(Kind::Broker)),
        Field::Service => tag(Kind::Service),
        Field::Event => tag(Kind::Event),
        Field::Client | Field::Attribute(_) => tag(Kind::Client),
    }
}

fn levels(first: usize, last: usize) -> String {
    either(Severity::CLASSES[first..=last].iter().map(|name| {
        let mut tag = String::new();
        tags::push(&mut tag, Kind::Severity, name);
        quoted(&tag, false)
    }))
}

fn either(expressions: impl Iterator<Item = String>) -> String {
    let expressions: Vec<String> = expressions.collect();
    format!("({})", expressions.join(" OR "))
}

/// A text in the language of FTS5, in which a quote is doubled and nothing else has a meaning inside of quotes. No
/// query reaches SQLite's C strings beyond a NUL.
fn quoted(text: &str, is_prefix: bool) -> String {
    let text = text.replace('\0', " ").replace('"', "\"\"");
    format!("\"{text}\"{}", if is_prefix { "*" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(query: &str) -> String {
        let plan = Plan::new(&query.parse().unwrap(), Timestamp::UNIX_EPOCH);
        plan.words
            .unwrap()
            .replace('\u{e000}', "#")
            .replace('\u{e001}', "%")
    }

    #[test]
    fn words_and_fields_become_one_expression() {
        assert_eq!(
            words(r#"broker:b1 level>=error "say ""#.replace("say ", "it's").as_str()),
            r##"("#bb1") AND ("#verror" OR "#vfatal") AND "it's""##
        );
        assert_eq!(words("x* -client:a"), r##"("x"*) NOT ("#ca")"##);
        assert_eq!(
            words("-y -z"),
            r##"((("#vtrace" OR "#vdebug" OR "#vinfo" OR "#vwarn" OR "#verror" OR "#vfatal")) NOT "y") NOT "z""##
        );
        assert_eq!(words("event:link.*"), r##"("#elink%2e"*)"##);
    }

    #[test]
    fn a_range_of_time_is_a_range_of_ids() {
        let query: Query = "since:1970-01-01T00:00:01Z until:1970-01-01T00:00:02Z"
            .parse()
            .unwrap();
        let plan = Plan::new(&query, Timestamp::UNIX_EPOCH);
        assert_eq!(plan.words, None);
        assert_eq!(plan.from, crate::id::row_id(1_000_000, 0));
        assert_eq!(plan.to, crate::id::row_id(2_000_000, 0));
    }
}
