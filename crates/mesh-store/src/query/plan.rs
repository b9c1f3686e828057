//! A query as one question to the full-text index, plus what the index cannot tell.

use jiff::Timestamp;
use mesh_model::Severity;

use super::terms::{self, Known};
use super::{Field, Pattern, Query, Term, What};
use crate::tags::{self, Kind};

/// How a query is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The table of words that is asked; see [`Plan::within`].
    pub(crate) index: String,
    /// The expression for `MATCH`; `None` if every line will do.
    pub(crate) words: Option<String>,
    /// The first id.
    pub(crate) from: i64,
    /// The id after the last.
    pub(crate) to: i64,
    /// Conditions on attributes: the name, the values, and whether it is turned round.
    pub(crate) attributes: Vec<(&'static str, Vec<String>, bool)>,
    /// Another way, where many clients begin as is asked for.
    pub(crate) compared: Option<Compared>,
}

/// How a query is answered if the client of each line is compared, rather than looked for in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compared {
    /// The expression for `MATCH` without clients; `None` if every line may do.
    pub(crate) words: Option<String>,
    /// What clients begin with.
    pub(crate) clients: Vec<String>,
}

impl Plan {
    /// The plan for `query`; the beginnings in it become those terms that are `known` to begin so.
    pub(crate) fn new(query: &Query, now: Timestamp, known: &Known) -> Self {
        let id = |when: super::When| crate::id::first_at(when.resolve(now));
        let attributes = query
            .terms
            .iter()
            .filter_map(|Term { negated, what }| match what {
                What::Field(Field::Attribute(name), values) => {
                    let texts = values.iter().map(|value| value.text.clone()).collect();
                    Some((*name, texts, *negated))
                }
                _ => None,
            });
        let many = |term: &&Term| beginning_of_many(term, known).is_some();
        let clients: Vec<String> = query
            .terms
            .iter()
            .filter_map(|term| beginning_of_many(term, known))
            .collect();
        let compared = (!clients.is_empty()).then(|| Compared {
            words: words(query.terms.iter().filter(|term| !many(term)), known),
            clients,
        });
        Self {
            index: String::new(),
            words: words(query.terms.iter(), known),
            from: query.since.map_or(i64::MIN, id),
            to: query.until.map_or(i64::MAX, id),
            attributes: attributes.collect(),
            compared,
        }
    }

    /// The same for the lines from `first` on and before `end`, whose words are in the table `index`.
    pub(crate) fn within(&self, index: &str, first: i64, end: i64) -> Self {
        Self {
            index: index.to_owned(),
            from: self.from.max(first),
            to: self.to.min(end),
            ..self.clone()
        }
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
            compared: None,
            ..self.clone()
        }
    }
}

/// The beginning of a client that a condition asks for, if many clients begin so.
fn beginning_of_many(term: &Term, known: &Known) -> Option<String> {
    match &term.what {
        What::Field(Field::Client, values) if !term.negated => match values.as_slice() {
            [value] if value.is_prefix => {
                let is_known = known.contains_key(&tags::prefix(Kind::Client, &value.text));
                (!is_known).then(|| value.text.clone())
            }
            _ => None,
        },
        _ => None,
    }
}

/// The expression for `MATCH` of some conditions.
fn words<'a>(terms: impl Iterator<Item = &'a Term>, known: &Known) -> Option<String> {
    let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
    for Term { negated, what } in terms {
        if let Some(expression) = expression(what, *negated, known) {
            if *negated { &mut unwanted } else { &mut wanted }.push(expression);
        }
    }
    if wanted.is_empty() && !unwanted.is_empty() {
        // The index can only take away from something: every line has a level.
        wanted.push(levels(0, Severity::CLASSES.len() - 1));
    }
    if wanted.is_empty() {
        return None;
    }
    let mut words = wanted.join(" AND ");
    for expression in unwanted {
        words = format!("({words}) NOT {expression}");
    }
    Some(words)
}

/// What the index is asked for one condition; `None` if it cannot help.
fn expression(what: &What, negated: bool, known: &Known) -> Option<String> {
    Some(match what {
        What::Text(pattern) => match terms::word(&pattern.text).filter(|_| pattern.is_prefix) {
            Some(word) => begins(&word, known),
            None => quoted(&pattern.text, pattern.is_prefix),
        },
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
        What::Field(field, values) => either(values.iter().flat_map(|value| {
            let kinds = terms::kinds(*field).iter();
            kinds.map(|kind| field_is(*kind, value, known))
        })),
    })
}

fn field_is(kind: Kind, value: &Pattern, known: &Known) -> String {
    if value.is_prefix {
        return begins(&tags::prefix(kind, &value.text), known);
    }
    let mut tag = String::new();
    tags::push(&mut tag, kind, &value.text);
    quoted(&tag, false)
}

/// Terms that begin like this.
fn begins(beginning: &str, known: &Known) -> String {
    match known.get(beginning).map(Vec::as_slice) {
        None => quoted(beginning, true),
        // None does, so it is no term itself.
        Some([]) => quoted(beginning, false),
        Some(terms) => either(terms.iter().map(|term| quoted(term, false))),
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

    fn plan(query: &str, known: &Known) -> Plan {
        Plan::new(&query.parse().unwrap(), Timestamp::UNIX_EPOCH, known)
    }

    fn words(query: &str) -> String {
        words_of(plan(query, &Known::new()).words)
    }

    fn words_of(words: Option<String>) -> String {
        words.unwrap().replace('\u{e000}', "#").replace('\u{e001}', "%")
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
        let plan = plan(
            "since:1970-01-01T00:00:01Z until:1970-01-01T00:00:02Z",
            &Known::new(),
        );
        assert_eq!(plan.words, None);
        assert_eq!(plan.from, crate::id::row_id(1_000_000, 0));
        assert_eq!(plan.to, crate::id::row_id(2_000_000, 0));
    }
    #[test]
    fn a_beginning_becomes_the_few_terms_that_begin_so() {
        let term = |text: &str| text.replace('#', "\u{e000}").replace('%', "\u{e001}");
        let known: Known = [
            (
                term("#elink%2e"),
                vec![term("#elink%2edown"), term("#elink%2eup")],
            ),
            ("conn".to_owned(), vec!["connected".to_owned()]),
            ("zz".to_owned(), vec![]),
        ]
        .into();
        let of = |query| words_of(plan(query, &known).words);
        assert_eq!(of("event:link.*"), r##"(("#elink%2edown" OR "#elink%2eup"))"##);
        assert_eq!(of("Conn* zz*"), r##"("connected") AND "zz""##);
        assert_eq!(of("é*"), r##""é"*"##);
        assert_eq!(plan("event:link.* client:a", &known).compared, None);
    }

    #[test]
    fn where_many_clients_begin_so_they_may_be_compared_too() {
        let plan = |query| plan(query, &Known::new());
        let query = plan("client:sensor-* pipe");
        assert_eq!(words_of(query.words), r##"("#csensor%2d"*) AND "pipe""##);
        let compared = query.compared.unwrap();
        assert_eq!(
            (compared.words.as_deref(), compared.clients),
            (Some("\"pipe\""), vec!["sensor-".to_owned()])
        );
        assert_eq!(plan("client:sensor-*").compared.unwrap().words, None);
        assert_eq!(plan("-client:sensor-* client:a*,b").compared, None);
    }
}
