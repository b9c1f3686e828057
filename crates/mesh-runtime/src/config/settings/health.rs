//! `[health]`: when a broker is dead, and what follows.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{HOUR, MINUTE, MS, SECOND};
use crate::config::reader::Reader;

/// When clients go back to a more preferred broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// Only when an operator says so.
    Never,
    /// By itself, when the more preferred broker has been healthy for this long.
    After(Duration),
}

impl FromStr for Failback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let after = text
            .strip_prefix("after ")
            .and_then(|rest| humantime::parse_duration(rest).ok());
        match after {
            Some(after) if after >= SECOND => Ok(Self::After(after)),
            Some(_) => Err("must be at least \"after 1s\"".to_owned()),
            None => Err(format!("{text:?} is neither \"never\" nor like \"after 5m\"")),
        }
    }
}

/// `[health]`: how brokers are watched and when clients are moved.
#[derive(Debug, Clone)]
pub struct Health {
    /// Where the API answers.
    pub listen: SocketAddr,
    /// Time between two PINGREQ of a probe session.
    pub probe_interval: Duration,
    /// Silence after which a broker is suspect.
    pub suspect_after: Duration,
    /// Silence after which a broker is dead.
    pub dead_after: Duration,
    /// Time between two fresh connections and round trips.
    pub round_trip_interval: Duration,
    /// Answers in time that a broker owes before it is healthy again.
    pub recovery_answers: u64,
    /// Time for which a broker must answer before it is healthy again.
    pub recovery_time: Duration,
    /// The most that the recovery time is doubled to.
    pub recovery_time_max: Duration,
    /// Time for which a broker's death counts as a flap.
    pub flap_window: Duration,
    /// Lag of the daemon's own loop above which it gives no verdict.
    pub max_loop_lag: Duration,
    /// Time between two canaries of a broker.
    pub canary_interval: Duration,
    /// Silence of a link's canaries after which it is down.
    pub link_down_after: Duration,
    /// When clients go back to a more preferred broker.
    pub failback: Failback,
    /// Switches that need not be, e.g. automatic failbacks, within `optional_switch_window`.
    pub optional_switches: u64,
    /// The time in which optional switches are counted.
    pub optional_switch_window: Duration,
    /// How long a choice in need waits for a better one.
    pub need_grace: Duration,
    /// How long it takes to move the sessions off a draining broker.
    pub drain_time: Duration,
    /// Where is kept what must survive a restart of mesh-health; beside `upstream.conf` if not given.
    pub state_file: Option<PathBuf>,
}

pub(super) fn read(reader: &mut Reader) -> Health {
    let mut s = reader.section("health");
    let health = Health {
        listen: s.address("listen", ([127, 0, 0, 1], 3001).into(), "where the API answers"),
        probe_interval: s.duration(
            "probe_interval",
            "200ms",
            10 * MS..=MINUTE,
            "time between two PINGREQ of a probe session; varied by 10 %",
        ),
        suspect_after: s.duration(
            "suspect_after",
            "250ms",
            10 * MS..=MINUTE,
            "silence after which a broker is suspect; nothing is done yet",
        ),
        dead_after: s.duration(
            "dead_after",
            "1s",
            50 * MS..=10 * MINUTE,
            "silence after which a broker is dead",
        ),
        round_trip_interval: s.duration(
            "round_trip_interval",
            "2s",
            100 * MS..=10 * MINUTE,
            "time between two fresh connections with a published message",
        ),
        recovery_answers: s.number(
            "recovery_answers",
            5,
            1..=10_000,
            "answers that a returning broker owes before it is healthy",
        ),
        recovery_time: s.duration(
            "recovery_time",
            "10s",
            MS..=HOUR,
            "time for which a returning broker must answer before it is healthy; doubled by each flap",
        ),
        recovery_time_max: s.duration(
            "recovery_time_max",
            "10m",
            MS..=24 * HOUR,
            "the most it is doubled to",
        ),
        flap_window: s.duration(
            "flap_window",
            "10m",
            SECOND..=24 * HOUR,
            "how long a death counts as a flap",
        ),
        max_loop_lag: s.duration(
            "max_loop_lag",
            "100ms",
            MS..=MINUTE,
            "lag of mesh-health's own loop above which it gives no verdict",
        ),
        canary_interval: s.duration(
            "canary_interval",
            "1s",
            50 * MS..=MINUTE,
            "time between two canaries",
        ),
        link_down_after: s.duration(
            "link_down_after",
            "2500ms",
            100 * MS..=10 * MINUTE,
            "silence of canaries between two healthy brokers after which their link is down",
        ),
        failback: s.parsed_or(
            "failback",
            "\"never\" or e.g. \"after 5m\"",
            "never",
            Failback::Never,
            "when clients go back to a more preferred broker by themselves: once it has been healthy for that long",
        ),
        optional_switches: s.number(
            "optional_switches",
            3,
            1..=1000,
            "switches that need not be (automatic failbacks) within `optional_switch_window`; more are held back",
        ),
        optional_switch_window: s.duration(
            "optional_switch_window",
            "5m",
            SECOND..=24 * HOUR,
            "the time in which they are counted",
        ),
        need_grace: s.duration(
            "need_grace",
            "300ms",
            MS..=MINUTE,
            "how long, when the primary is dead and nobody is eligible, a choice in need waits for a better one",
        ),
        drain_time: s.duration(
            "drain_time",
            "30s",
            100 * MS..=24 * HOUR,
            "the time over which the sessions of a draining broker are moved, in slices",
        ),
        state_file: s.optional_path(
            "state_file",
            "what mesh-health must know after its own restart is kept there; `mesh-health.json` in balancer.dir if not given",
        ),
    };
    if health.suspect_after <= health.probe_interval {
        s.problem(
            "suspect_after",
            "must be more than health.probe_interval, or every broker is always suspect",
        );
    }
    if health.dead_after <= health.suspect_after {
        s.problem("dead_after", "must be more than health.suspect_after");
    }
    if health.recovery_time_max < health.recovery_time {
        s.problem("recovery_time_max", "must not be less than health.recovery_time");
    }
    if health.link_down_after <= health.canary_interval {
        s.problem("link_down_after", "must be more than health.canary_interval");
    }
    health
}
