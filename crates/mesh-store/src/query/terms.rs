//! The beginnings that a query asks for.
//!
//! FTS5 answers `begin*` by putting together the lines of every term that begins so before it gives the first one: as slow
//! as there are such lines, however few are wanted. Where only a few terms begin so, a query for each of them gives the
//! newest lines at once. Terms are found without their lines, by going from each to the one that follows it.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::{Field, Pattern, Query, Term, What};
use crate::error::{StoreError, While};
use crate::index::Part;
use crate::tags::{self, Kind};

/// More terms are not asked for one by one.
const FEW: usize = 32;

/// Beginnings, each with all terms of the index that begin so; those with many are left out.
pub(crate) type Known = BTreeMap<String, Vec<String>>;

/// The kinds of tags that a field is searched for in. A node that is called like its broker has no tag of its own.
pub(super) fn kinds(field: Field) -> &'static [Kind] {
    match field {
        Field::Broker => &[Kind::Broker],
        Field::Node => &[Kind::Node, Kind::Broker],
        Field::Service => &[Kind::Service],
        Field::Event => &[Kind::Event],
        Field::Client => &[Kind::Client],
        Field::Attribute(_) => &[],
    }
}

/// A word's beginning as the index has it, if that is known here: the tokenizer has its own ideas of other letters.
pub(super) fn word(text: &str) -> Option<String> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_plain.then(|| text.to_ascii_lowercase())
}

/// What `query` asks for by its beginning.
fn beginnings(query: &Query) -> Vec<String> {
    let mut found = Vec::new();
    for Term { what, .. } in &query.terms {
        match what {
            What::Text(Pattern {
                text,
                is_prefix: true,
            }) => found.extend(word(text)),
            What::Field(field, values) => {
                for value in values.iter().filter(|value| value.is_prefix) {
                    let tags = kinds(*field).iter().map(|kind| tags::prefix(*kind, &value.text));
                    found.extend(tags);
                }
            }
            What::Text(_) | What::Level(..) => {}
        }
    }
    found
}

/// The terms for the beginnings that `query` asks for, in these parts of the index.
///
/// # Errors
///
/// What SQLite says.
pub(crate) async fn known(
    connection: &mut SqliteConnection,
    query: &Query,
    parts: &[Part],
) -> Result<Known, StoreError> {
    let mut known = Known::new();
    for beginning in beginnings(query) {
        if let Some(few) = few(connection, &beginning, parts).await? {
            known.insert(beginning, few.into_iter().collect());
        }
    }
    Ok(known)
}

/// All terms that begin so, if they are few and can be had.
async fn few(
    connection: &mut SqliteConnection,
    beginning: &str,
    parts: &[Part],
) -> Result<Option<BTreeSet<String>>, StoreError> {
    let what = "look for words";
    let mut found = BTreeSet::new();
    for part in parts.iter().rev() {
        let Some(terms) = &part.terms else {
            return Ok(None);
        };
        // No term has a control character, so what is above a term and one of those is above the term alone.
        let ask = format!(
            "WITH RECURSIVE known (term) AS (\
                 SELECT (SELECT term FROM {terms} WHERE term >= ?1 LIMIT 1) \
                 UNION ALL \
                 SELECT (SELECT t.term FROM {terms} t WHERE t.term >= known.term || char(1) LIMIT 1) \
                 FROM known WHERE known.term < ?2 LIMIT ?3\
             ) SELECT term FROM known WHERE term < ?2"
        );
        let rows = sqlx::query(AssertSqlSafe(ask))
            .bind(beginning)
            .bind(format!("{beginning}\u{10ffff}"))
            .bind(FEW as i64 + 2)
            .fetch_all(&mut *connection)
            .await
            .during(what)?;
        for row in &rows {
            found.insert(row.try_get("term").during(what)?);
        }
        if found.len() > FEW {
            return Ok(None);
        }
    }
    Ok(Some(found))
}
