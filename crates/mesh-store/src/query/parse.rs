//! What the conditions of a query mean.

use jiff::Timestamp;
use mesh_model::Severity;

use super::lexer::{self, Lexeme, Value, error};
use super::{FIELDS, Field, Op, Pattern, Query, QueryError, Term, What, When, level_range};

/// More conditions are nobody's intention.
const MOST_TERMS: usize = 64;

/// Nor are longer texts.
const LONGEST: usize = 4096;

pub(super) fn parse(text: &str) -> Result<Query, QueryError> {
    let length = text.chars().count();
    if length > LONGEST {
        return Err(error(
            LONGEST,
            length - LONGEST,
            format!("a query has at most {LONGEST} characters"),
        ));
    }
    let mut query = Query::default();
    for lexeme in lexer::split(text)? {
        let at = lexeme.values[0].at;
        if query.terms.len() == MOST_TERMS {
            return Err(error(
                at,
                1,
                format!("a query has at most {MOST_TERMS} conditions"),
            ));
        }
        condition(&mut query, lexeme)?;
    }
    Ok(query)
}

fn condition(query: &mut Query, lexeme: Lexeme) -> Result<(), QueryError> {
    let Lexeme {
        negated,
        field,
        values,
    } = lexeme;
    let Some((name, op, at)) = field else {
        let what = What::Text(words(&values[0])?);
        query.terms.push(Term { negated, what });
        return Ok(());
    };
    let name_length = name.chars().count();
    if let Some(empty) = values.iter().find(|value| value.text.is_empty()) {
        let message = format!("a value is missing after {name}");
        return Err(error(empty.at.saturating_sub(1), 1, message));
    }
    match name.as_str() {
        "level" => {
            let what = level(op, &values)?;
            query.terms.push(Term { negated, what });
        }
        "since" | "until" => {
            if negated || op != Op::Is || values.len() > 1 {
                return Err(error(
                    at,
                    name_length,
                    format!("write {name}:10m, or {name}: and a time"),
                ));
            }
            let when = Some(time(&values[0])?);
            let place = if name == "since" {
                &mut query.since
            } else {
                &mut query.until
            };
            if place.is_some() {
                return Err(error(
                    at,
                    name_length,
                    format!("{name} stands here a second time"),
                ));
            }
            *place = when;
        }
        _ => {
            let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(&name, at));
            };
            if op != Op::Is {
                return Err(error(
                    at + name_length,
                    1,
                    format!("only level is compared; write {name}:VALUE"),
                ));
            }
            let patterns = values.iter().map(|value| value_of(*field, value));
            let what = What::Field(*field, patterns.collect::<Result<_, _>>()?);
            query.terms.push(Term { negated, what });
        }
    }
    Ok(())
}

fn unknown(name: &str, at: usize) -> QueryError {
    let names = FIELDS
        .iter()
        .map(|(known, _)| *known)
        .chain(["level", "since", "until"]);
    let near = names.clone().find(|known| is_near(name, known));
    let advice = match near {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are {}.", names.collect::<Vec<_>>().join(", ")),
    };
    let message = format!("unknown field {name:?}; {advice} To search for the text, quote it.");
    error(at, name.chars().count(), message)
}

/// Whether one letter more, less or other makes the one name the other, or the one begins with the other.
fn is_near(name: &str, known: &str) -> bool {
    let (a, b) = (name.as_bytes(), known.as_bytes());
    if name.len() >= 3 && known.starts_with(name) || name.starts_with(known) && known.len() >= 4 {
        return true;
    }
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let tail = |a: &[u8], b: &[u8]| a == b;
    match a.len() as isize - b.len() as isize {
        0 => same < a.len() && tail(&a[same + 1..], &b[same + 1..]),
        1 => tail(&a[same + 1..], &b[same..]),
        -1 => tail(&a[same..], &b[same + 1..]),
        _ => false,
    }
}

/// A word with a `*` at its end is the beginning of words.
fn words(value: &Value) -> Result<Pattern, QueryError> {
    let pattern = pattern(value);
    if pattern.text.chars().any(char::is_alphanumeric) {
        Ok(pattern)
    } else {
        let message = "there is no letter and no digit to search for";
        Err(error(value.at, value.length, message))
    }
}

fn value_of(field: Field, value: &Value) -> Result<Pattern, QueryError> {
    let pattern = pattern(value);
    if pattern.text.is_empty() {
        return Err(error(
            value.at,
            value.length,
            "write at least the beginning before the '*'",
        ));
    }
    if matches!(field, Field::Attribute(_)) && pattern.is_prefix {
        return Err(error(
            value.at,
            value.length,
            "this field cannot be searched for by its beginning",
        ));
    }
    Ok(pattern)
}

fn pattern(value: &Value) -> Pattern {
    match value.text.strip_suffix('*') {
        Some(begin) if !value.is_quoted => Pattern {
            text: begin.to_owned(),
            is_prefix: true,
        },
        _ => Pattern {
            text: value.text.clone(),
            is_prefix: false,
        },
    }
}

fn level(op: Op, values: &[Value]) -> Result<What, QueryError> {
    let [value] = values else {
        let second = &values[1];
        return Err(error(
            second.at,
            second.length,
            "write a range of levels as level>=… level<=…",
        ));
    };
    let wrong = |message: String| error(value.at, value.length, message);
    let severity: Severity = value
        .text
        .parse()
        .map_err(|invalid: mesh_model::log_record::InvalidSeverity| wrong(invalid.to_string()))?;
    let range = level_range(op, severity).ok_or_else(|| wrong("no level is beyond this one".to_owned()))?;
    Ok(What::Level(range.0, range.1))
}

fn time(value: &Value) -> Result<When, QueryError> {
    if let Ok(span) = humantime::parse_duration(&value.text) {
        return Ok(When::Ago(span));
    }
    match value.text.parse::<Timestamp>() {
        Ok(time) => Ok(When::At(time)),
        Err(_) => Err(error(
            value.at,
            value.length,
            "neither a span, e.g. 10m or 2h30m, nor a time, e.g. 2026-11-23T07:30:00Z",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        text.parse::<Query>().unwrap_err().to_string()
    }

    #[test]
    fn the_example_of_the_documentation_is_understood() {
        let text = r#"broker:broker3 level>=warn client:sensor-1 event:link.* "broken pipe" since:10m"#;
        let query: Query = text.parse().unwrap();
        assert_eq!(query.terms.len(), 5);
        assert_eq!(query.since, Some(When::Ago(std::time::Duration::from_secs(600))));
        assert_eq!(query.terms[1].what, What::Level(3, 5));
        let event = Pattern {
            text: "link.".to_owned(),
            is_prefix: true,
        };
        assert_eq!(query.terms[3].what, What::Field(Field::Event, vec![event]));
        let pipe = Pattern {
            text: "broken pipe".to_owned(),
            is_prefix: false,
        };
        assert_eq!(query.terms[4].what, What::Text(pipe));
    }

    #[test]
    fn hostile_values_can_be_asked_for_in_quotes() {
        let query: Query = r#"-client:"evil \"quoted\" as x (p2, c1)""#.parse().unwrap();
        let evil = Pattern {
            text: "evil \"quoted\" as x (p2, c1)".to_owned(),
            is_prefix: false,
        };
        assert_eq!(query.terms[0].what, What::Field(Field::Client, vec![evil]));
        assert!(query.terms[0].negated);
        let query: Query = "192.168.1.7:1883 client:a,b".parse().unwrap();
        assert!(matches!(&query.terms[0].what, What::Text(pattern) if pattern.text == "192.168.1.7:1883"));
        assert!(matches!(&query.terms[1].what, What::Field(Field::Client, values) if values.len() == 2));
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        assert_eq!(wrong("x \"open"), "column 3: this quote is not closed");
        assert_eq!(
            wrong("brokr:x"),
            "column 1: unknown field \"brokr\"; did you mean broker? To search for the text, quote it."
        );
        assert!(wrong("a http://x").starts_with("column 3: unknown field \"http\"; there are broker, node"));
        assert_eq!(
            wrong("level>=loud"),
            "column 8: \"loud\" is not a level: use trace, debug, info, warn, error or fatal"
        );
        assert_eq!(wrong("level>fatal"), "column 7: no level is beyond this one");
        assert_eq!(
            wrong("a broker>b"),
            "column 9: only level is compared; write broker:VALUE"
        );
        assert_eq!(wrong("broker:"), "column 7: a value is missing after broker");
        assert_eq!(wrong("broker:a,"), "column 9: a value is missing after broker");
        assert_eq!(
            wrong("ü ***"),
            "column 3: there is no letter and no digit to search for"
        );
        assert_eq!(
            wrong("x -"),
            "column 3: there is nothing after the '-'; to search for it, quote it"
        );
        assert_eq!(wrong("\"a\"b"), "column 4: expected a space before 'b'");
        assert_eq!(
            wrong("since:1h since:2h"),
            "column 10: since stands here a second time"
        );
        assert!(wrong("since:soon").starts_with("column 7: neither a span"));
        let text = "a brokr:x";
        let error = text.parse::<Query>().unwrap_err();
        assert!(error.pointed(text).starts_with("a brokr:x\n  ^^^^^\ncolumn 3: "));
    }

    #[test]
    fn an_empty_query_means_everything() {
        assert_eq!("  ".parse::<Query>().unwrap(), Query::default());
    }
}
