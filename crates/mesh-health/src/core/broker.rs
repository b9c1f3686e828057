//! What is believed of one broker, from its signs of life and their absence.
//!
//! Guarantees: a broker that was never heard is `unknown` until its first whole round trip, or dead after
//! `dead_after`; silence below `dead_after` has no consequence; a closed session means nothing until a fresh
//! connection was refused, or the broker tells that it was started again; a broker that died owes answers and time
//! before it is healthy, twice as much time for each further death within `flap_window`.

use std::time::Duration;

use mesh_model::HealthStatus;
use mesh_runtime::config::Health;

use super::Moment;

/// What a probe learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// A PINGREQ was answered on a session that the broker had accepted.
    Answer {
        /// How long the answer took.
        rtt: Duration,
    },
    /// A fresh connection was accepted and a message published on it came back.
    RoundTrip,
    /// A fresh connection was refused or reset: nobody is there.
    Refused(String),
    /// Something went wrong that is no proof of death. It is the reason given if the silence lasts.
    Trouble(String),
    /// The broker closed the probe's session. Only a fresh connection tells what that means.
    SessionEnded,
    /// The broker's plugin told the number of its start. Another number than before means that the broker died, even
    /// if nobody was refused: Nginx may have noticed.
    Boot(u64),
}

/// What is to be known of a broker after a restart of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Past {
    /// The number of the start that was last told.
    pub boot: Option<u64>,
    /// The deaths of late.
    pub deaths: Vec<Moment>,
}

/// The belief about one broker.
#[derive(Debug, Clone)]
pub struct BrokerHealth {
    status: HealthStatus,
    since: Moment,
    reason: Option<String>,
    rtt: Option<Duration>,
    heard: Moment,
    answering_since: Option<Moment>,
    proved: Option<Moment>,
    trouble: Option<String>,
    first_sign: Option<Moment>,
    answers: u64,
    round_trip: bool,
    recovery_time: Duration,
    past: Past,
    /// The death of this start was noticed, so the next number tells nothing new.
    buried: bool,
    /// Whether the session on which the number was told goes on, so that who answers there is the same start.
    same_session: bool,
    /// It was started again while nobody watched it.
    reborn: bool,
    /// It is dead, but only because the one that answers now is another start.
    back: bool,
}

impl BrokerHealth {
    /// A broker of which nothing is known at `now`.
    pub fn new(now: Moment) -> Self {
        Self {
            status: HealthStatus::Unknown,
            since: now,
            reason: None,
            rtt: None,
            heard: now,
            answering_since: None,
            proved: None,
            trouble: None,
            first_sign: None,
            answers: 0,
            round_trip: false,
            recovery_time: Duration::ZERO,
            past: Past::default(),
            buried: false,
            same_session: false,
            reborn: false,
            back: false,
        }
    }

    /// Goes on with what was known before the daemon was restarted.
    pub fn recall(&mut self, past: Past) {
        self.past = past;
    }

    /// What is to be known after the next restart.
    pub fn past(&self) -> Past {
        self.past.clone()
    }

    /// Whether it was started again while nobody watched it. Says so once.
    pub fn take_reborn(&mut self) -> bool {
        std::mem::take(&mut self.reborn)
    }

    /// Whether it died and is there again, but has not answered since.
    pub fn is_back(&self) -> bool {
        self.back
    }

    /// What is believed.
    pub fn status(&self) -> HealthStatus {
        self.status
    }

    /// Since when.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// Why.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// How long the last answer took; `None` while the broker does not answer.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Since when the broker has answered without dying in between.
    pub fn answering_since(&self) -> Option<Moment> {
        self.answering_since
    }

    /// Since when the broker has been healthy; being suspect in between does not count.
    pub fn healthy_since(&self) -> Option<Moment> {
        self.proved
    }

    /// The first sign of the fault that the broker died of, or suffers from.
    pub fn first_sign(&self) -> Option<Moment> {
        self.first_sign
    }

    /// Takes in a sign. Returns the new status if it changed.
    pub fn sign(&mut self, sign: Sign, now: Moment, rules: &Health) -> Option<HealthStatus> {
        match sign {
            Sign::Answer { rtt } => {
                self.rtt = Some(rtt);
                self.buried &= !self.same_session;
                self.hear(now);
                self.answers += 1;
                self.after_answer(now, rules)
            }
            Sign::RoundTrip => {
                self.hear(now);
                self.round_trip = true;
                self.after_answer(now, rules)
            }
            Sign::Refused(reason) => {
                self.first_sign.get_or_insert(now);
                (self.status != HealthStatus::Dead).then(|| self.die(reason, now, rules))
            }
            Sign::Trouble(reason) => {
                self.first_sign.get_or_insert(now);
                self.trouble = Some(reason);
                None
            }
            Sign::SessionEnded => {
                self.same_session = false;
                self.first_sign.get_or_insert(now);
                None
            }
            Sign::Boot(boot) => self.booted(boot, now, rules),
        }
    }

    fn booted(&mut self, boot: u64, now: Moment, rules: &Health) -> Option<HealthStatus> {
        self.same_session = true;
        let before = self.past.boot.replace(boot);
        let is_new = before.is_some_and(|before| before != boot);
        if std::mem::take(&mut self.buried) || !is_new {
            return None;
        }
        match self.status {
            HealthStatus::Dead => None,
            HealthStatus::Unknown => {
                self.reborn = true;
                None
            }
            _ => {
                self.first_sign.get_or_insert(now);
                let reason = "it was started again".to_owned();
                let died = self.die(reason, now, rules);
                // Told by the new start itself, whose number is known now.
                self.buried = false;
                self.back = true;
                Some(died)
            }
        }
    }

    /// Draws the consequences of silence. Returns the new status if it changed.
    pub fn timeout(&mut self, now: Moment, rules: &Health) -> Option<HealthStatus> {
        use HealthStatus::{Dead, Healthy, Suspect};
        let silence = now.since(self.heard);
        if self.status == Dead {
            return None;
        }
        if silence >= rules.dead_after {
            // The fault began after the last answer, so this counts it as long as it can have lasted.
            self.first_sign = Some(self.heard);
            let silent = format!("no answer for {} ms", silence.as_millis());
            let reason = match self.trouble.take() {
                Some(trouble) => format!("{silent}: {trouble}"),
                None => silent,
            };
            return Some(self.die(reason, now, rules));
        }
        if self.status == Healthy && silence >= rules.suspect_after {
            let reason = format!("no answer for {} ms", silence.as_millis());
            return Some(self.turn(Suspect, Some(reason), now));
        }
        None
    }

    /// When [`Self::timeout`] has something to do.
    pub fn deadline(&self, rules: &Health) -> Option<Moment> {
        match self.status {
            HealthStatus::Dead => None,
            HealthStatus::Healthy => Some(self.heard + rules.suspect_after),
            _ => Some(self.heard + rules.dead_after),
        }
    }

    /// The daemon itself was asleep for `lag`: that much silence proves nothing.
    pub fn excuse(&mut self, lag: Duration, now: Moment) {
        self.heard = now.min(self.heard + lag);
    }

    fn hear(&mut self, now: Moment) {
        self.heard = now;
        self.trouble = None;
        self.answering_since.get_or_insert(now);
        if self.status != HealthStatus::Dead {
            self.first_sign = None;
        }
    }

    fn after_answer(&mut self, now: Moment, rules: &Health) -> Option<HealthStatus> {
        use HealthStatus::{Dead, Healthy, Recovering, Suspect, Unknown};
        match self.status {
            Unknown if self.round_trip => Some(self.prove(now)),
            Suspect => Some(self.turn(Healthy, None, now)),
            Dead => {
                self.first_sign = None;
                self.answers = 1;
                self.round_trip = false;
                self.recovery_time = self.owed_time(now, rules);
                let reason = format!("answers again; healthy after {:.1?}", self.recovery_time);
                Some(self.turn(Recovering, Some(reason), now))
            }
            Recovering
                if self.round_trip
                    && self.answers >= rules.recovery_answers
                    && now.since(self.since) >= self.recovery_time =>
            {
                Some(self.prove(now))
            }
            _ => None,
        }
    }

    fn prove(&mut self, now: Moment) -> HealthStatus {
        self.proved = Some(now);
        self.turn(HealthStatus::Healthy, None, now)
    }

    /// The recovery time, doubled for each death but the first within the flap window.
    fn owed_time(&mut self, now: Moment, rules: &Health) -> Duration {
        let deaths = &mut self.past.deaths;
        deaths.retain(|death| now.since(*death) < rules.flap_window);
        let flaps = u32::try_from(deaths.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 1u32.checked_shl(flaps).unwrap_or(u32::MAX);
        rules
            .recovery_time
            .saturating_mul(factor)
            .min(rules.recovery_time_max)
    }

    fn die(&mut self, reason: String, now: Moment, rules: &Health) -> HealthStatus {
        // A broker that was not there when we started has not flapped.
        if self.status != HealthStatus::Unknown {
            let deaths = &mut self.past.deaths;
            deaths.retain(|death| now.since(*death) < rules.flap_window);
            deaths.push(now);
        }
        self.buried = true;
        self.rtt = None;
        self.answering_since = None;
        self.proved = None;
        self.turn(HealthStatus::Dead, Some(reason), now)
    }

    fn turn(&mut self, status: HealthStatus, reason: Option<String>, now: Moment) -> HealthStatus {
        self.status = status;
        self.back = false;
        self.since = now;
        self.reason = reason;
        status
    }
}
