//! Names prove nothing: whoever claims those of the mesh without its passwords gets nothing, and disturbs nobody
//! who has them.

mod support;

use support::client::{Client, Who, login};
use support::tools::{Mortal, allow_all};
use support::{
    all, at, brokers, changed, expect_exactly_once, expect_once, link_logins, listen, log_of, logged, quiet,
    start, wait_for_log, without_asking_links,
};

const REFUSED: &str = "the broker refused the session: NotAuthorized";

#[tokio::test]
async fn nobody_without_the_password_is_taken_for_a_part_of_the_mesh() {
    let lab = start(brokers(3)).await;
    let links: Vec<usize> = all(&lab).map(|n| link_logins(&lab, n)).collect();
    assert_eq!(links, [2, 2, 2], "every broker is fetched from by both others");
    let (link, health) = (lab.secrets().link.clone(), lab.secrets().health.clone());

    names_of_the_mesh_are_refused(at(&lab, 1), &link, &health).await;
    for id in ["mesh.link.broker1.broker2", "mesh.anything"] {
        let words = ["mesh-plugin: refused client", id];
        assert!(
            logged(&lab, 1, &words) > 0,
            "the log tells of {id}:\n{}",
            log_of(&lab, 1)
        );
    }
    assert!(
        !log_of(&lab, 1).contains("already connected"),
        "no impostor took a session over"
    );

    expect_exactly_once("after the impostors came", &lab, &Who::anonymous(), "calm").await;
    only_mesh_health_writes_below_mesh(&lab, &health).await;

    let links_now: Vec<usize> = all(&lab).map(|n| link_logins(&lab, n)).collect();
    assert_eq!(links_now, links, "no link was thrown out");
    lab.stop().await.unwrap();
}

async fn names_of_the_mesh_are_refused(broker: std::net::SocketAddr, link: &str, health: &str) {
    let running = "mesh.link.broker1.broker2";
    let refused = [
        // Reserved client ids, of whomever.
        Who::named(running),
        Who::named("mesh.local.broker2.broker1"),
        Who::named("mesh.anything"),
        Who::named("mesh."),
        Who::named(running).with_user("eve", "any"),
        Who::named("mesh.probe.broker1").with_user("eve", health),
        // The user of links, with what one might try.
        Who::user("mesh-link", ""),
        Who::user("mesh-link", "guess"),
        Who::user("mesh-link", link),
        Who::named(running).with_user("mesh-link", ""),
        Who::named(running).with_user("mesh-link", "guess"),
        Who::named(running).with_user("mesh-link", health),
        Who::named(running).with_user("mesh-link", &link[..link.len() - 1]),
        Who::named(running).with_user("mesh-link", &format!("{link}x")),
        // A link of somewhere else, though the password is right.
        Who::named("mesh.link.broker2.broker1").with_user("mesh-link", link),
        Who::named("mesh.link.broker1.broker9").with_user("mesh-link", link),
        // The user of mesh-health.
        Who::user("mesh-health", ""),
        Who::user("mesh-health", health),
        Who::named("mesh.probe.broker1").with_user("mesh-health", link),
        Who::named(running).with_user("mesh-health", health),
    ];
    for who in &refused {
        assert_eq!(login(broker, who).await, REFUSED, "{who} tried to log in");
    }
    // That the rest is right shows that it was the name or the password.
    for who in [
        Who::named("mesh.probe.test").with_user("mesh-health", health),
        Who::named("meshlink.broker1.broker2"),
        Who::user("mesh-links", "any"),
    ] {
        assert_eq!(login(broker, &who).await, "accepted", "{who} tried to log in");
    }
}

async fn only_mesh_health_writes_below_mesh(lab: &mesh_lab::Lab, password: &str) {
    let inboxes = listen(lab, &Who::anonymous(), "$mesh/#").await;
    let mut eve = Client::open(at(lab, 1), &Who::anonymous()).await;
    for (qos, answer) in [(0, "sent"), (1, "NotAuthorized"), (2, "NotAuthorized")] {
        for topic in ["$mesh/canary/broker1", "$mesh/seen", "$mesh/"] {
            let given = eve.try_publish(topic, qos, true, "forged").await;
            assert_eq!(
                given, answer,
                "an ordinary client publishes to {topic} at QoS {qos}"
            );
        }
    }
    eve.leave().await;
    // Nor through a will.
    let mortal = Mortal::start(at(lab, 1), "mqttv5", "forger", "$mesh/canary/broker1", 1, true);
    wait_for_log(lab, 1, &[" as forger "], 1).await;
    mortal.die();
    wait_for_log(lab, 1, &["Client forger"], 1).await;
    quiet(&inboxes).await;
    for inbox in &inboxes {
        assert_eq!(
            inbox.messages(),
            [],
            "the {} got what an ordinary client forged",
            inbox.name()
        );
    }

    let health = Who::named("mesh.test").with_user("mesh-health", password);
    let mut client = Client::open(at(lab, 1), &health).await;
    let given = client.try_publish("open", 1, false, "by mesh-health").await;
    assert_eq!(
        given, "NotAuthorized",
        "mesh-health has no business outside of $mesh/"
    );
    client.publish("$mesh/canary/test", 0, false, "true").await;
    expect_once(
        "a canary of mesh-health",
        &inboxes,
        &["$mesh/canary/test".to_owned()],
    )
    .await;
}

/// Where another plugin lets in everyone, whoever has the user name of links gets nothing, and whoever has only
/// the client id of one is like anybody else.
#[tokio::test]
async fn who_was_let_in_by_somebody_else_is_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    std::fs::write(&acl, "topic readwrite open\n").unwrap();
    let acl = acl.display().to_string();
    // It looks like ours, or the broker would not start; it answers logins, and no ACL checks.
    let ahead = format!(
        "plugin {}\nplugin_opt_broker_id x\nplugin_opt_acl no",
        allow_all()
    );
    let lab = start(changed(without_asking_links(brokers(1)), move |_, conf| {
        assert!(
            conf.contains("plugin_opt_acl allow"),
            "the rendered configuration restricts nobody"
        );
        let conf = conf.replace("plugin_opt_acl allow", "plugin_opt_acl defer");
        conf.replacen("\nplugin ", &format!("\nacl_file {acl}\n{ahead}\nplugin "), 1)
    }))
    .await;
    let guess = Who::named("mesh.link.broker1.broker2").with_user("mesh-link", "guess");
    let named = Who::named("mesh.link.broker1.broker3");

    let mut guessing = Client::open(at(&lab, 1), &guess).await;
    for filter in ["#", "open"] {
        assert_eq!(
            guessing.try_subscribe(filter).await,
            "[NotAuthorized]",
            "who guessed the user of links subscribes to {filter}"
        );
    }
    assert_eq!(
        guessing.try_publish("open", 1, false, "forged").await,
        "NotAuthorized",
        "who guessed the user of links publishes"
    );

    let inbox =
        support::inbox::Inbox::open(at(&lab, 1), &named, &["#"], "client with a link's client id").await;
    let mut client = Client::open(at(&lab, 1), &Who::anonymous()).await;
    let forbidden = client.try_publish("secret", 1, false, "x").await;
    assert_eq!(forbidden, "NotAuthorized", "the acl_file is obeyed");
    client.publish("open", 1, false, "x").await;
    expect_once("a client with a link's client id", &[inbox], &["open".to_owned()]).await;
    lab.stop().await.unwrap();
}
