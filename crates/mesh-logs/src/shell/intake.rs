//! From a stream of lines to chunks for the pipeline.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mesh_model::{Attributes, LogRecord, Severity};
use mesh_runtime::config::{LogFormat, LogSource};
use mesh_store::{NewRow, SourceState, id};
use tokio::sync::{mpsc, oneshot};

use crate::core::{Fact, Format, Parsed, Parser, Place};

/// The event of a line that says that others may be missing.
pub const GAP: &str = "logs.gap";

/// What a line tells: the fact, the broker whose line it is, and the time.
pub type Told = (Fact, Option<Arc<str>>, i64);

/// Lines of one stream, and how far it has been read with them.
#[derive(Debug)]
pub struct Chunk {
    /// The lines.
    pub rows: Vec<NewRow>,
    /// What they tell.
    pub facts: Vec<Told>,
    /// How far the stream has been read.
    pub state: SourceState,
}

/// What the pipeline is asked for.
#[derive(Debug)]
pub enum Order {
    /// Store these lines.
    Store(Chunk),
    /// Say how far a stream has been read; a new one is made.
    Register {
        /// The source.
        name: String,
        /// The file, where the source has many.
        stream: String,
        /// Where the answer goes.
        reply: oneshot::Sender<SourceState>,
    },
    /// Forget a stream that is gone for good.
    Forget(i64),
    /// Store incidents.
    Incidents(Vec<mesh_model::Incident>),
    /// Store samples.
    Samples(Vec<mesh_store::history::Sample>),
}

/// The way to the pipeline. It is short: who sends waits while the database is slow, and reads no more meanwhile.
pub type Orders = mpsc::Sender<Order>;

/// The pipeline has ended, so the program is about to.
#[derive(Debug, thiserror::Error)]
#[error("the pipeline has ended")]
pub struct Ended;

/// Makes chunks of the lines of one stream.
#[derive(Debug)]
pub struct Intake {
    pub(super) state: SourceState,
    pub(super) parser: Parser,
    place: Place,
    rows: Vec<NewRow>,
    facts: Vec<Told>,
}

/// Now, in nanoseconds since 1970.
pub fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0)
}

impl Intake {
    /// For the stream of `source` that has been read as far as `state` says.
    pub fn new(source: &LogSource, state: SourceState) -> Self {
        let broker: Option<Arc<str>> = source.broker.as_ref().map(|id| id.as_str().into());
        let place = Place {
            node: source.node.as_deref().map(Into::into).or_else(|| broker.clone()),
            broker,
            service: source.service.as_deref().map(Into::into),
        };
        let format = match source.format {
            LogFormat::Auto => Format::Auto,
            LogFormat::Mosquitto => Format::Mosquitto,
            LogFormat::Nginx => Format::Nginx,
            LogFormat::Mesh => Format::Mesh,
            LogFormat::Plain => Format::Plain,
        };
        Self {
            state,
            parser: Parser::new(format, place.clone(), TimeZone::system()),
            place,
            rows: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// Takes in a line of so many bytes with its end.
    pub fn line(&mut self, line: &[u8], bytes: u64, read_ns: i64) {
        let parsed = self.parser.parse(line, read_ns);
        self.parsed(parsed, bytes, read_ns);
    }

    /// Takes in what a parser made of a line.
    pub fn parsed(&mut self, parsed: Parsed, bytes: u64, read_ns: i64) {
        let Parsed {
            record,
            fact,
            understood,
        } = parsed;
        self.state.lines += 1;
        self.state.bytes += bytes;
        self.state.unparsed += u64::from(!understood);
        self.state.read_ns = read_ns;
        if let Some(fact) = fact {
            self.facts
                .push((*fact, self.place.broker.clone(), record.time_ns));
        }
        self.push(record, read_ns);
    }

    /// Files `record` under its time. What was read did not happen later: where a clock is ahead, that is when it was read.
    fn push(&mut self, record: LogRecord, read_ns: i64) {
        self.state.last_key = id::next_key(self.state.last_key, record.time_ns.min(read_ns));
        self.rows
            .push(NewRow::new(record, self.state.id, self.state.last_key));
    }

    /// Notes, for everybody to see, that lines may be missing here.
    pub fn gap(&mut self, why: String, now_ns: i64) {
        self.state.gaps += 1;
        tracing::warn!(event = GAP, source = self.state.name, why, "lines may be missing");
        let mut attributes = Attributes::default();
        attributes.set("reason", why.clone());
        attributes.set("source", self.state.name.clone());
        let record = LogRecord {
            time_ns: now_ns,
            severity: Severity::WARN,
            body: format!("lines of {} may be missing here: {why}", self.state.name),
            attributes,
            event: Some(GAP.into()),
            node: self.place.node.clone(),
            broker: self.place.broker.clone(),
            service: "mesh-logs".into(),
            client_id: None,
        };
        self.push(record, now_ns);
    }

    /// Whether there is anything to store.
    pub fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    /// How many lines wait to be taken.
    pub fn pending(&self) -> usize {
        self.rows.len()
    }

    /// What has been taken in since the last call, with how far the stream has been read.
    pub fn take(&mut self) -> Chunk {
        Chunk {
            rows: std::mem::take(&mut self.rows),
            facts: std::mem::take(&mut self.facts),
            state: self.state.clone(),
        }
    }
}

/// Asks the pipeline how far a stream has been read.
///
/// # Errors
///
/// [`Ended`].
pub async fn register(orders: &Orders, name: &str, stream: &str) -> Result<SourceState, Ended> {
    let (reply, answer) = oneshot::channel();
    let order = Order::Register {
        name: name.to_owned(),
        stream: stream.to_owned(),
        reply,
    };
    orders.send(order).await.map_err(|_| Ended)?;
    answer.await.map_err(|_| Ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_runtime::config::SourceKind;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn lines_of_a_clock_that_is_ahead_are_filed_when_they_were_read() {
        let source = LogSource {
            name: "broker1".to_owned(),
            kind: SourceKind::File("/broker1.log".into()),
            format: LogFormat::Mosquitto,
            node: None,
            broker: None,
            service: None,
        };
        let mut intake = Intake::new(&source, SourceState::default());
        let read = 1_790_000_000 * SECOND;
        // A second ago, a day ahead, a day and a second ahead, and right again.
        for (clock, read_ns, filed) in [
            (1_789_999_999_i64, read, read - SECOND),
            (1_790_086_400, read, read),
            (1_790_086_401, read + SECOND, read + SECOND),
            (1_790_000_002, read + 2 * SECOND, read + 2 * SECOND),
        ] {
            intake.line(format!("{clock}: some words").as_bytes(), 23, read_ns);
            assert_eq!(intake.state.last_key, filed / 1000, "{clock}");
        }
        let rows = intake.take().rows;
        let times: Vec<i64> = rows.iter().map(|row| row.columns().time_ns / SECOND).collect();
        assert_eq!(
            times,
            [1_789_999_999, 1_790_086_400, 1_790_086_401, 1_790_000_002]
        );
    }
}
