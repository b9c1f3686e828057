//! `meshctl logs`: every line of the network, searched, followed, exported.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use mesh_model::Severity;
use mesh_runtime::shutdown;
use mesh_store::reader::Place;
use mesh_store::row::rfc3339;
use mesh_store::{LogRow, Query, Reader, StoreError};

use crate::find::NetworkArgs;

/// How often a reader that follows looks for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Lines of one question.
const PAGE: u32 = 2000;

/// Flags of `meshctl logs`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = LANGUAGE)]
pub struct LogsArgs {
    #[command(subcommand)]
    command: Option<Command>,

    /// What to look for; everything if not given
    query: Vec<String>,

    /// Go on with new lines as they come
    #[arg(short, long)]
    follow: bool,

    /// Print each line as JSON, in OpenTelemetry's words
    #[arg(long)]
    json: bool,

    /// How many lines at most, the newest; 10 with --follow
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u32>,

    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all lines that a query asks for as JSON, one a line, the oldest first
    Export(ExportArgs),
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// What to look for; everything if not given
    query: Vec<String>,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, clap::Args)]
struct PlaceArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// Another database than the one that the configuration names
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
}

const LANGUAGE: &str = "\
Everything in a query must hold:
  broken \"broken pipe\" conn*        words, words in a row, the beginning of a word
  broker:broker3 client:a,b         a field is this, or one of these; also event:link.*
  level>=warn                       trace, debug, info, warn, error, fatal; also : > < <=
  since:10m until:2026-11-23T08:00:00Z
  -keepalive -client:x              not this
Fields: broker, node, service, event, client, from, to, generation, incident, reason, error, user, remote_addr,
upstream, target. Quote the whole query for the shell, and put -- before one that begins
with a -: meshctl logs 'level>=warn \"broken pipe\" since:1h'";

/// Shows, follows or exports lines.
pub async fn run(args: LogsArgs) -> anyhow::Result<ExitCode> {
    if let Some(Command::Export(args)) = args.command {
        return export(args).await;
    }
    let Some(query) = parse(&args.query) else {
        return Ok(2.into());
    };
    let reader = open(&args.place).await?;
    let mut out = Printer::new(args.json);
    let from = reader.last_observed().await?;
    let limit = args.lines.unwrap_or(if args.follow { 10 } else { 1000 });
    let shown = last(&reader, &query, limit).await?;
    let is_cut = shown.len() == limit as usize && args.lines.is_none() && !args.follow;
    out.print(shown.iter().rev())?;
    if is_cut && !args.json {
        eprintln!("(the newest {limit}; more with -n, all with `meshctl logs export`)");
    }
    if args.follow {
        let stop = shutdown::requested();
        tokio::select! {
            followed = follow(&reader, &query, from, &mut out) => followed?,
            signal = stop => drop(signal?),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest lines, the newest first.
async fn last(reader: &Reader, query: &Query, limit: u32) -> Result<Vec<LogRow>, StoreError> {
    let (mut rows, mut place) = (Vec::new(), Place::Newest);
    while rows.len() < limit as usize {
        let page = reader
            .page(query, place, PAGE.min(limit - rows.len() as u32))
            .await?;
        rows.extend(page.rows);
        match page.older {
            Some(id) => place = Place::Before(id),
            None => break,
        }
    }
    Ok(rows)
}

async fn follow(reader: &Reader, query: &Query, from: i64, out: &mut Printer) -> anyhow::Result<()> {
    let mut seen = from;
    loop {
        let news = reader.news(query, seen, u32::MAX).await?;
        out.print(news.rows.iter())?;
        if news.until == seen {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        seen = news.until;
    }
}

async fn export(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let Some(query) = parse(&args.query) else {
        return Ok(2.into());
    };
    let reader = open(&args.place).await?;
    let out: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(std::fs::File::create(path)?),
        None => Box::new(io::stdout().lock()),
    };
    let mut out = BufWriter::new(out);
    let mut place = Place::After(i64::MIN);
    loop {
        let page = reader.page(&query, place, PAGE).await?;
        for row in &page.rows {
            serde_json::to_writer(&mut out, row)?;
            out.write_all(b"\n")?;
        }
        match page.rows.last() {
            Some(row) => place = Place::After(row.id),
            None => break,
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What was typed as a query; an error is shown with its place.
fn parse(words: &[String]) -> Option<Query> {
    let text = words.join(" ");
    match text.parse::<Query>() {
        Ok(query) => Some(query),
        Err(error) => {
            eprintln!("meshctl: this is not a query:\n{}", error.pointed(&text));
            None
        }
    }
}

async fn open(place: &PlaceArgs) -> anyhow::Result<Reader> {
    let path = match &place.database {
        Some(path) => path.clone(),
        None => place.network.load()?.logs.database,
    };
    Ok(Reader::open(&path).await?)
}

/// Prints lines for people, in colours on a terminal, or as JSON.
struct Printer {
    json: bool,
    colours: bool,
}

impl Printer {
    fn new(json: bool) -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colours }
    }

    fn print<'a>(&mut self, rows: impl Iterator<Item = &'a LogRow>) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        for row in rows {
            if self.json {
                serde_json::to_writer(&mut out, row)?;
                out.write_all(b"\n")?;
            } else {
                out.write_all(self.line(row).as_bytes())?;
            }
        }
        out.flush()?;
        Ok(())
    }

    fn line(&self, row: &LogRow) -> String {
        let place = match (&row.broker, &row.node) {
            (Some(broker), _) => broker.as_str(),
            (None, Some(node)) => node.as_str(),
            (None, None) => "-",
        };
        let (begin, end) = match (self.colours, row.severity.class()) {
            (false, _) | (true, 2) => ("", ""),
            (true, 0 | 1) => ("\x1b[2m", "\x1b[0m"),
            (true, 3) => ("\x1b[33m", "\x1b[0m"),
            (true, _) => ("\x1b[1;31m", "\x1b[0m"),
        };
        let mut text = format!(
            "{} {:5} {place} {}: {begin}{}",
            rfc3339(row.time_ns),
            Severity::CLASSES[row.severity.class()],
            row.service,
            harmless(&row.body)
        );
        // What a daemon of ours says is in the fields; others' attributes are parts of what they say.
        if row.service.starts_with("mesh-")
            && let Some(attributes) = &row.attributes
            && let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(attributes.get())
        {
            for (name, value) in fields.iter().filter(|(name, _)| *name != "target") {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text += &format!(" {name}={}", harmless(&value));
            }
        }
        text + end + "\n"
    }
}

/// Without what would move a terminal's cursor or worse: lines contain what strangers chose.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(severity: Severity) -> LogRow {
        LogRow {
            id: 1,
            time_ns: 0,
            observed_ns: 0,
            severity,
            severity_text: severity.name(),
            body: "words".to_owned(),
            attributes: None,
            event: None,
            node: None,
            broker: None,
            service: "mosquitto".to_owned(),
            client_id: None,
            source: None,
        }
    }

    #[test]
    fn colours_tell_how_severe_a_line_is_on_a_terminal_only() {
        let on = |colours| Printer { json: false, colours };
        for (severity, begin) in [
            (Severity::DEBUG, "\x1b[2m"),
            (Severity::WARN, "\x1b[33m"),
            (Severity::ERROR, "\x1b[1;31m"),
        ] {
            let line = on(true).line(&row(severity));
            assert!(line.ends_with(&format!(": {begin}words\x1b[0m\n")), "{line:?}");
            assert!(!on(false).line(&row(severity)).contains('\x1b'));
        }
        assert!(!on(true).line(&row(Severity::INFO)).contains('\x1b'));
    }
}
