//! Random histories on real labs: whatever happens to a mesh, it converges, loses nothing and shows nothing twice.
//!
//! Publishers at all brokers set and clear retained topics and send messages of each QoS, while brokers are killed,
//! stopped, hung, cut off pairwise, one way or from everyone, and started again with the files that they left, with older ones
//! and with none. What must hold after that is in [`model`], what may be lost in [`reach`].
//!
//! A failing seed is printed, and everything about it is left in a folder; `MESH_SEED=n` replays it.
//! `MESH_HISTORIES=n` runs so many, `MESH_TEST_LONG=1` 500; `MESH_FAULTS=none`, `processes` or `cuts` leaves faults out.

mod clients;
mod model;
mod plan;
mod reach;
mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use plan::{Kinds, Plan};
use world::Outcome;

const HISTORIES: u64 = 20;
const LONG: u64 = 500;

/// Labs at a time: they mostly wait.
const AT_A_TIME: usize = 4;

/// Runs one history in a runtime of its own.
fn history(seed: u64, kinds: Kinds) -> Result<Outcome, String> {
    let plan = Plan::new(seed, kinds);
    let folder = folder(seed);
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    std::fs::write(folder.join("schedule.txt"), plan.to_string()).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let told = |why: &str| format!("seed {seed}: {why}; all of it is in {}\n{plan}", folder.display());
    let outcome = runtime
        .block_on(world::run(&plan, kinds, &folder))
        .map_err(|error| told(&error.to_string()))?;
    if outcome.complaints.is_empty() {
        std::fs::remove_dir_all(&folder).ok();
        return Ok(outcome);
    }
    let (count, first) = (
        outcome.complaints.len(),
        &outcome.complaints[..outcome.complaints.len().min(5)],
    );
    Err(told(&format!("{count} complaints, the first of them {first:#?}")))
}

fn folder(seed: u64) -> PathBuf {
    // Short, since a Unix socket is in it.
    let user = rustix::process::getuid().as_raw();
    std::env::temp_dir().join(format!("mesh-history-{user}/{}-{seed}", std::process::id()))
}

/// Faults that can be made here.
fn kinds() -> Kinds {
    let cuts = cfg!(target_os = "linux") && rustix::process::geteuid().is_root();
    if !cuts {
        eprintln!("nothing is cut off in these histories: network namespaces need root on Linux");
    }
    match std::env::var("MESH_FAULTS").as_deref() {
        Ok("none") => Kinds {
            processes: false,
            cuts: false,
        },
        Ok("processes") => Kinds {
            processes: true,
            cuts: false,
        },
        Ok("cuts") => Kinds {
            processes: false,
            cuts,
        },
        _ => Kinds {
            processes: true,
            cuts,
        },
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
    )
}

/// Runs the histories of `seeds`, some at a time, and says how many there were.
fn run_all(seeds: std::ops::Range<u64>, kinds: Kinds) {
    let begin = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let results = Mutex::new(Vec::new());
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < seeds.end
        {
            let result = std::panic::catch_unwind(|| history(seed, kinds));
            let result = result.unwrap_or_else(|_| Err(format!("seed {seed}: a panic, see above")));
            if let Err(why) = &result {
                eprintln!("{why}\nreplay with MESH_SEED={seed}");
            }
            results
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((seed, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(work);
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let good: Vec<&Outcome> = results
        .iter()
        .filter_map(|(_, result)| result.as_ref().ok())
        .collect();
    let slowest = good
        .iter()
        .map(|outcome| outcome.settled)
        .max()
        .unwrap_or_default();
    println!(
        "{} of {} histories hold: {} faults, {} messages, settled within {slowest:.1?}, all in {:.0?}",
        good.len(),
        results.len(),
        good.iter().map(|outcome| outcome.faults).sum::<usize>(),
        good.iter().map(|outcome| outcome.messages).sum::<usize>(),
        begin.elapsed(),
    );
    let failed: Vec<u64> = results
        .iter()
        .filter(|(_, result)| result.is_err())
        .map(|(seed, _)| *seed)
        .collect();
    assert!(failed.is_empty(), "these seeds fail: {failed:?}");
}

#[test]
fn whatever_happens_the_mesh_converges_and_loses_nothing() {
    let is_long = std::env::var_os("MESH_TEST_LONG").is_some_and(|value| value == "1");
    let count = number("MESH_HISTORIES").unwrap_or(if is_long { LONG } else { HISTORIES });
    match number("MESH_SEED") {
        Some(seed) => run_all(seed..seed + 1, kinds()),
        None => run_all(0..count, kinds()),
    }
}
