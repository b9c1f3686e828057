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
        for place in [file.to_str().unwrap(), "line 3: per_listener_settings: "] {
            assert!(said.contains(place), "the place is named:\n{said}");
        }
        assert!(
            said.contains("links have no listener"),
            "the reason is given:\n{said}"
        );
        assert!(output.stdout.is_empty(), "nothing says that it is right");
    }
}
