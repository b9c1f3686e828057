//! `meshctl check`, as an operator or a unit's `ExecStartPre` runs it: its exit code and what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BROKERS: &str = "[[broker]]\nid = \"broker1\"\naddress = \"192.168.100.10:1883\"\n\
                       [[broker]]\nid = \"broker2\"\naddress = \"192.168.100.11:1883\"\n";

/// Runs it on a file; settings of this shell's environment have no say.
fn check(config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MESH_")) {
        command.env_remove(name);
    }
    command.args(["check", "--config"]).arg(config).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mesh_toml(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("mesh.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_network_as_it_is_deployed_is_right() {
    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/mesh.toml");
    let output = check(&deployed);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output), "", "nothing to complain about");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.trim_end().ends_with("is right: 5 brokers"), "{told}");
}

#[test]
fn every_problem_is_told_at_once_with_exit_code_64() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[[broker]]\nid = \"broker1\"\naddress = \"192.168.100.10:1883\"\n\
                [[broker]]\nid = \"broker1\"\naddress = \"192.168.100.10:1883\"\n\
                [mosquitto]\nallow_anonymous = \"yes\"\ncolour = \"red\"\n\
                [health]\nprobe_interval = \"0s\"\n\
                [balancr]\nlisten = \"0.0.0.0:1883\"\n";
    let output = check(&mesh_toml(folder.path(), text));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for key in [
        "broker[1].id",
        "broker[1].address",
        "mosquitto.allow_anonymous",
        "mosquitto.colour",
        "health.probe_interval",
        "balancr.listen",
    ] {
        assert!(
            said.contains(key),
            "the problem with {key} is not among those told:\n{said}"
        );
    }
    assert!(said.contains("mesh.toml"), "the file is named:\n{said}");
    assert!(output.stdout.is_empty(), "nothing says that it is right");
}

#[test]
fn a_file_that_is_not_there_or_is_no_toml_is_a_problem_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(&folder.path().join("absent.toml"));
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("absent.toml"), "{}", said(&output));
    let output = check(&mesh_toml(folder.path(), "[[broker\n"));
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
}

#[test]
fn per_listener_settings_in_a_file_of_the_operator_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let own = folder.path().join("own.d");
    let of_broker2 = folder.path().join("broker2.d");
    for dir in [&own, &of_broker2] {
        std::fs::create_dir(dir).unwrap();
    }
    let extra = |dir: &str| format!("{BROKERS}[mosquitto]\nextra_dir = \"{path}/{dir}\"\n");

    std::fs::write(
        own.join("own.conf"),
        "# per_listener_settings true\nper_listener_settings false\n",
    )
    .unwrap();
    std::fs::write(own.join("notes.txt"), "per_listener_settings true\n").unwrap();
    let output = check(&mesh_toml(folder.path(), &extra("own.d")));
    assert_eq!(
        output.status.code(),
        Some(0),
        "comments and other files do not count: {}",
        said(&output)
    );

    for (file, dir) in [
        (own.join("z.conf"), "own.d"),
        (of_broker2.join("a.conf"), "{broker}.d"),
    ] {
        std::fs::write(&file, "max_connections 10\n\n  per_listener_settings \t 1\n").unwrap();
        let output = check(&mesh_toml(folder.path(), &extra(dir)));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(64), "{} is accepted", file.display());
        let place = format!("{}:3: per_listener_settings: ", file.display());
        assert!(said.contains(&place), "the place is named:\n{said}");
        assert!(
            said.contains("links have no listener"),
            "the reason is given:\n{said}"
        );
        assert!(output.stdout.is_empty(), "nothing says that it is right");
    }
}

#[test]
fn what_a_mesh_cannot_live_with_among_own_directives_is_refused_each_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let own = folder.path().join("broker2.d");
    std::fs::create_dir(&own).unwrap();
    let settings = format!("{BROKERS}[mosquitto]\nextra_dir = \"{path}/{{broker}}.d\"\n");
    let said_of = |lines: &str, more: &str| {
        std::fs::write(own.join("own.conf"), lines).unwrap();
        let output = check(&mesh_toml(folder.path(), &format!("{settings}{more}")));
        let refused = output.status.code() != Some(0);
        assert_eq!(output.status.code(), Some(if refused { 64 } else { 0 }));
        refused.then(|| said(&output))
    };
    let fine = "log_type debug\nautosave_on_changes true\nmessage_size_limit 1000\nretain_available true\n\
                listener 1884\nmount_point apart/\nlistener 1883 127.0.0.1\n\
                connection cloud\naddress 192.0.2.1:1883\ntopic # out\nof_the_future 1\n";
    assert_eq!(said_of(fine, ""), None);
    for (lines, place, reason) in [
        (
            "listener 1883\n",
            "1: listener",
            "port 1883 of 192.168.100.11 is taken, by broker2 of the mesh",
        ),
        ("listener 1883 192.168.100.11\n", "1: listener", "is taken"),
        (
            "listener 1890\nlistener 1890 127.0.0.1\n",
            "2: listener",
            "own.conf:1",
        ),
        (
            "max_connections 5\n",
            "1: max_connections",
            "would open port 1883",
        ),
        (
            "plugin acl.so\n",
            "1: plugin",
            "not asked about logins without mosquitto.password_file and topics",
        ),
        (
            "max_inflight_messages 0\n",
            "1: max_inflight_messages",
            "is set by mosquitto.max_inflight_messages",
        ),
        (
            "\nallow_anonymous false\n",
            "2: allow_anonymous",
            "is set by mosquitto.allow_anonymous",
        ),
        (
            "persistence_location /tmp\n",
            "1: persistence_location",
            "mosquitto.data_dir",
        ),
        (
            "max_packet_size 500\n",
            "1: max_packet_size",
            "message_size_limit",
        ),
        ("connection mesh-broker1\n", "1: connection", "name of a link"),
        (
            "connection c\nlocal_username mesh-link\n",
            "2: local_username",
            "the links' own",
        ),
        (
            "connection c\nlocal_clientid mesh.x\n",
            "2: local_clientid",
            "the mesh's own",
        ),
        (
            "connection c\naddress 192.0.2.1\nbridge_cafile ca.crt\n",
            "3: bridge_cafile",
            "give the whole path",
        ),
        ("topic # out\n", "1: topic", "before any `connection`"),
    ] {
        let said = said_of(lines, "").unwrap_or_else(|| panic!("{lines} is accepted"));
        for part in [&format!("own.conf:{place}"), reason] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
    }
    let hands_on = "password_file = \"/u\"\nacl_file = \"/a\"\n";
    assert_eq!(said_of("plugin acl.so\nplugin_opt_abc x\n", hands_on), None);
}

#[test]
fn files_that_own_directives_name_are_listed_for_the_broker_that_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let own = folder.path().join("broker2.d");
    std::fs::create_dir(&own).unwrap();
    let lines = "connection cloud\naddress 192.0.2.1\ntopic # out\nbridge_cafile /etc/ssl/certs/ca-certificates.crt\n\
                 bridge_certfile /etc/mosquitto/bridge.crt\nlistener 8884\nkeyfile /etc/mesh/a door.key\ncapath /etc/own\n";
    std::fs::write(own.join("own.conf"), lines).unwrap();
    let settings = format!(
        "{BROKERS}[mosquitto]\nextra_dir = \"{path}/{{broker}}.d\"\n[security]\nsecrets_dir = \"{path}/secrets\"\n"
    );
    let out = folder.path().join("out");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["render", "--config"])
        .arg(mesh_toml(folder.path(), &settings))
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let named = |broker: &str| {
        let files = std::fs::read_to_string(out.join(broker).join("files")).unwrap();
        let named = files.lines().filter(|line| line.starts_with("named "));
        named.map(str::to_owned).collect::<Vec<_>>()
    };
    let wanted = ["named /etc/mesh/a door.key", "named /etc/mosquitto/bridge.crt"];
    assert_eq!(named("broker2"), wanted);
    assert!(named("broker1").is_empty());
}
