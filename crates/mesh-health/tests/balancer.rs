//! Nginx refuses, dies and returns.

mod common;

use std::fs;

use common::{Mesh, id, wait_for};
use mesh_model::{MeshState, Plan};
use tokio::net::TcpListener;

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
