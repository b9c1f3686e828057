//! mesh-health, as a program of its own, is killed at random moments of a switch: Nginx can always start from what
//! is on the disk, nothing piles up, and the next mesh-health finishes the job, also where a broker that was left is
//! in good health.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Mesh, Process, id, wait_for};
use mesh_health::shell::sessions::Sessions;
use mesh_model::{BrokerId, HealthStatus, MeshState, Plan, Snapshot};
use mesh_runtime::mqtt::{Connection, Identity};
use tokio::time::{Instant, sleep};

/// The longest that a successor is given before it is killed as well: its start and a whole switch.
const LONGEST_START: Duration = Duration::from_millis(700);

/// Random numbers that a seed repeats (SplitMix64).
struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// More often early than late: the moments that matter lie close together at the beginning.
    fn up_to(&mut self, longest: Duration) -> Duration {
        let share = (self.draw() % 10_001) as f64 / 10_000.0;
        longest.mul_f64(share * share)
    }
}

/// What a kill left behind, and everything that was ever seen under a generation.
#[derive(Default)]
struct Findings {
    plans: BTreeMap<u64, Plan>,
    highest_run: u64,
    kills: u32,
    before_the_file: u32,
    before_the_reload: u32,
    after_the_switch: u32,
    scratch_left: u32,
}

impl Findings {
    /// A generation has one content, for ever.
    fn note(&mut self, plan: &Plan) {
        let known = self.plans.entry(plan.generation).or_insert_with(|| plan.clone());
        assert_eq!(known, plan, "two plans share a generation");
    }

    async fn look(&mut self, mesh: &Mesh, generation_before: u64) {
        self.kills += 1;
        let dir = &mesh.config.balancer.dir;
        let log = mesh.daemon_log().with_file_name("test.log");
        let tested = Command::new("nginx")
            .args(["-t", "-q", "-e"])
            .arg(&log)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&tested.stderr);
        assert!(
            tested.status.success(),
            "nginx -t refuses what is on the disk: {said}\n{}",
            mesh.upstream()
        );
        let left = leftovers(mesh);
        // A scratch folder, and what replaces upstream.conf and the state file.
        assert!(left.len() <= 3, "{left:?}");
        self.scratch_left += u32::from(!left.is_empty());

        let on_disk = plan_on_disk(mesh);
        let running = wait_for("Nginx answers", async || mesh.read_back().await).await;
        self.note(&on_disk);
        self.note(&running);
        let is_written = on_disk.generation > generation_before;
        let runs = running.generation > generation_before;
        match (is_written, runs) {
            (false, _) => self.before_the_file += 1,
            (true, false) => self.before_the_reload += 1,
            (true, true) => self.after_the_switch += 1,
        }
    }
}

fn plan_on_disk(mesh: &Mesh) -> Plan {
    let contents = mesh.upstream();
    let (_, rest) = contents.split_once("return \"").unwrap();
    mesh_render::parse_read_back(rest.split("\\n").next().unwrap()).unwrap()
}

/// Files and folders that mesh-health makes for a moment.
fn leftovers(mesh: &Mesh) -> Vec<String> {
    let entries = fs::read_dir(&mesh.config.balancer.dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

/// Whether `dead` is replaced, and everyone agrees on it.
fn is_finished(status: &Snapshot, dead: &BrokerId) -> bool {
    let primary = status.brokers.iter().find(|b| b.id == status.primary).unwrap();
    status.balancer.confirmed
        && status.balancer.error.is_none()
        && status.primary != *dead
        && primary.health == HealthStatus::Healthy
}

fn number(id: &BrokerId) -> usize {
    id.as_str()[1..].parse().unwrap()
}

/// Waits until the primary can be killed: it and another are healthy.
async fn ready(mesh: &Mesh) -> Snapshot {
    mesh.wait("two are healthy", |s| {
        let healthy = s.brokers.iter().filter(|b| b.health == HealthStatus::Healthy);
        let ids: Vec<&BrokerId> = healthy.map(|b| &b.id).collect();
        s.balancer.confirmed && ids.len() >= 2 && ids.contains(&&s.primary)
    })
    .await
}

fn seed() -> u64 {
    match std::env::var("MESH_TEST_SEED") {
        Ok(text) => text.parse().expect("MESH_TEST_SEED is a number"),
        Err(_) => rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_nsec as u64,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant_of_a_switch_it_leaves_a_good_file_and_its_successor_finishes() {
    let kills = if std::env::var_os("MESH_TEST_LONG").is_some() {
        200
    } else {
        15
    };
    let seed = seed();
    println!("MESH_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut mesh = Mesh::start(3).await;
    let mut findings = Findings::default();
    let mut daemon = mesh.spawn_daemon(&[]);

    // One switch that nobody disturbs tells how long a switch takes here.
    let status = ready(&mesh).await;
    mesh.broker(number(&status.primary)).kill();
    let began = Instant::now();
    mesh.wait("the first switch", |s| is_finished(s, &status.primary))
        .await;
    let longest = began.elapsed().mul_f64(1.5);
    mesh.start_broker(number(&status.primary)).await;

    while findings.kills < kills {
        let status = ready(&mesh).await;
        let (dead, before) = (status.primary, status.generation);
        mesh.broker(number(&dead)).kill();
        sleep(dice.up_to(longest)).await;
        daemon.kill();
        findings.look(&mesh, before).await;
        daemon = mesh.spawn_daemon(&[]);
        // Its successor may be killed as well, in its start or while it finishes the job.
        while findings.kills < kills && dice.draw().is_multiple_of(3) {
            sleep(dice.up_to(LONGEST_START)).await;
            daemon.kill();
            findings.look(&mesh, before).await;
            daemon = mesh.spawn_daemon(&[]);
        }
        finished(&mesh, &dead, &mut findings).await;
        mesh.start_broker(number(&dead)).await;
    }
    end(daemon);
    println!(
        "{} kills: {} before the file was replaced, {} between that and the reload, {} later; {} left scratch files",
        findings.kills,
        findings.before_the_file,
        findings.before_the_reload,
        findings.after_the_switch,
        findings.scratch_left,
    );
    assert_eq!(findings.kills, kills);
    if kills >= 200 {
        let moments = [
            findings.before_the_file,
            findings.before_the_reload,
            findings.after_the_switch,
        ];
        assert!(
            moments.iter().all(|count| *count > 0),
            "every part of a switch was hit"
        );
    }
}

async fn finished(mesh: &Mesh, dead: &BrokerId, findings: &mut Findings) {
    mesh.wait("the job is finished", |s| is_finished(s, dead)).await;
    // Old workers answer for a moment longer, and a plan that only orders the standbys anew may be on its way.
    let running = wait_for("what is told is what is on the disk", async || {
        let plan = mesh.read_back().await?;
        (plan.primary != *dead && plan == plan_on_disk(mesh)).then_some(plan)
    })
    .await;
    findings.note(&running);
    assert!(running.generation > findings.highest_run, "numbers rise");
    findings.highest_run = running.generation;
    wait_for("nothing is left behind", async || {
        leftovers(mesh).is_empty().then_some(())
    })
    .await;
}

/// Has clients on `b2` while `b1`, which is preferred, is healthy and empty.
async fn everybody_is_on_the_second(mesh: &Mesh, sessions: &Sessions) -> Vec<Connection> {
    let granted = async |path: &str| {
        wait_for(path, async || (mesh.post(path).await.0 == 200).then_some(())).await;
    };
    granted("/v1/brokers/b1/disable").await;
    mesh.wait("b2 serves", |s| s.primary == id(2) && s.balancer.confirmed)
        .await;
    granted("/v1/brokers/b1/enable").await;
    mesh.wait("b1 could serve", |s| {
        s.state == MeshState::Ok && s.backup == Some(id(1)) && s.brokers[0].health == HealthStatus::Healthy
    })
    .await;
    wait_for("nobody is on b1", async || {
        (sessions.count(&[mesh.address(1)]).await == Ok(0)).then_some(())
    })
    .await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let identity = Identity {
            client_id: format!("client{number}"),
            login: None,
            keep_alive_s: 60,
        };
        let connected = Connection::open(mesh.config.balancer.listen, &identity).await;
        clients.push(connected.unwrap().0);
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_failback_its_successor_leaves_nobody_behind() {
    let kills = if std::env::var_os("MESH_TEST_LONG").is_some() {
        60
    } else {
        6
    };
    let seed = seed();
    println!("MESH_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mesh = Mesh::start(2).await;
    let sessions = Sessions::new(&mesh.config);
    let mut daemon = mesh.spawn_daemon(&[]);
    ready(&mesh).await;
    let (mut undone, mut halfway) = (0, 0);
    for kill in 0..kills {
        let clients = everybody_is_on_the_second(&mesh, &sessions).await;
        let left = sessions.count(&[mesh.address(2)]).await;
        assert_eq!(left, Ok(clients.len()), "they are on b2");
        assert_eq!(mesh.post("/v1/failback").await.0, 200);
        if kill % 2 == 0 {
            // Nginx runs the plan, and its old workers have not stopped yet, so nobody was moved.
            let runs = async || mesh.read_back().await.filter(|plan| plan.primary == id(1));
            wait_for("the plan runs", runs).await;
        } else {
            sleep(dice.up_to(LONGEST_START)).await;
        }
        daemon.kill();
        let runs = mesh.read_back().await.is_some_and(|plan| plan.primary == id(1));
        let left = sessions.count(&[mesh.address(2)]).await.unwrap();
        undone += u32::from(!runs);
        halfway += u32::from(runs && left > 0);
        daemon = mesh.spawn_daemon(&[]);
        mesh.wait("clients are sent back", |s| {
            s.primary == id(1) && s.balancer.confirmed
        })
        .await;
        wait_for("nobody is left on b2", async || {
            (sessions.count(&[mesh.address(2)]).await == Ok(0)).then_some(())
        })
        .await;
    }
    end(daemon);
    println!("{kills} kills: {undone} before Nginx ran the plan, {halfway} before the sessions were moved");
    assert!(halfway > 0, "the moment that matters was hit");
}

/// It ends by itself when asked to.
fn end(mut daemon: Process) {
    daemon.end();
}
