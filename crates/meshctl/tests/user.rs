//! `meshctl user` against real brokers.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use mesh_lab::{Lab, LabOptions, wait_until};
use std::time::Duration;

/// Runs `meshctl user` with a line of standard input.
fn user(lab: &Lab, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .arg("user")
        .args(arguments)
        .arg("--state")
        .arg(lab.state())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever reads nothing may be gone already.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether brokers let somebody with this name and password publish.
fn may_publish(lab: &Lab, name: &str, password: &str) -> Vec<bool> {
    let ids = lab.config().topology.ids();
    ids.map(|id| {
        let port = lab.broker(id).port().to_string();
        let status = Command::new("mosquitto_pub")
            .args([
                "-p",
                &port,
                "-u",
                name,
                "-P",
                password,
                "-q",
                "1",
                "-t",
                "some/topic",
                "-m",
                "x",
            ])
            .stderr(Stdio::null())
            .status();
        status.unwrap().success()
    })
    .collect()
}

async fn wait_for(lab: &Lab, name: &str, password: &str, wanted: bool) {
    for id in lab.config().topology.ids() {
        let pid = lab.pid(id.as_str()).unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-HUP", &pid])
                .status()
                .unwrap()
                .success()
        );
    }
    wait_until(
        "brokers to know",
        Duration::from_secs(10),
        async || match may_publish(lab, name, password) {
            all if all.iter().all(|may| *may == wanted) => Ok(()),
            all => Err(format!("{all:?}")),
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn users_come_change_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    std::fs::write(&file, "").unwrap();
    let settings = format!(
        "[mosquitto]\nallow_anonymous = false\npassword_file = \"{}\"\n",
        file.display()
    );
    let options = LabOptions {
        brokers: 2,
        balancer: false,
        health: false,
        settings,
        ..LabOptions::default()
    };
    let lab = Lab::start(options).await.unwrap();

    assert_eq!(may_publish(&lab, "ann", "of green gables"), [false, false]);
    let added = user(&lab, &["add", "ann"], "of green gables\n");
    assert!(added.status.success(), "{}", text(&added.stderr));
    assert!(!text(&std::fs::read(&file).unwrap()).contains("gables"));
    wait_for(&lab, "ann", "of green gables", true).await;
    assert_eq!(may_publish(&lab, "ann", "of avonlea"), [false, false]);

    let made = user(&lab, &["add", "bob", "--generate"], "");
    let password = text(&made.stdout).trim().to_owned();
    assert_eq!(password.len(), 24);
    wait_for(&lab, "bob", &password, true).await;
    assert_eq!(text(&user(&lab, &["list"], "").stdout), "ann\nbob\n");

    assert!(user(&lab, &["remove", "ann"], "").status.success());
    wait_for(&lab, "ann", "of green gables", false).await;
    for (arguments, said) in [
        (["remove", "ann"], "there is no user ann"),
        (["add", "mesh-link"], "is the mesh's own"),
        (["add", "a:b"], "cannot be a user's name"),
        (["add", "carol"], "must not be empty"),
    ] {
        let refused = user(&lab, &arguments, "\n");
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains(said), "{}", text(&refused.stderr));
    }
    assert_eq!(text(&user(&lab, &["list"], "").stdout), "bob\n");
    lab.stop().await.unwrap();
}
