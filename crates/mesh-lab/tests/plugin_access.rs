//! With every kind of access control that Mosquitto has, mesh-plugin in front changes nothing for clients: what a
//! stock broker allows is allowed on every broker of the mesh, and arrives everywhere once; what it forbids is
//! forbidden.
//!
//! Each test asks a stock broker and a mesh with the same settings the same questions, before and after SIGHUP,
//! and compares the answers. A few of them are written down as well: two brokers might be wrong alike.

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use mesh_lab::{Lab, LabOptions};
use support::client::{Client, Who, login};
use support::inbox::Inbox;
use support::stock::Stock;
use support::tools::{password_file, run};
use support::{all, at, brokers, expect_exactly_once, id, link_logins, quiet, reload, start};

const BROKERS: usize = 3;

/// By question, the answer.
type Answers = BTreeMap<String, String>;

/// A kind of access control, and who tries what.
struct Scene<'a> {
    /// For `[mosquitto]` of the mesh.
    settings: String,
    /// The same for a stock broker.
    stock: String,
    people: &'a [Who],
    topics: &'a [&'a str],
    /// Who may publish and receive below the last of the topics.
    trusted: Who,
    below: &'a str,
    /// Some answers that must be given before and after the reload.
    before: &'a [(&'a str, &'a str)],
    after: &'a [(&'a str, &'a str)],
    /// Somebody who is connected while the configuration is changed and read again.
    stays: Option<Who>,
    /// Changes the files; is told where all brokers are.
    change: &'a dyn Fn(&[SocketAddr]),
}

/// Asks everything of the brokers at `addresses`, which act as one: `people` publish at the first and listen on all.
/// The answers of each broker.
async fn ask(addresses: &[SocketAddr], scene: &Scene<'_>) -> Vec<Answers> {
    let mut all_answers = Vec::new();
    let mut inboxes = Vec::new();
    for &address in addresses {
        let mut answers = Answers::new();
        for who in scene.people {
            let answer = login(address, who).await;
            if answer == "accepted" {
                let inbox = Inbox::open(address, who, scene.topics, &who.to_string()).await;
                inboxes.push((address, inbox));
                let mut client = Client::open(address, who).await;
                for topic in scene.topics {
                    let answer = client.try_subscribe(topic).await;
                    answers.insert(format!("{who} subscribes to {topic}"), answer);
                }
            }
            answers.insert(format!("{who} logs in"), answer);
        }
        all_answers.push(answers);
    }
    // Each broker is asked whether somebody may publish; what is published at the first is listened to everywhere.
    for (&address, answers) in addresses.iter().zip(&mut all_answers) {
        for who in scene.people {
            let Ok(mut client) = Client::try_open(address, who).await else {
                continue;
            };
            for topic in scene.topics {
                let payload = if address == addresses[0] {
                    who.to_string()
                } else {
                    "elsewhere".to_owned()
                };
                let answer = client.try_publish(topic, 1, false, payload).await;
                answers.insert(format!("{who} publishes to {topic}"), answer);
            }
        }
    }
    let (places, inboxes): (Vec<_>, Vec<_>) = inboxes.into_iter().unzip();
    quiet(&inboxes).await;
    for (address, inbox) in places.into_iter().zip(&inboxes) {
        let place = addresses.iter().position(|other| *other == address).unwrap();
        let mut heard: BTreeMap<String, usize> = BTreeMap::new();
        for message in inbox
            .messages()
            .iter()
            .filter(|message| message.payload != "elsewhere")
        {
            *heard
                .entry(format!("{} from {}", message.topic, message.text()))
                .or_default() += 1;
        }
        all_answers[place].insert(format!("{} hears", inbox.name()), format!("{heard:?}"));
    }
    all_answers
}

/// Asks and compares; `moment` tells when, for messages.
async fn compare(moment: &str, lab: &Lab, stock: &Stock, scene: &Scene<'_>, told: &[(&str, &str)]) {
    let addresses: Vec<SocketAddr> = all(lab).map(|n| at(lab, n)).collect();
    let expected = ask(&[stock.address()], scene).await.remove(0);
    for (question, answer) in told {
        let given = expected.get(*question).map(String::as_str);
        assert_eq!(given, Some(*answer), "{moment}, a stock broker: {question}");
    }
    for (n, answers) in all(lab).zip(ask(&addresses, scene).await) {
        for (question, answer) in &expected {
            assert_eq!(
                answers.get(question),
                Some(answer),
                "{moment}, broker{n} of the mesh differs from a stock broker: {question}"
            );
        }
        assert_eq!(
            answers.len(),
            expected.len(),
            "{moment}: broker{n} was asked the same as the stock broker"
        );
    }
    let about = format!("{moment}, {} below {}", scene.trusted, scene.below);
    expect_exactly_once(&about, lab, &scene.trusted, scene.below).await;
}

async fn play(folder: &Path, scene: &Scene<'_>) {
    let stock = Stock::start(folder, &scene.stock).await;
    let lab = start(LabOptions {
        settings: format!("[mosquitto]\n{}\n", scene.settings),
        ..brokers(BROKERS)
    })
    .await;
    let addresses: Vec<SocketAddr> = all(&lab).map(|n| at(&lab, n)).chain([stock.address()]).collect();
    compare("at first", &lab, &stock, scene, scene.before).await;

    let mut staying = Vec::new();
    for &address in &addresses {
        if let Some(who) = &scene.stays {
            staying.push(Client::open(address, who).await);
        }
    }
    (scene.change)(&addresses);
    let links: Vec<usize> = all(&lab).map(|n| link_logins(&lab, n)).collect();
    reload(&lab).await;
    stock.reload().await;
    compare("after SIGHUP", &lab, &stock, scene, scene.after).await;

    if let Some(mut on_stock) = staying.pop() {
        let stays = on_stock.is_alive().await;
        for (n, client) in all(&lab).zip(&mut staying) {
            assert_eq!(
                client.is_alive().await,
                stays,
                "whether a session stays that was there at SIGHUP, on broker{n} and on a stock broker"
            );
        }
    }
    let links_now: Vec<usize> = all(&lab).map(|n| link_logins(&lab, n)).collect();
    assert_eq!(links_now, links, "SIGHUP ends no link");
    lab.stop().await.unwrap();
}

fn nothing_changes(_: &[SocketAddr]) {}

const REFUSED: &str = "the broker refused the session: NotAuthorized";

#[tokio::test]
async fn anonymous_clients_and_whoever_invents_a_name_are_as_welcome_as_on_a_stock_broker() {
    let folder = tempfile::tempdir().unwrap();
    play(
        folder.path(),
        &Scene {
            settings: String::new(),
            stock: "allow_anonymous true".to_owned(),
            people: &[
                Who::anonymous(),
                Who::user("inventor", "any"),
                Who::user("inventor", ""),
            ],
            topics: &["open", "deep/er"],
            trusted: Who::user("inventor", "other"),
            below: "open",
            before: &[
                ("anonymous logs in", "accepted"),
                ("inventor/any logs in", "accepted"),
            ],
            after: &[
                ("anonymous logs in", "accepted"),
                ("inventor/ logs in", "accepted"),
            ],
            stays: Some(Who::anonymous()),
            change: &nothing_changes,
        },
    )
    .await;
}

#[tokio::test]
async fn a_password_file_lets_in_who_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    password_file(&passwords, &[("alice", "first"), ("bob", "bobs")]);
    play(
        folder.path(),
        &Scene {
            settings: format!("allow_anonymous = false\npassword_file = {passwords:?}"),
            stock: format!("allow_anonymous false\npassword_file {}", passwords.display()),
            people: &[
                Who::anonymous(),
                Who::user("alice", "first"),
                Who::user("alice", "second"),
                Who::user("alice", ""),
                Who::user("bob", "bobs"),
                Who::user("mallory", "first"),
            ],
            topics: &["open"],
            trusted: Who::user("bob", "bobs"),
            below: "open",
            before: &[
                ("anonymous logs in", REFUSED),
                ("alice/first logs in", "accepted"),
                ("alice/second logs in", REFUSED),
                ("alice/ logs in", REFUSED),
                ("mallory/first logs in", REFUSED),
            ],
            after: &[
                ("anonymous logs in", REFUSED),
                ("alice/first logs in", REFUSED),
                ("alice/second logs in", "accepted"),
            ],
            stays: Some(Who::user("alice", "first")),
            change: &|_| password_file(&passwords, &[("alice", "second"), ("bob", "bobs")]),
        },
    )
    .await;
}

#[tokio::test]
async fn a_password_file_beside_anonymous_clients_still_asks_for_passwords() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    password_file(&passwords, &[("alice", "first")]);
    play(
        folder.path(),
        &Scene {
            settings: format!("allow_anonymous = true\npassword_file = {passwords:?}"),
            stock: format!("allow_anonymous true\npassword_file {}", passwords.display()),
            people: &[
                Who::anonymous(),
                Who::user("alice", "first"),
                Who::user("alice", "second"),
            ],
            topics: &["open"],
            trusted: Who::anonymous(),
            below: "open",
            before: &[
                ("anonymous logs in", "accepted"),
                ("alice/second logs in", REFUSED),
            ],
            after: &[
                ("anonymous logs in", "accepted"),
                ("alice/first logs in", REFUSED),
            ],
            stays: Some(Who::anonymous()),
            change: &|_| password_file(&passwords, &[("alice", "second")]),
        },
    )
    .await;
}

#[tokio::test]
async fn a_password_file_and_an_acl_file_together_are_both_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let (passwords, acl) = (folder.path().join("passwords"), folder.path().join("acl"));
    password_file(&passwords, &[("alice", "alices"), ("bob", "bobs")]);
    let rules = |own: &str| {
        format!(
            "user alice\ntopic readwrite {own}/#\ntopic write news\n\n\
             user bob\ntopic read news\ntopic deny news/secret\n\npattern readwrite home/%u/#\n"
        )
    };
    std::fs::write(&acl, rules("alices")).unwrap();
    play(
        folder.path(),
        &Scene {
            settings: format!("allow_anonymous = false\npassword_file = {passwords:?}\nacl_file = {acl:?}"),
            stock: format!(
                "allow_anonymous false\npassword_file {}\nacl_file {}",
                passwords.display(),
                acl.display()
            ),
            people: &[
                Who::anonymous(),
                Who::user("alice", "alices"),
                Who::user("bob", "bobs"),
                Who::user("bob", "alices"),
            ],
            topics: &["alices/a", "news", "home/alice/lamp", "home/bob/lamp", "other"],
            trusted: Who::user("alice", "alices"),
            below: "home/alice",
            before: &[
                ("anonymous logs in", REFUSED),
                ("bob/alices logs in", REFUSED),
                ("alice/alices publishes to news", "Success"),
                ("bob/bobs publishes to news", "NotAuthorized"),
                ("bob/bobs publishes to other", "NotAuthorized"),
                (
                    "bob/bobs hears",
                    r#"{"home/bob/lamp from bob/bobs": 1, "news from alice/alices": 1}"#,
                ),
                (
                    "alice/alices hears",
                    r#"{"alices/a from alice/alices": 1, "home/alice/lamp from alice/alices": 1}"#,
                ),
            ],
            after: &[
                ("alice/alices publishes to alices/a", "NotAuthorized"),
                ("alice/alices publishes to other", "Success"),
                (
                    "alice/alices hears",
                    r#"{"home/alice/lamp from alice/alices": 1, "other from alice/alices": 1}"#,
                ),
            ],
            stays: Some(Who::user("alice", "alices")),
            change: &|_| std::fs::write(&acl, rules("other")).unwrap(),
        },
    )
    .await;
}

#[tokio::test]
async fn an_acl_file_binds_anonymous_clients() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    let rules = |read: &str| {
        format!("topic readwrite open/#\ntopic read {read}\ntopic write drop\n\nuser eve\ntopic read drop\n")
    };
    std::fs::write(&acl, rules("told")).unwrap();
    play(
        folder.path(),
        &Scene {
            settings: format!("acl_file = {acl:?}"),
            stock: format!("allow_anonymous true\nacl_file {}", acl.display()),
            people: &[Who::anonymous(), Who::user("eve", "any")],
            topics: &["open/a", "told", "drop", "other"],
            trusted: Who::anonymous(),
            below: "open",
            before: &[
                ("anonymous publishes to open/a", "Success"),
                ("anonymous publishes to told", "NotAuthorized"),
                ("anonymous publishes to other", "NotAuthorized"),
                ("anonymous hears", r#"{"open/a from anonymous": 1}"#),
                ("eve/any hears", r#"{"drop from anonymous": 1}"#),
            ],
            after: &[
                ("anonymous publishes to drop", "Success"),
                (
                    "anonymous hears",
                    r#"{"drop from anonymous": 1, "open/a from anonymous": 1}"#,
                ),
            ],
            stays: Some(Who::anonymous()),
            change: &|_| std::fs::write(&acl, rules("drop")).unwrap(),
        },
    )
    .await;
}

/// Runs Mosquitto's own tool for the dynamic-security plugin.
fn dynsec(address: SocketAddr, arguments: &[&str]) {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let connect = ["-h", &host, "-p", &port, "-u", "admin", "-P", "admins", "dynsec"];
    run("mosquitto_ctrl", &[connect.as_slice(), arguments].concat());
}

/// A configuration made on a broker of its own, as an operator would.
async fn make_dynamic_security(folder: &Path, plugin: &str) -> std::path::PathBuf {
    let file = folder.join("made.json");
    run(
        "mosquitto_ctrl",
        &["dynsec", "init", &file.to_string_lossy(), "admin", "admins"],
    );
    let lines = format!(
        "allow_anonymous false\nplugin {plugin}\nplugin_opt_config_file {}",
        file.display()
    );
    let broker = Stock::start(folder, &lines).await;
    let make = |arguments: &[&str]| dynsec(broker.address(), arguments);
    for (role, allowed) in [
        (
            "owner",
            ["publishClientSend", "publishClientReceive", "subscribePattern"].as_slice(),
        ),
        ("reader", ["publishClientReceive", "subscribePattern"].as_slice()),
    ] {
        make(&["createRole", role]);
        for kind in allowed {
            make(&["addRoleACL", role, kind, "open/#", "allow"]);
        }
    }
    for (user, role) in [("alice", "owner"), ("bob", "reader"), ("carol", "owner")] {
        make(&["createClient", user, "-p", &format!("{user}s")]);
        make(&["addClientRole", user, role]);
    }
    make(&["setDefaultACLAccess", "publishClientReceive", "deny"]);
    file
}

#[tokio::test]
async fn the_dynamic_security_plugin_decides_about_all_others() {
    let plugin = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let made = make_dynamic_security(folder.path(), plugin).await;
    let own = |broker: &str| folder.path().join(format!("{broker}.json"));
    for n in 1..=BROKERS {
        std::fs::copy(&made, own(id(n).as_str())).unwrap();
    }
    std::fs::copy(&made, own("stock")).unwrap();
    play(
        folder.path(),
        &Scene {
            settings: format!("allow_anonymous = false\ndynamic_security_file = \"{path}/{{broker}}.json\"\ndynamic_security_plugin = {plugin:?}"),
            stock: format!("allow_anonymous false\nplugin {plugin}\nplugin_opt_config_file {}", own("stock").display()),
            people: &[
                Who::anonymous(),
                Who::user("alice", "alices"),
                Who::user("alice", "bobs"),
                Who::user("bob", "bobs"),
                Who::user("carol", "carols"),
            ],
            topics: &["open/a", "other"],
            trusted: Who::user("alice", "alices"),
            below: "open",
            before: &[
                ("anonymous logs in", REFUSED),
                ("alice/bobs logs in", REFUSED),
                ("alice/alices publishes to open/a", "Success"),
                ("alice/alices publishes to other", "NotAuthorized"),
                ("alice/alices subscribes to other", "[NotAuthorized]"),
                ("bob/bobs publishes to open/a", "NotAuthorized"),
                ("bob/bobs hears", r#"{"open/a from alice/alices": 1, "open/a from carol/carols": 1}"#),
            ],
            after: &[
                ("carol/carols logs in", REFUSED),
                ("bob/bobs publishes to open/a", "Success"),
            ],
            stays: Some(Who::user("carol", "carols")),
            change: &|addresses| {
                for &address in addresses {
                    dynsec(address, &["disableClient", "carol"]);
                    dynsec(address, &["addClientRole", "bob", "owner"]);
                }
            },
        },
    )
    .await;
}
