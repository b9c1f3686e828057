//! Nginx refuses, dies and returns.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Mesh, id, wait_for};
use mesh_model::{Incident, IncidentKind, IncidentList, IncidentPhase, MeshState, Plan};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Kills the primary and waits until the plan that follows is refused.
async fn refused(mesh: &mut Mesh) -> String {
    mesh.broker(1).kill();
    let status = mesh
        .wait("the plan is refused", |s| s.balancer.error.is_some())
        .await;
    assert_eq!((status.generation, status.state), (1, MeshState::Degraded));
    assert_eq!(
        (status.balancer.generation, status.balancer.confirmed),
        (Some(0), false)
    );
    assert_eq!(mesh.read_back().await.unwrap().generation, 0);
    status.balancer.error.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_configuration_is_broken_the_last_good_plan_stays_until_it_is_mended() {
    let mut mesh = Mesh::watched(2).await;
    let mut events = mesh.events().await;
    let (good, conf) = (mesh.upstream(), mesh.config.balancer.dir.join("nginx.conf"));
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}nonsense;\n")).unwrap();
    let error = refused(&mut mesh).await;
    assert!(error.contains("unknown directive \"nonsense\""), "{error}");
    assert_eq!(mesh.upstream(), good);
    events.until("balancer.rejected").await;

    let incident = of_balancer(&mesh).await;
    assert!(incident.ended_at.is_none(), "{incident:?}");
    assert!(incident.reason.unwrap().contains("nonsense"));
    fs::write(&conf, text).unwrap();
    let (switched, before) = events.until("failover.switched").await;
    assert!(before.contains(&"balancer.restored".to_owned()), "{before:?}");
    assert_eq!(switched["to"], "b2");
    mesh.wait("all well", |s| {
        s.state == MeshState::Ok && s.balancer.error.is_none()
    })
    .await;
}

/// `nginx -t` and the reload both exit with 0 here; only the read-back tells.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_reload_fails_silently_the_last_good_plan_is_put_back() {
    let mut mesh = Mesh::watched(2).await;
    let (good, conf) = (mesh.upstream(), mesh.config.balancer.dir.join("nginx.conf"));
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let text = fs::read_to_string(&conf).unwrap();
    let more = format!("stream {{\n    server {{ listen {address}; return x; }}");
    fs::write(&conf, text.replacen("stream {", &more, 1)).unwrap();
    let error = refused(&mut mesh).await;
    assert!(error.contains(&format!("bind() to {address} failed")), "{error}");
    assert_eq!(mesh.upstream(), good);

    drop(taken);
    let status = mesh.wait("all well", |s| s.state == MeshState::Ok).await;
    assert_eq!((status.generation, status.primary), (1, id(2)));
    // Old workers answer for a moment longer; that is no reason for yet another plan.
    let is_new = async || mesh.read_back().await.filter(|plan| plan.generation == 1);
    wait_for("only the new plan is told", is_new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nginx_is_told_of_and_starts_with_the_plan_that_was_made_meanwhile() {
    let mut mesh = Mesh::watched(2).await;
    mesh.nginx.as_mut().unwrap().end();
    let status = mesh.wait("Nginx is missed", |s| !s.balancer.confirmed).await;
    assert_eq!(
        (status.balancer.generation, status.state),
        (None, MeshState::Degraded)
    );
    assert!(status.balancer.error.unwrap().contains("does not tell its plan"));
    mesh.broker(1).kill();
    wait_for("the next plan is written", async || {
        mesh.upstream().contains("gen=1 primary=b2").then_some(())
    })
    .await;
    mesh.start_nginx().await;
    let status = mesh.wait("all well", |s| s.state == MeshState::Ok).await;
    assert_eq!((status.generation, status.balancer.generation), (1, Some(1)));
    let incident = of_balancer(&mesh).await;
    let phases: Vec<IncidentPhase> = incident.phases.iter().map(|step| step.phase).collect();
    use IncidentPhase::{Answering, Confirmed, FirstSign, Recovered};
    assert_eq!(phases, [FirstSign, Confirmed, Answering, Recovered]);
    assert!(
        incident.phases[1].elapsed_ms < 1500.0,
        "noticed within a second: {incident:?}"
    );
    assert!(incident.ended_at.is_some() && incident.broker.is_none());
}

/// The only incident of the balancer.
async fn of_balancer(mesh: &Mesh) -> Incident {
    let (_, body) = mesh.get("/v1/incidents").await.unwrap();
    let list: IncidentList = serde_json::from_str(&body).unwrap();
    let all = list.incidents.into_iter();
    let mut all = all.filter(|incident| incident.kind == IncidentKind::Balancer);
    let incident = all.next().expect("an incident of the balancer");
    assert!(all.next().is_none(), "{body}");
    incident
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_somebody_else_wrote_is_replaced() {
    let mesh = Mesh::watched(2).await;
    let foreign = Plan::new(5, id(2), [id(1)]);
    let text = mesh_render::upstream_conf(&mesh.config, &foreign).unwrap();
    fs::write(mesh.config.balancer.dir.join("upstream.conf"), text).unwrap();
    mesh.nginx.as_ref().unwrap().signal(rustix::process::Signal::HUP);
    let status = mesh
        .wait("replaced", |s| s.generation == 6 && s.balancer.confirmed)
        .await;
    assert_eq!((status.primary, status.state), (id(1), MeshState::Ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_plan_of_other_brokers_is_replaced_at_the_start() {
    let mut mesh = Mesh::start(2).await;
    let other = Plan::new(3, id(2), []);
    let text = mesh_render::upstream_conf(&mesh.config, &other).unwrap();
    fs::write(mesh.config.balancer.dir.join("upstream.conf"), text).unwrap();
    mesh.nginx.as_ref().unwrap().signal(rustix::process::Signal::HUP);
    wait_for("it runs", async || {
        mesh.read_back().await.filter(|plan| *plan == other)
    })
    .await;
    mesh.watch().await;
    let status = mesh
        .wait("replaced", |s| s.balancer.confirmed && s.generation == 4)
        .await;
    assert_eq!((status.primary, status.backup), (id(2), Some(id(1))));
}

/// Workers outlive a master that is killed, and go on serving; but nobody reads a new plan.
#[tokio::test(flavor = "multi_thread")]
async fn workers_without_a_master_are_told_of() {
    let mut mesh = Mesh::watched(2).await;
    let nginx = mesh.nginx.as_mut().unwrap();
    let workers = nginx.children();
    nginx.kill();
    let status = mesh
        .wait("the master is missed", |s| s.balancer.error.is_some())
        .await;
    assert_eq!(
        (status.balancer.confirmed, status.state),
        (true, MeshState::Degraded)
    );
    assert!(status.balancer.error.unwrap().contains("does not run"));
    for worker in workers {
        rustix::process::kill_process(worker, rustix::process::Signal::TERM).unwrap();
    }
    wait_for("the workers are gone", async || {
        mesh.read_back().await.is_none().then_some(())
    })
    .await;
    mesh.start_nginx().await;
    mesh.wait("all well", |s| s.state == MeshState::Ok).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_included_file_is_deleted_the_last_good_plan_stays_until_it_is_back() {
    let mut mesh = Mesh::start(2).await;
    let dir = mesh.config.balancer.dir.clone();
    let (conf, extra) = (dir.join("nginx.conf"), dir.join("extra.conf"));
    fs::write(&extra, "tcp_nodelay on;\n").unwrap();
    let text = fs::read_to_string(&conf).unwrap();
    let including = format!("stream {{\n    include {};", extra.display());
    fs::write(
        &conf,
        text.replacen("stream {", &including, 1)
            .replace("    tcp_nodelay on;\n", ""),
    )
    .unwrap();
    mesh.nginx.as_ref().unwrap().signal(rustix::process::Signal::HUP);
    mesh.watch().await;
    mesh.wait("all well", |s| s.state == MeshState::Ok).await;
    let good = mesh.upstream();
    fs::remove_file(&extra).unwrap();
    let error = refused(&mut mesh).await;
    assert!(error.contains("extra.conf\" failed (2: No such file"), "{error}");
    assert_eq!(mesh.upstream(), good);

    fs::write(&extra, "tcp_nodelay on;\n").unwrap();
    let status = mesh.wait("all well again", |s| s.state == MeshState::Ok).await;
    assert_eq!((status.generation, status.primary), (1, id(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_upstream_file_is_put_back_without_a_reload() {
    let mesh = Mesh::watched(2).await;
    let good = mesh.upstream();
    let workers = mesh.nginx.as_ref().unwrap().children();
    fs::remove_file(mesh.config.balancer.dir.join("upstream.conf")).unwrap();
    let back = wait_for("it is back", async || {
        fs::read_to_string(mesh.config.balancer.dir.join("upstream.conf")).ok()
    })
    .await;
    assert_eq!(back, good);
    let status = mesh.status().await.unwrap();
    assert_eq!((status.generation, status.state), (0, MeshState::Ok));
    assert_eq!(mesh.nginx.as_ref().unwrap().children(), workers);
}

/// A mount that ends with the test.
struct Mount(std::path::PathBuf);

impl Mount {
    /// Runs `mount` with `arguments` and `target`; `None`, with the reason printed, where that is not allowed.
    fn make(arguments: &[&str], target: &Path) -> Option<Self> {
        let output = Command::new("mount").args(arguments).arg(target).output();
        let refusal = match output {
            Ok(output) if output.status.success() => return Some(Self(target.to_owned())),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        println!("skipped: nothing can be mounted here: {refusal}");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, since an Nginx may still hold its log open.
        let ended = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(
            ended.is_ok_and(|status| status.success()),
            "cannot unmount {:?}",
            self.0
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_full_disk_the_last_good_plan_stays_until_there_is_room() {
    let mut mesh = Mesh::start(2).await;
    let dir = mesh.config.balancer.dir.clone();
    // Nginx and its files move to a disk of their own, one small enough to fill.
    mesh.nginx.as_mut().unwrap().end();
    let files = ["nginx.conf", "upstream.conf"].map(|name| (name, fs::read(dir.join(name)).unwrap()));
    let Some(_disk) = Mount::make(&["-t", "tmpfs", "-o", "size=512k", "tmpfs"], &dir) else {
        return;
    };
    for (name, contents) in files {
        fs::write(dir.join(name), contents).unwrap();
    }
    mesh.start_nginx().await;
    mesh.watch().await;
    mesh.wait("all well", |s| s.state == MeshState::Ok).await;
    let mut events = mesh.events().await;
    let good = mesh.upstream();
    let filler = dir.join("filler");
    let full = fs::write(&filler, vec![0; 1024 * 1024]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    let error = refused(&mut mesh).await;
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(mesh.upstream(), good);
    let (rejected, _) = events.until("balancer.rejected").await;
    assert_eq!(rejected["reason"], error);

    fs::remove_file(&filler).unwrap();
    let status = mesh.wait("all well again", |s| s.state == MeshState::Ok).await;
    assert_eq!((status.generation, status.primary), (1, id(2)));
    // mesh-health and Nginx let go of the disk before it goes.
    mesh.unwatch().await;
    mesh.nginx.as_mut().unwrap().end();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_folder_cannot_be_written_the_last_good_plan_stays_until_it_can() {
    let mut mesh = Mesh::watched(2).await;
    let (good, dir) = (mesh.upstream(), mesh.config.balancer.dir.clone());
    // Root may write anywhere, but not on what is mounted read-only.
    let Some(mount) = Mount::make(&["--bind", dir.to_str().unwrap()], &dir) else {
        return;
    };
    let locked = Command::new("mount")
        .args(["-o", "remount,bind,ro"])
        .arg(&dir)
        .status();
    assert!(locked.unwrap().success());
    let error = refused(&mut mesh).await;
    assert!(error.contains("Read-only file system"), "{error}");
    assert_eq!(mesh.upstream(), good);
    drop(mount);
    let status = mesh.wait("all well again", |s| s.state == MeshState::Ok).await;
    assert_eq!((status.generation, status.primary), (1, id(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_file_cannot_be_replaced_the_last_good_plan_stays_until_it_can() {
    let mut mesh = Mesh::watched(2).await;
    let (good, file) = (mesh.upstream(), mesh.config.balancer.dir.join("upstream.conf"));
    // Nothing is renamed over a mounted file, by root neither.
    let Some(mount) = Mount::make(&["--bind", file.to_str().unwrap()], &file) else {
        return;
    };
    let error = refused(&mut mesh).await;
    assert!(error.contains("cannot write"), "{error}");
    assert_eq!(mesh.upstream(), good);
    drop(mount);
    let status = mesh.wait("all well again", |s| s.state == MeshState::Ok).await;
    assert_eq!((status.generation, status.primary), (1, id(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nginx_is_told_of_within_a_second() {
    let mut mesh = Mesh::watched(2).await;
    let mut events = mesh.events().await;
    mesh.nginx.as_mut().unwrap().end();
    let ended = Instant::now();
    let (rejected, _) = events.until("balancer.rejected").await;
    println!("dead → told: {:?}", ended.elapsed());
    assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
    let reason = rejected["reason"].as_str().unwrap();
    assert!(reason.contains("does not tell its plan"), "{reason}");
}

/// It runs the same plan again before anybody could miss it; but its sessions are gone, and somebody was at it.
#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_was_restarted_by_hand_is_told_of_within_a_second() {
    let mut mesh = Mesh::watched(2).await;
    let mut events = mesh.events().await;
    mesh.nginx.as_mut().unwrap().end();
    let ended = Instant::now();
    mesh.start_nginx().await;
    let (rejected, _) = events.until("balancer.rejected").await;
    println!("restarted → told: {:?}, {}", ended.elapsed(), rejected["reason"]);
    assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
    events.until("balancer.restored").await;
    let status = mesh.wait("all well", |s| s.state == MeshState::Ok).await;
    assert_eq!((status.generation, status.balancer.error), (0, None));
}

/// Where Nginx can be told, tests of a configuration log beside it, and never to the system's own log.
#[tokio::test(flavor = "multi_thread")]
async fn tests_of_a_configuration_log_beside_it() {
    let mut mesh = Mesh::start(2).await;
    let version = Command::new("nginx").arg("-v").output().unwrap();
    let version = String::from_utf8_lossy(&version.stderr).into_owned();
    if version.contains("/1.18.") {
        println!("skipped: {version} has no -e");
        return;
    }
    let called = mesh.config.balancer.dir.with_file_name("called");
    let wrapper = mesh.config.balancer.dir.with_file_name("wrapper.sh");
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\necho \"$*\" >>{}\nexec nginx \"$@\"\n",
            called.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    mesh.config.balancer.program = wrapper;
    mesh.watch().await;
    mesh.wait("all well", |s| s.state == MeshState::Ok).await;
    mesh.broker(1).kill();
    mesh.wait("switched", |s| s.generation == 1 && s.balancer.confirmed)
        .await;
    let calls = fs::read_to_string(&called).unwrap();
    let tests: Vec<&str> = calls.lines().filter(|line| line.starts_with("-t")).collect();
    assert_eq!(tests.len(), 2, "{calls}");
    for test in tests {
        let (conf, log) = test.split_once(" -c ").unwrap().1.split_once(" -e ").unwrap();
        assert_eq!(Path::new(conf).parent(), Path::new(log).parent(), "{test}");
    }
}
