//! Runs one history on a real lab and tells what is wrong in the end.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_lab::{Lab, LabError, LabOptions, Net, wait_until};
use mesh_model::BrokerId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clients::{self, PREFIX, Place, Shared, lock};
use super::model::{Digest, History, Op, Session};
use super::plan::{Action, Files, Kinds, Plan, Random};
use super::reach::{Death, Reach, Trouble, Who};

/// How long everything may take to be right again after the last fault has been mended.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How long it must stay right.
const STAYS: Duration = Duration::from_secs(2);

/// How long a broker may take to save its state.
const SAVED_WITHIN: Duration = Duration::from_secs(2);

/// Files of a broker's folder that the lab has put there.
const OF_THE_LAB: [&str; 2] = ["mosquitto.conf", "mosquitto.log"];

/// What the plugin tells of its retained state.
const DIGEST: &str = "$SYS/broker/mesh/retained";

/// A history that is over.
pub struct Outcome {
    /// How many messages were published.
    pub messages: usize,
    /// How many faults there were.
    pub faults: usize,
    /// What is wrong, a sentence each.
    pub complaints: Vec<String>,
    /// How long it took from the last mended fault until everything was right.
    pub settled: Duration,
}

/// Runs `plan` in a lab whose state is `folder`; everything that tells about a failure is left there.
pub async fn run(plan: &Plan, kinds: Kinds, folder: &Path) -> Result<Outcome, LabError> {
    let options = LabOptions {
        brokers: plan.brokers,
        state: Some(folder.join("lab")),
        balancer: false,
        health: false,
        net: if kinds.cuts {
            Net::Namespaces
        } else {
            Net::Loopback
        },
        ..LabOptions::default()
    };
    let mut world = World::new(Lab::start(options).await?, plan, folder);
    let followed = world.follow(plan).await;
    let outcome = match followed {
        Ok(()) => Ok(world.settle().await),
        Err(error) => Err(error),
    };
    world.lab.discard();
    outcome
}

struct World {
    lab: Lab,
    start: Instant,
    folder: PathBuf,
    ops: Vec<Shared<Vec<Op>>>,
    sessions: Vec<Shared<Vec<Session>>>,
    publishers: JoinSet<()>,
    _subscribers: JoinSet<()>,
    /// Where each publisher is.
    homes: Vec<watch::Sender<Place>>,
    stop: watch::Sender<bool>,
    reach: Reach,
    /// Faults that are not mended yet, since when.
    open: BTreeMap<(usize, Option<usize>), (Duration, Action)>,
    faults: usize,
}

impl World {
    fn new(lab: Lab, plan: &Plan, folder: &Path) -> Self {
        let start = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let ops: Vec<Shared<Vec<Op>>> = (0..plan.brokers).map(|_| Shared::default()).collect();
        let sessions: Vec<Shared<Vec<Session>>> = (0..plan.brokers).map(|_| Shared::default()).collect();
        let (mut publishers, mut subscribers) = (JoinSet::new(), JoinSet::new());
        let mut homes = Vec::new();
        for broker in 0..plan.brokers {
            let place = Place {
                broker,
                address: lab.broker(&id(broker)),
                start,
            };
            subscribers.spawn(clients::subscribe(place.clone(), Arc::clone(&sessions[broker])));
            let random = Random::new(plan.seed, 1 + broker as u64);
            let (sender, home) = watch::channel(place);
            homes.push(sender);
            publishers.spawn(clients::publish(
                home,
                random,
                Arc::clone(&ops[broker]),
                stopped.clone(),
            ));
        }
        Self {
            lab,
            start,
            folder: folder.to_owned(),
            ops,
            sessions,
            publishers,
            _subscribers: subscribers,
            homes,
            stop,
            reach: Reach {
                brokers: plan.brokers,
                ..Reach::default()
            },
            open: BTreeMap::new(),
            faults: 0,
        }
    }

    /// Does everything in the plan, and mends what is left.
    async fn follow(&mut self, plan: &Plan) -> Result<(), LabError> {
        for (at, action) in &plan.steps {
            tokio::time::sleep_until((self.start + *at).into()).await;
            self.act(*action).await?;
        }
        tokio::time::sleep_until((self.start + plan.end).into()).await;
        let left: Vec<_> = self
            .open
            .iter()
            .map(|(key, (_, action))| (*key, *action))
            .collect();
        for ((one, _), action) in left {
            self.act(match action {
                Action::Hang(_) => Action::Resume(one),
                Action::Cut(one, other) | Action::CutWay(one, other) => Action::Heal(one, other),
                _ => Action::Start(one, Files::Kept),
            })
            .await?;
        }
        self.stop.send_replace(true);
        while let Some(ended) = self.publishers.join_next().await {
            if let Err(panicked) = ended {
                std::panic::resume_unwind(panicked.into_panic());
            }
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<(), LabError> {
        let begin = self.start.elapsed();
        let name = |broker: usize| id(broker).to_string();
        match action {
            Action::Kill(one) => {
                self.begins(one, None, begin, action);
                let killed = self.lab.kill(&name(one)).await;
                self.died(one, begin);
                killed
            }
            Action::Stop(one) => {
                self.begins(one, None, begin, action);
                let stopped = self.lab.halt(&name(one)).await;
                self.died(one, begin);
                stopped
            }
            Action::Start(one, files) => {
                self.lay_out(one, files).map_err(|error| failed(&error))?;
                self.lab.restart(&name(one)).await?;
                self.ends(one, None);
                Ok(())
            }
            Action::Hang(one) => {
                self.begins(one, None, begin, action);
                self.lab.hang(&name(one)).await
            }
            Action::Resume(one) => {
                self.lab.resume(&name(one)).await?;
                self.ends(one, None);
                Ok(())
            }
            Action::Move(one, to) => {
                self.homes[one].send_modify(|home| {
                    home.broker = to;
                    home.address = self.lab.broker(&id(to));
                });
                Ok(())
            }
            Action::Cut(one, other) => {
                self.begins(one.min(other), Some(one.max(other)), begin, action);
                self.lab.cut(&id(one), Some(&id(other))).await
            }
            Action::CutWay(from, to) => {
                self.begins(from.min(to), Some(from.max(to)), begin, action);
                self.lab.cut_way(&id(to), &id(from)).await
            }
            Action::Heal(one, other) => {
                self.lab.heal(&id(one), Some(&id(other))).await?;
                self.ends(one.min(other), Some(one.max(other)));
                Ok(())
            }
            Action::PutAside(one) => {
                self.put_aside(one).await;
                Ok(())
            }
        }
    }

    fn died(&mut self, broker: usize, from: Duration) {
        let until = self.start.elapsed();
        self.reach.deaths.push(Death { from, until, broker });
    }

    fn begins(&mut self, one: usize, other: Option<usize>, at: Duration, action: Action) {
        self.faults += 1;
        // A cut that is made again begins where it began first.
        self.open.entry((one, other)).or_insert((at, action));
    }

    fn ends(&mut self, one: usize, other: Option<usize>) {
        // Of two cuts of a pair the first heal ends both.
        let Some((from, _)) = self.open.remove(&(one, other)) else {
            return;
        };
        let who = match other {
            None => Who::Broker(one),
            Some(other) => Who::Pair(one, other),
        };
        let until = self.start.elapsed();
        self.reach.troubles.push(Trouble { who, from, until });
    }

    /// Has a broker save its state and copies that; as it is, where it hangs or is dead.
    async fn put_aside(&self, one: usize) {
        let folder = self.lab.log_dir(id(one).as_str());
        let saved_at = || {
            std::fs::metadata(folder.join("mosquitto.db"))
                .and_then(|file| file.modified())
                .ok()
        };
        let before = saved_at();
        if self.lab.save(id(one).as_str()).is_ok() {
            let saved = wait_until("a saved state", SAVED_WITHIN, async || {
                if saved_at() == before {
                    Err("it is the old one")
                } else {
                    Ok(())
                }
            });
            // Then there is only what it saved before.
            saved.await.ok();
        }
        let aside = self.aside(one);
        std::fs::remove_dir_all(&aside).ok();
        std::fs::create_dir_all(&aside).expect("the folder of the history can be written");
        for file in files_of(&folder).unwrap_or_default() {
            if let Some(name) = file.file_name() {
                // A file that vanishes meanwhile was a temporary one.
                std::fs::copy(&file, aside.join(name)).ok();
            }
        }
    }

    fn aside(&self, one: usize) -> PathBuf {
        self.folder.join(format!("aside-{}", id(one)))
    }

    fn lay_out(&self, one: usize, files: Files) -> io::Result<()> {
        if files == Files::Kept {
            return Ok(());
        }
        let folder = self.lab.log_dir(id(one).as_str());
        for file in files_of(&folder)? {
            std::fs::remove_file(file)?;
        }
        if files == Files::Old {
            for file in files_of(&self.aside(one)).unwrap_or_default() {
                std::fs::copy(&file, folder.join(file.file_name().unwrap_or_default()))?;
            }
        }
        Ok(())
    }

    /// Waits until nothing is wrong any more, and sees whether it stays so.
    async fn settle(&self) -> Outcome {
        let mended = Instant::now();
        let history = wait_until("a mesh without complaints", SETTLED_WITHIN, async || {
            let history = self.look().await?;
            match history.complaints() {
                none if none.is_empty() => Ok(()),
                some => Err(format!("{} complaints", some.len())),
            }
        });
        let settled = history.await.is_ok();
        let took = mended.elapsed();
        if settled {
            tokio::time::sleep(STAYS).await;
        }
        let history = self.look().await;
        let complaints = match &history {
            Ok(history) => history.complaints(),
            Err(why) => vec![format!("the brokers cannot be asked: {why}")],
        };
        if !complaints.is_empty() {
            let all = format!("{complaints:#?}\n\n{history:#?}\n");
            std::fs::write(self.folder.join("history.txt"), all)
                .expect("the folder of the history can be written");
        }
        Outcome {
            messages: self.ops.iter().map(|ops| lock(ops).len()).sum(),
            faults: self.faults,
            complaints,
            settled: took,
        }
    }

    /// Everything that is known now.
    async fn look(&self) -> Result<History, String> {
        let mut history = History {
            reach: self.reach.clone(),
            ..History::default()
        };
        for broker in 0..self.reach.brokers {
            let address = self.lab.broker(&id(broker));
            let ask = async |filter: &str| {
                let asked = tokio::time::timeout(SAVED_WITHIN, clients::retained(address, filter)).await;
                let asked = asked.map_err(|_| format!("{} does not answer", id(broker)))?;
                asked.map_err(|error| format!("{}: {error}", id(broker)))
            };
            let kept = ask(&format!("{PREFIX}#")).await?;
            history.retained.push(
                kept.into_iter()
                    .map(|(seen, _)| (seen.topic.clone(), seen))
                    .collect(),
            );
            let told = ask(DIGEST).await?.pop();
            history
                .digests
                .push(told.and_then(|(_, payload)| Digest::parse(&payload)));
            history.sessions.push(lock(&self.sessions[broker]).clone());
            history
                .ops
                .extend(lock(&self.ops[broker]).iter().map(|op| (op.id, op.clone())));
        }
        Ok(history)
    }
}

fn id(broker: usize) -> BrokerId {
    format!("broker{}", broker + 1)
        .parse()
        .expect("it is a broker's id")
}

fn failed(error: &io::Error) -> LabError {
    LabError::Net(format!("cannot lay out a broker's files: {error}"))
}

/// What a broker has written into its folder.
fn files_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_ours = OF_THE_LAB.iter().any(|name| entry.file_name() == *name);
        if entry.file_type()?.is_file() && !is_ours {
            files.push(entry.path());
        }
    }
    Ok(files)
}
