//! Faults, one after the other, while a fleet lives through them.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::Fault;
use mesh_model::{BrokerId, HealthStatus};
use tokio::time::{Instant, sleep, sleep_until};

use crate::book::{Book, Felt};
use crate::evidence;
use crate::fleet::{Fleet, FleetOptions};
use crate::ledger::PATIENCE;
use crate::network::Network;
use crate::report::Report;
use crate::retained;
use crate::schedule::{Kind, Schedule, Step, Victim};

/// For the fleet to connect at the beginning.
const START: Duration = Duration::from_secs(60);

/// Between two looks at the account.
const STEP: Duration = Duration::from_millis(250);

/// Who is not served for longer than that does not come back by itself. At any time at most one broker has a fault, but
/// those that were broken before may still be recovering.
const ABSENCE: Duration = Duration::from_secs(30);

/// Between two questions to mesh-health who is there.
const ASK: Duration = Duration::from_secs(1);

/// A broker that is refused for longer than that after its fault was mended has died by itself.
const AFTERMATH: Duration = Duration::from_secs(10);

/// Of a hundred packets so many are dropped.
const LOSS: u8 = 20;

/// What chaos shall be.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the schedule follows from.
    pub seed: u64,
    /// Between the beginnings of two faults.
    pub every: Duration,
    /// For how long faults are made.
    pub duration: Duration,
    /// Which.
    pub kinds: Vec<Kind>,
    /// How many publishers, each with a subscriber.
    pub publishers: usize,
    /// Messages a second of each publisher.
    pub rate: f64,
    /// Where what is needed to understand a broken promise is kept.
    pub folder: PathBuf,
}

/// How it goes.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Since the beginning.
    pub at: Duration,
    /// How many clients are served, and how many there are.
    pub served: (usize, usize),
    /// Faults so far.
    pub faults: usize,
    /// What became of the messages so far.
    pub tally: crate::ledger::Tally,
    /// Publishers' outages so far.
    pub outages: Option<crate::Percentiles>,
}

/// Is told of what happens.
pub trait Watcher {
    /// Something has happened.
    fn event(&mut self, text: &str);
    /// How it goes, a few times a second.
    fn progress(&mut self, progress: &Progress);
}

/// Brings chaos to a network until its time is over, `stop` completes, or a promise is broken.
///
/// # Errors
///
/// If the fleet cannot connect at the beginning, a fault cannot be put in place, or a file cannot be written. A broken
/// promise is no error but part of the report.
pub async fn run(
    network: &Network,
    options: &Options,
    watcher: &mut dyn Watcher,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<Report> {
    anyhow::ensure!(!options.kinds.is_empty(), "name at least one fault");
    let cuts = options.kinds.iter().find(|kind| kind.needs_namespaces());
    if let Some(kind) = cuts.filter(|_| !network.can_cut()) {
        anyhow::bail!("{kind} needs a network for each broker; run it with --netns");
    }
    let witnesses = network.brokers().iter();
    let clients = FleetOptions {
        clients: vec![network.balancer()],
        witnesses: witnesses
            .map(|(id, address)| (id.to_string(), *address))
            .collect(),
        publishers: options.publishers,
        subscribers: true,
        rate: options.rate,
        login: network.login().clone(),
    };
    let fleet = Fleet::start(&clients, START).await?;
    let clients = fleet.book().pages().clients();
    watcher.event(&format!(
        "{clients} clients are connected and publish; seed {}",
        options.seed
    ));
    let mut chaos = Chaos {
        network,
        book: fleet.book().clone(),
        begin: Instant::now(),
        offset: fleet.book().now(),
        primary: network.brokers()[0].0.clone(),
        watcher,
        broken: None,
        asked: Instant::now(),
    };
    tokio::select! {
        done = chaos.faults(options) => if let Err(error) = done {
            // Most often a broker that should have been there.
            chaos.broken.get_or_insert(format!("{error:#}"));
        },
        () = stop => chaos.watcher.event("stopped before its time"),
    }
    // What broke promises would only be overwritten by more of it.
    if chaos.broken.is_none() {
        chaos.mend_all().await?;
        chaos
            .watcher
            .event("everything is mended; waiting until all is acknowledged and has come to everyone");
        fleet.settle(PATIENCE).await;
        chaos.look();
    }
    if chaos.broken.is_none() {
        chaos.broken = retained::check(network, &fleet, options.publishers, PATIENCE).await;
    }
    let broken = chaos.broken.take();
    let report = Report::new(
        options,
        network,
        &fleet.book().pages(),
        fleet.book().now(),
        broken,
    );
    std::fs::create_dir_all(&options.folder).context("make the folder of the report")?;
    report.write(&options.folder)?;
    if report.broken.is_some() {
        evidence::gather(network, &options.folder).await?;
    }
    Ok(report)
}

struct Chaos<'a> {
    network: &'a Network,
    book: Book,
    begin: Instant,
    /// What the book's clock said then.
    offset: Duration,
    /// Who mesh-health last said is the primary.
    primary: BrokerId,
    watcher: &'a mut dyn Watcher,
    broken: Option<String>,
    /// When mesh-health was asked last.
    asked: Instant,
}

impl Chaos<'_> {
    async fn faults(&mut self, options: &Options) -> anyhow::Result<()> {
        let schedule = Schedule::new(
            options.seed,
            &options.kinds,
            options.every,
            self.network.brokers().len(),
        );
        for step in schedule.take_while(|step| step.at + step.lasts <= options.duration) {
            if !self.until(self.begin + step.at).await {
                return Ok(());
            }
            let (begin, mend) = self.faults_of(step).await;
            let end = Instant::now() + step.lasts;
            self.network.fault(&begin).await?;
            if !self.until(end).await {
                return Ok(());
            }
            // A daemon that was killed is started again by its supervisor.
            if let Some(mend) = mend {
                self.network.fault(&mend).await?;
            }
            let now = self.book.now();
            if let Some(fault) = self.book.pages().faults.last_mut() {
                fault.mended = Some(now);
            }
        }
        self.until(self.begin + options.duration).await;
        Ok(())
    }

    /// The fault of a step and how it is mended; notes that it begins.
    async fn faults_of(&mut self, step: Step) -> (Fault, Option<Fault>) {
        // While mesh-health is down itself, who was the primary is still the best guess.
        if let Ok(status) = self.network.status().await {
            self.primary = status.primary;
        }
        let ids: Vec<BrokerId> = self.network.brokers().iter().map(|(id, _)| id.clone()).collect();
        let place = match step.victim {
            Victim::Broker(place) => place,
            Victim::Primary => ids.iter().position(|id| *id == self.primary).unwrap_or(0),
        };
        let (broker, other) = (ids[place].clone(), ids[(place + step.other) % ids.len()].clone());
        let process = broker.to_string();
        let heal = |from| Fault::Heal {
            broker: broker.clone(),
            from,
        };
        let (begin, mend, text) = match step.kind {
            Kind::Kill => (
                Fault::Kill {
                    process: process.clone(),
                },
                Some(Fault::Restart { process }),
                format!("{broker} is killed"),
            ),
            Kind::Hang => (
                Fault::Hang {
                    process: process.clone(),
                },
                Some(Fault::Resume { process }),
                format!("{broker} hangs"),
            ),
            Kind::Cut => (
                Fault::Cut {
                    broker: broker.clone(),
                    from: None,
                },
                Some(heal(None)),
                format!("{broker} is cut off"),
            ),
            Kind::CutPair => (
                Fault::Cut {
                    broker: broker.clone(),
                    from: Some(other.clone()),
                },
                Some(heal(Some(other.clone()))),
                format!("{broker} and {other} are cut off from each other"),
            ),
            Kind::CutWay => (
                Fault::CutWay {
                    broker: broker.clone(),
                    from: other.clone(),
                },
                Some(heal(Some(other.clone()))),
                format!("nothing from {other} reaches {broker}"),
            ),
            Kind::Loss => (
                Fault::Loss {
                    broker: broker.clone(),
                    percent: LOSS,
                },
                Some(heal(None)),
                format!("{broker} loses {LOSS} % of its packets"),
            ),
            Kind::Health => (
                Fault::Kill {
                    process: "mesh-health".to_owned(),
                },
                None,
                "mesh-health is killed".to_owned(),
            ),
            Kind::Balancer => (
                Fault::Kill {
                    process: "nginx".to_owned(),
                },
                None,
                "Nginx is killed".to_owned(),
            ),
        };
        let is_daemon = matches!(step.kind, Kind::Health | Kind::Balancer);
        let on_primary = !is_daemon && broker == self.primary;
        let role = if on_primary { " (the primary)" } else { "" };
        self.watcher
            .event(&format!("{text}{role}, for {:.1} s", step.lasts.as_secs_f64()));
        let mut pages = self.book.pages();
        pages.deaths += u64::from(step.kind == Kind::Kill);
        pages.faults.push(Felt {
            at: self.book.now(),
            kind: step.kind,
            broker: (!is_daemon).then_some(broker),
            on_primary,
            mended: None,
            publishers: Vec::new(),
            subscribers: Vec::new(),
            longest_wait: Duration::ZERO,
        });
        (begin, mend)
    }

    /// Mends whatever was interrupted.
    async fn mend_all(&mut self) -> anyhow::Result<()> {
        let last = self.book.pages().faults.last().cloned();
        let Some(Felt {
            broker: Some(broker),
            mended: None,
            kind,
            ..
        }) = last
        else {
            return Ok(());
        };
        let process = broker.to_string();
        let mend = match kind {
            Kind::Kill => Fault::Restart { process },
            Kind::Hang => Fault::Resume { process },
            _ => Fault::Heal { broker, from: None },
        };
        self.network.fault(&mend).await
    }

    /// Looks at the account again and again until then; `false` as soon as a promise is broken.
    async fn until(&mut self, end: Instant) -> bool {
        loop {
            self.ask().await;
            if !self.look() {
                return false;
            }
            let next = Instant::now() + STEP;
            if next >= end {
                sleep_until(end).await;
                return self.look();
            }
            sleep(STEP).await;
        }
    }

    /// Asks mesh-health whether a broker is gone that nobody has killed.
    async fn ask(&mut self) {
        if self.asked.elapsed() < ASK {
            return;
        }
        self.asked = Instant::now();
        // While it is down itself there is nobody to ask.
        let Ok(status) = self.network.status().await else {
            return;
        };
        let now = self.book.now();
        for broker in status.brokers {
            // Refused or reset: nobody is there. One that is silent may only hang, or have too much to do.
            let reason = broker.reason.unwrap_or_default();
            if broker.health != HealthStatus::Dead || !reason.starts_with("connection ") {
                continue;
            }
            let pages = self.book.pages();
            let mut faults = pages.faults.iter().rev();
            let last = faults.find(|fault| fault.broker.as_ref() == Some(&broker.id));
            let excused = last.is_some_and(|last| last.mended.is_none_or(|mended| mended + AFTERMATH > now));
            if !excused {
                let at = now.as_secs_f64();
                self.broken = Some(format!("{at:.1} s: {} has died by itself", broker.id));
            }
        }
    }

    /// Whether all promises are kept so far.
    fn look(&mut self) -> bool {
        let now = self.book.now();
        let mut pages = self.book.pages();
        pages.ledger.judge(now);
        let absence = pages.longest_absence(now);
        if let Some(first) = pages.ledger.broken().first() {
            self.broken = Some(first.clone());
        } else if absence > ABSENCE {
            self.broken = Some(format!("a client has not been served for {absence:.1?}"));
        }
        let outages = pages
            .faults
            .iter()
            .flat_map(|fault| fault.publishers.iter().copied());
        let progress = Progress {
            at: now.saturating_sub(self.offset),
            served: (pages.served(), pages.clients()),
            faults: pages.faults.len(),
            tally: pages.ledger.tally().clone(),
            outages: crate::Percentiles::of(outages.collect()),
        };
        drop(pages);
        self.watcher.progress(&progress);
        self.broken.is_none()
    }
}
