//! The account of a run: Markdown for people, JSON for programs, and a plot.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::book::{Felt, Pages};
use crate::ledger::{Cause, Tally};
use crate::network::Network;
use crate::percentiles::Percentiles;
use crate::plot;
use crate::run::Options;
use crate::schedule::Kind;

/// What became of everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What the schedule followed from.
    pub seed: u64,
    /// Between two faults, in seconds.
    pub every_s: f64,
    /// How long it ran, in seconds.
    pub ran_s: f64,
    /// How many brokers there were.
    pub brokers: usize,
    /// How many clients behind the balancer.
    pub clients: usize,
    /// What became of the messages.
    pub messages: Tally,
    /// What clients felt, by kind of fault, and whether it met the primary.
    pub kinds: Vec<KindReport>,
    /// Connections that ended before the first fault.
    pub unprovoked: u64,
    /// Every fault.
    pub faults: Vec<Felt>,
    /// The first broken promise; `None` if all were kept.
    pub broken: Option<String>,
    /// The first hundred of them.
    pub all_broken: Vec<String>,
}

/// What clients felt of one kind of fault.
#[derive(Debug, Serialize)]
pub struct KindReport {
    /// The kind.
    pub kind: Kind,
    /// Whether it met the primary.
    pub on_primary: bool,
    /// How often it happened.
    pub faults: usize,
    /// Publishers that were cut: from the beginning of the fault until they were served again.
    pub publishers: Option<Percentiles>,
    /// Subscribers that were cut: until they were subscribed again.
    pub subscribers: Option<Percentiles>,
    /// The longest wait for an acknowledgement, in milliseconds.
    pub longest_wait_ms: f64,
}

impl Report {
    pub(crate) fn new(
        options: &Options,
        network: &Network,
        pages: &Pages,
        ran: Duration,
        broken: Option<String>,
    ) -> Self {
        let mut kinds: BTreeMap<(Kind, bool), Vec<&Felt>> = BTreeMap::new();
        for fault in &pages.faults {
            kinds
                .entry((fault.kind, !fault.on_primary))
                .or_default()
                .push(fault);
        }
        let kinds = kinds.into_iter().map(|((kind, off_primary), faults)| {
            let all = |of: fn(&Felt) -> &Vec<Duration>| {
                Percentiles::of(
                    faults
                        .iter()
                        .flat_map(|fault| of(fault).iter().copied())
                        .collect(),
                )
            };
            let longest = faults
                .iter()
                .map(|fault| fault.longest_wait)
                .max()
                .unwrap_or_default();
            KindReport {
                kind,
                on_primary: !off_primary,
                faults: faults.len(),
                publishers: all(|fault| &fault.publishers),
                subscribers: all(|fault| &fault.subscribers),
                longest_wait_ms: (longest.as_secs_f64() * 1000.0).round(),
            }
        });
        Self {
            seed: options.seed,
            every_s: options.every.as_secs_f64(),
            ran_s: ran.as_secs_f64(),
            brokers: network.brokers().len(),
            clients: 2 * options.publishers,
            messages: pages.ledger.tally().clone(),
            kinds: kinds.collect(),
            unprovoked: pages.unprovoked,
            faults: pages.faults.clone(),
            broken,
            all_broken: pages.ledger.broken().to_vec(),
        }
    }

    /// Writes `report.md`, `report.json` and `outages.svg` into `folder`.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let put = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        put("report.json", serde_json::to_string_pretty(self)?)?;
        put("report.md", self.markdown())?;
        put(
            "outages.svg",
            plot::outages(&self.faults).context("draw the outages")?,
        )
    }

    /// The report in words and tables.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.describe(&mut text).ok();
        text
    }

    /// Writing to a `String` does not fail.
    fn describe(&self, out: &mut String) -> std::fmt::Result {
        let Self {
            seed,
            brokers,
            clients,
            messages,
            ..
        } = self;
        writeln!(out, "# Chaos, seed {seed}\n")?;
        match &self.broken {
            None => writeln!(out, "**Every promise was kept.**")?,
            Some(broken) => writeln!(out, "**A promise was broken:** {broken}")?,
        }
        writeln!(
            out,
            "\nA fault every {} s for {:.0} s, {} in all, on {brokers} brokers, with {clients} clients behind the balancer \
             and a witness at each broker.\n",
            self.every_s,
            self.ran_s,
            self.faults.len()
        )?;
        writeln!(out, "| messages | |\n|---|---:|")?;
        let twice = |cause| messages.twice.get(&cause).copied().unwrap_or(0);
        for (what, count) in [
            ("published", messages.sent),
            ("acknowledged", messages.acknowledged),
            ("**acknowledged and lost**", messages.lost),
            ("**twice without a cause**", messages.doubled),
            ("first deliveries", messages.received),
            (
                "twice: sent again by its publisher, who missed the PUBACK",
                twice(Cause::SentAgain),
            ),
            (
                "twice: sent again by a broker, who missed the subscriber's PUBACK",
                twice(Cause::Redelivered),
            ),
            (
                "twice: on a new connection, whose broker had it only then",
                twice(Cause::Reconnected),
            ),
            ("twice: very late", twice(Cause::Late)),
            (
                "missed by a subscriber that was between two brokers",
                messages.missed_moving,
            ),
            (
                "retained, and shown to some only as a later value of the topic",
                messages.superseded,
            ),
            (
                "acknowledged, and nobody was subscribed long enough to judge",
                messages.unjudged,
            ),
        ] {
            writeln!(out, "| {what} | {count} |")?;
        }
        writeln!(
            out,
            "\nTime from a fault until a client that it cut off was served again (p50 / p99 / max, with the client's own \
             pauses), and the longest that a message waited for its PUBACK:\n"
        )?;
        writeln!(
            out,
            "| fault | of | times | publishers cut | served again | subscribers cut | subscribed again | longest wait |\n\
             |---|---|---:|---:|---|---:|---|---:|"
        )?;
        for kind in &self.kinds {
            let of = match kind.kind {
                Kind::Health | Kind::Balancer => "",
                _ if kind.on_primary => "the primary",
                _ => "another broker",
            };
            let count = |times: &Option<Percentiles>| times.map_or(0, |times| times.count);
            let times =
                |times: &Option<Percentiles>| times.map_or_else(|| "–".to_owned(), |times| times.to_string());
            writeln!(
                out,
                "| {} | {of} | {} | {} | {} | {} | {} | {:.0} ms |",
                kind.kind,
                kind.faults,
                count(&kind.publishers),
                times(&kind.publishers),
                count(&kind.subscribers),
                times(&kind.subscribers),
                kind.longest_wait_ms
            )?;
        }
        writeln!(out, "\n![outages over time](outages.svg)\n")?;
        if !self.all_broken.is_empty() {
            writeln!(out, "Broken promises, the first {}:\n", self.all_broken.len())?;
            for broken in &self.all_broken {
                writeln!(out, "- {broken}")?;
            }
        }
        writeln!(
            out,
            "\nThe same faults again: `meshctl chaos --seed {seed} --every {}s`",
            self.every_s
        )
    }
}
