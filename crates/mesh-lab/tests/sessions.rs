//! Sessions move off a hung broker, and nobody else's: the part of mesh-health that closes connections, with real
//! brokers, links, clients and Nginx, and this test in the place of the rest of mesh-health.
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::SECOND;
use mesh_health::shell::sessions::{Closed, LOOK_AGAIN, Sessions};
use mesh_health::shell::sock_destroy::Diag;
use mesh_lab::fleet::{Fleet, FleetOptions, LogMarks};
use mesh_lab::{Lab, wait_until};
use mesh_model::{BrokerId, Plan};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);

/// Whether this test cannot do its work here.
async fn may_not(sessions: &Sessions) -> bool {
    match sessions.capability().await {
        Ok(()) => false,
        Err(missing) => {
            println!("skipped: {missing}");
            true
        }
    }
}

/// Three brokers and Nginx.
async fn lab() -> (Lab, Sessions, Vec<BrokerId>) {
    let lab = Lab::start(common::options()).await.unwrap();
    let sessions = Sessions::new(lab.config());
    let ids = lab.config().topology.ids().cloned().collect();
    (lab, sessions, ids)
}

async fn fleet(lab: &Lab, name: &str, sessions: usize) -> Fleet {
    fleet_at(vec![lab.balancer()], name, sessions).await
}

async fn fleet_at(addresses: Vec<std::net::SocketAddr>, name: &str, sessions: usize) -> Fleet {
    let fleet = Fleet::start(&FleetOptions {
        name: name.to_owned(),
        addresses,
        sessions,
        retry: Duration::from_millis(10),
        patience: 5 * SECOND,
    });
    assert_eq!(fleet.wait_connected(PATIENCE).await, sessions, "{name} connects");
    assert_eq!(
        fleet.wait_answering(PATIENCE).await,
        sessions,
        "{name} is answered"
    );
    fleet
}

/// What mesh-health does before it closes anything: Nginx runs a plan with `primary` first, and no worker of the
/// plan before accepts any more.
async fn switch(lab: &Lab, sessions: &Sessions, generation: u64, primary: &BrokerId) {
    let config = lab.config();
    let others = config.topology.ids().filter(|id| *id != primary).cloned();
    let plan = Plan::new(generation, primary.clone(), others);
    let file = config.balancer.dir.join("upstream.conf");
    let contents = mesh_render::upstream_conf(config, &plan).unwrap();
    mesh_runtime::atomic_file::write(&file, contents.as_bytes(), 0o644).unwrap();
    let master = Pid::from_raw(lab.pid("nginx").unwrap().try_into().unwrap()).unwrap();
    kill_process(master, Signal::HUP).unwrap();
    let runs = async || {
        let mut answer = String::new();
        let mut stream = TcpStream::connect(lab.readback())
            .await
            .map_err(|e| e.to_string())?;
        stream
            .read_to_string(&mut answer)
            .await
            .map_err(|e| e.to_string())?;
        match mesh_render::parse_read_back(&answer) {
            Ok(running) if running == plan => Ok(()),
            _ => Err(answer),
        }
    };
    wait_until("the new plan to run", PATIENCE, runs).await.unwrap();
    sessions.old_workers_stopped(PATIENCE).await.unwrap();
}

/// The connections to a broker that are not Nginx's: those of links, probes and direct clients.
fn of_others(lab: &Lab, broker: &BrokerId) -> BTreeSet<u32> {
    let source = lab.config().balancer.proxy_bind.unwrap();
    let all = Diag::open().unwrap().connections_to(lab.broker(broker)).unwrap();
    all.iter()
        .filter(|socket| socket.local.ip() != source)
        .map(|socket| socket.inode)
        .collect()
}

/// Hangs the primary under `count` sessions and moves them.
async fn moves_sessions_of_a_hung_primary(count: usize) {
    let (lab, sessions, ids) = lab().await;
    if may_not(&sessions).await {
        return lab.stop().await.unwrap();
    }
    let (old, new) = (&ids[0], &ids[1]);
    let fleet = fleet(&lab, "through", count).await;
    let direct = fleet_at(vec![lab.broker(old)], "direct", 5).await;
    let standby = fleet_at(vec![lab.broker(new)], "standby", 5).await;
    let others = of_others(&lab, old);
    assert!(others.len() >= 5 + 2, "direct clients and links: {others:?}");
    let start = Instant::now();
    assert_eq!(sessions.count(&[lab.broker(old)]).await, Ok(count));
    println!("{count} sessions: told whose they are in {:?}", start.elapsed());

    lab.hang(old.as_str()).await.unwrap();
    switch(&lab, &sessions, 1, new).await;
    let marks = LogMarks::now(&lab);
    let start = Instant::now();
    let closed = sessions.close(&[lab.broker(old)], None).await.unwrap();
    let took = start.elapsed();
    assert_eq!((closed.closed, closed.left), (count, 0));
    // A sweep waits for nothing but the kernel.
    assert!(took < 2 * SECOND, "{took:?}");
    assert_eq!(
        fleet.wait_answering(PATIENCE).await,
        count,
        "everybody is answered again"
    );
    let since = fleet.since(start);
    assert!(
        since.disconnects.iter().all(|times| *times == 1),
        "everybody was cut once"
    );
    assert_eq!(fleet.landed(&marks).unwrap().get(new), Some(&count));
    let (mut back, mut ended) = (since.outages, since.closed);
    back.sort();
    ended.sort();
    println!(
        "{count} sessions: swept in {took:?}; the last client noticed {:?} after the call; back: median {:?}, last {:?}",
        ended[count - 1],
        back[count / 2],
        back[count - 1]
    );
    for pause in LOOK_AGAIN {
        tokio::time::sleep(pause.saturating_sub(start.elapsed())).await;
        let again = sessions.close(&[lab.broker(old)], None).await.unwrap();
        assert_eq!(again, Closed { closed: 0, left: 0 });
    }

    lab.resume(old.as_str()).await.unwrap();
    assert_eq!(direct.wait_answering(PATIENCE).await, 5);
    for (name, spared) in [("direct", &direct), ("standby", &standby)] {
        let cuts: u32 = spared.since(start).disconnects.iter().sum();
        assert_eq!(cuts, 0, "no client of the fleet {name} was cut");
    }
    let now = of_others(&lab, old);
    assert!(others.is_subset(&now), "links live on: {others:?}, now {now:?}");
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_leave_a_hung_primary_and_nobody_else_does() {
    moves_sessions_of_a_hung_primary(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_sessions_leave_a_hung_primary_in_one_sweep() {
    moves_sessions_of_a_hung_primary(2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_a_healthy_broker_survive_fifty_switches_of_others() {
    let (lab, sessions, ids) = lab().await;
    if may_not(&sessions).await {
        return lab.stop().await.unwrap();
    }
    let start = Instant::now();
    let idle = fleet(&lab, "idle", 200).await;
    switch(&lab, &sessions, 1, &ids[1]).await;
    let passing = fleet(&lab, "passing", 5).await;
    for generation in 2..52 {
        let (old, new) = match generation % 2 {
            0 => (&ids[1], &ids[2]),
            _ => (&ids[2], &ids[1]),
        };
        switch(&lab, &sessions, generation, new).await;
        let closed = sessions.close(&[lab.broker(old)], None).await.unwrap();
        assert_eq!((closed.closed, closed.left), (5, 0), "generation {generation}");
        assert_eq!(passing.wait_answering(PATIENCE).await, 5);
        assert_eq!(sessions.count(&[lab.broker(new)]).await, Ok(5));
    }
    let cuts: u32 = idle.since(start).disconnects.iter().sum();
    assert_eq!(cuts, 0, "of 200 sessions in 50 switches");
    assert_eq!(sessions.count(&[lab.broker(&ids[0])]).await, Ok(200));
    assert_eq!(idle.wait_answering(PATIENCE).await, 200);
    assert!(passing.since(start).disconnects.iter().all(|times| *times == 50));
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_of_the_sessions_can_be_moved() {
    let (lab, sessions, ids) = lab().await;
    if may_not(&sessions).await {
        return lab.stop().await.unwrap();
    }
    let fleet = fleet(&lab, "drained", 50).await;
    switch(&lab, &sessions, 1, &ids[1]).await;
    for left in [30, 10, 0] {
        let closed = sessions.close(&[lab.broker(&ids[0])], Some(20)).await.unwrap();
        assert_eq!(
            (closed.closed, closed.left),
            (if left == 0 { 10 } else { 20 }, left)
        );
        assert_eq!(fleet.wait_answering(PATIENCE).await, 50);
        assert_eq!(sessions.count(&[lab.broker(&ids[1])]).await, Ok(50 - left));
    }
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_ending_the_old_workers_moves_the_sessions() {
    let (lab, sessions, ids) = lab().await;
    let fleet = fleet(&lab, "held", 50).await;
    lab.hang(ids[0].as_str()).await.unwrap();
    switch(&lab, &sessions, 1, &ids[1]).await;
    let start = Instant::now();
    let ended = sessions.close_by_ending_old_workers().await.unwrap();
    assert!(ended > 0);
    assert_eq!(fleet.wait_answering(PATIENCE).await, 50);
    let cuts = fleet.since(start).disconnects;
    assert!(cuts.iter().all(|times| *times == 1), "{cuts:?}");
    let ended = async || match sessions.close_by_ending_old_workers().await {
        Ok(0) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_until("no old workers", PATIENCE, ended).await.unwrap();
    lab.stop().await.unwrap();
}
