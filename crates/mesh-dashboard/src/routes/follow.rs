//! Log lines that one reader of the event stream follows.

use axum::http::StatusCode;
use mesh_store::LogRow;
use mesh_store::query::Query;

use super::logs;
use crate::archive::Archive;
use crate::problem::Problem;

/// Queries of one stream: a browser has one stream for all its pages.
const MOST: usize = 16;

/// Lines at a time.
const BATCH: u32 = 200;

/// Reads in a row; after that the rest comes with the next look.
const READS: usize = 64;

/// One query, and how far it was followed.
#[derive(Debug)]
pub struct Follow {
    /// The query as it was given.
    pub q: String,
    query: Query,
    /// In nanoseconds since 1970, by when lines were stored; `None` if the database was not there yet.
    seen: Option<i64>,
}

/// The queries and the id that the parameters of a stream name.
///
/// # Errors
///
/// 400 for a wrong query, too many of them, or a parameter that there is not.
pub fn parse(parameters: &[(String, String)]) -> Result<(Vec<Follow>, Option<&str>), Problem> {
    let mut follows = Vec::new();
    let mut after = None;
    for (name, value) in parameters {
        match name.as_str() {
            "follow" => follows.push(Follow {
                q: value.clone(),
                query: logs::parse(value)?,
                seen: None,
            }),
            "after" => after = Some(value.as_str()),
            name => {
                let detail = format!("There is no parameter {name:?}; there are `follow` and `after`.");
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
        }
    }
    if follows.len() > MOST {
        let detail = format!("One stream follows at most {MOST} queries.");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    Ok((follows, after))
}

impl Follow {
    /// Follows what is stored after `seen`.
    pub fn begin(&mut self, seen: Option<i64>) {
        self.seen = seen;
    }

    /// Whether lines may be new, given until when lines were stored.
    pub fn is_behind(&self, until: Option<i64>) -> bool {
        until.is_some_and(|until| self.seen.is_none_or(|seen| seen < until))
    }

    /// The newest lines that were stored since, the oldest first, and how many before them were left out.
    ///
    /// # Errors
    ///
    /// 503 if the database cannot be read.
    pub async fn news(
        &mut self,
        archive: &Archive,
        until: Option<i64>,
    ) -> Result<(Vec<LogRow>, u64), Problem> {
        let mut lines: Vec<LogRow> = Vec::new();
        let mut dropped = 0;
        // A database that was not there before is followed from now on.
        let Some(mut seen) = self.seen else {
            self.seen = until;
            return Ok((lines, dropped));
        };
        let query = &self.query;
        for _ in 0..READS {
            let news = archive
                .read(async |reader| reader.news(query, seen, BATCH).await)
                .await?;
            if news.until == seen {
                break;
            }
            seen = news.until;
            lines.extend(news.rows);
            let over = lines.len().saturating_sub(BATCH as usize);
            lines.drain(..over);
            dropped += news.left_out + over as u64;
        }
        self.seen = Some(seen);
        Ok((lines, dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_queries_and_an_id() {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let asked = [("follow", "level>=warn"), ("after", "a.1"), ("follow", "")].map(pair);
        let (follows, after) = parse(&asked).unwrap();
        assert_eq!((follows.len(), after), (2, Some("a.1")));
        for wrong in [("follow", "level>=loud"), ("q", "x")].map(pair) {
            assert_eq!(parse(&[wrong]).unwrap_err().status, 400);
        }
        let many = vec![pair(("follow", "x")); MOST + 1];
        assert_eq!(parse(&many).unwrap_err().status, 400);
    }
}
