//! A plan as SQL.

use sqlx::{QueryBuilder, Sqlite};

use super::Plan;
use super::plan::Compared;

/// Where a line's id is to be had.
const INDEX: &str = "f.rowid";
const TABLE: &str = "l.id";

/// The newest, or if `is_rising` the oldest, `limit` lines of `plan`; of tables `f` (the index) and `l` (the lines).
pub(crate) fn lines(columns: &str, plan: &Plan, is_rising: bool, limit: i64) -> QueryBuilder<Sqlite> {
    let mut query = select(columns, plan);
    order(&mut query, plan.words.as_deref(), is_rising, limit);
    query
}

/// All lines of `plan`, to be restricted and ordered further.
pub(crate) fn select(columns: &str, plan: &Plan) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("");
    push_select(&mut query, columns, plan.words.as_deref(), plan, true);
    push_attributes(&mut query, plan);
    query
}

/// The same as [`select`] gives, by comparing each line's client.
pub(crate) fn select_compared(columns: &str, plan: &Plan, by: &Compared) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("");
    push_select(&mut query, columns, by.words.as_deref(), plan, true);
    push_clients(&mut query, by);
    push_attributes(&mut query, plan);
    query
}

/// Appends a query for the ids of the newest `limit` lines of `plan`.
pub(crate) fn append_ids(query: &mut QueryBuilder<Sqlite>, plan: &Plan, limit: i64) {
    let words = plan.words.as_deref();
    let with_rows = !plan.attributes.is_empty();
    push_select(query, &format!("{} AS id", place(words)), words, plan, with_rows);
    push_attributes(query, plan);
    order(query, words, false, limit);
}

/// The newest, or if `is_rising` the oldest, `limit` lines of [`select_compared`].
pub(crate) fn compared(
    columns: &str,
    plan: &Plan,
    by: &Compared,
    is_rising: bool,
    limit: i64,
) -> QueryBuilder<Sqlite> {
    let mut query = select_compared(columns, plan, by);
    order(&mut query, by.words.as_deref(), is_rising, limit);
    query
}

/// How many lines hold apart from their client and attributes, counted up to `most` from the end that is wanted, and
/// the ids of the first and the last of these.
pub(crate) fn candidates(plan: &Plan, by: &Compared, is_rising: bool, most: i64) -> QueryBuilder<Sqlite> {
    let words = by.words.as_deref();
    let mut query = QueryBuilder::new(
        "SELECT count(*) AS count, coalesce(min(id), 0) AS first, coalesce(max(id), 0) AS last FROM (",
    );
    push_select(&mut query, &format!("{} AS id", place(words)), words, plan, false);
    order(&mut query, words, is_rising, most);
    query.push(")");
    query
}

fn place(words: Option<&str>) -> &'static str {
    if words.is_some() { INDEX } else { TABLE }
}

/// The index first and each row after it: with a plain JOIN SQLite may choose to walk through all rows and ask the index
/// for each.
fn push_select(
    query: &mut QueryBuilder<Sqlite>,
    columns: &str,
    words: Option<&str>,
    plan: &Plan,
    with_rows: bool,
) {
    query.push("SELECT ").push(columns);
    match words {
        Some(words) => {
            query.push(" FROM ").push(&plan.index).push(" f ");
            if with_rows {
                query.push("CROSS JOIN log l ON l.id = f.rowid ");
            }
            query.push("WHERE f.").push(&plan.index);
            query.push(" MATCH ").push_bind(words.to_owned());
            if plan.from > i64::MIN {
                query.push(" AND f.rowid >= ").push_bind(plan.from);
            }
            if plan.to < i64::MAX {
                query.push(" AND f.rowid < ").push_bind(plan.to);
            }
        }
        None => {
            query.push(" FROM log l WHERE l.id >= ").push_bind(plan.from);
            query.push(" AND l.id < ").push_bind(plan.to);
        }
    }
}

fn push_clients(query: &mut QueryBuilder<Sqlite>, by: &Compared) {
    for beginning in &by.clients {
        query
            .push(" AND substr(l.client_id, 1, ")
            .push_bind(beginning.chars().count() as i64)
            .push(") = ")
            .push_bind(beginning.clone());
    }
}

fn push_attributes(query: &mut QueryBuilder<Sqlite>, plan: &Plan) {
    for (name, values, negated) in &plan.attributes {
        query.push(if *negated { " AND coalesce(" } else { " AND (" });
        query
            .push("CAST(l.attributes ->> ")
            .push_bind(format!("$.{name}"));
        query.push(if *negated {
            " AS TEXT), '') NOT IN ("
        } else {
            " AS TEXT)) IN ("
        });
        for (index, value) in values.iter().enumerate() {
            query
                .push(if index == 0 { "" } else { ", " })
                .push_bind(value.clone());
        }
        query.push(")");
    }
}

fn order(query: &mut QueryBuilder<Sqlite>, words: Option<&str>, is_rising: bool, limit: i64) {
    query.push(" ORDER BY ").push(place(words));
    query.push(if is_rising { " ASC LIMIT " } else { " DESC LIMIT " });
    query.push_bind(limit);
}
