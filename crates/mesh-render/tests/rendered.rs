//! What is rendered, held by snapshots; that Mosquitto and Nginx accept it is held by mesh-lab's tests.

use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;

const FIVE: &str = "[[broker]]\nid = \"broker1\"\naddress = \"192.168.100.10:1883\"\n";

fn config(brokers: u8, more: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.toml");
    let mut text = FIVE.to_owned();
    for n in 2..=brokers {
        text += &format!(
            "[[broker]]\nid = \"broker{n}\"\naddress = \"192.168.100.{}:1883\"\n",
            9 + n
        );
    }
    std::fs::write(&path, text + more).unwrap();
    let mut config = Config::load(&path, [], &[]).unwrap();
    config.path = "/etc/mesh/mesh.toml".into();
    config
}

fn secrets() -> Secrets {
    Secrets {
        link: "link-password-of-this-test".into(),
        health: "health-password-of-this-test".into(),
    }
}

#[test]
fn a_network_of_two_as_it_is_deployed() {
    let config = config(2, "");
    for file in mesh_render::all(&config, &secrets()).unwrap() {
        insta::assert_snapshot!(file.path.replace('/', "-"), file.contents);
    }
}

#[test]
fn a_broker_with_every_access_control() {
    let config = config(
        1,
        r#"
        [mosquitto]
        allow_anonymous = false
        password_file = "/etc/mosquitto/{broker}.passwords"
        acl_file = "/etc/mosquitto/acl"
        dynamic_security_file = "/var/lib/mosquitto/dynamic-security.json"
        extra_dir = "/etc/mosquitto/own.d"
        first_database = "/etc/mesh/{broker}/mosquitto.db"
        "#,
    );
    let files = mesh_render::broker::files(&config, &"broker1".parse().unwrap()).unwrap();
    assert_eq!(
        files,
        "passwords /etc/mosquitto/broker1.passwords\nacl /etc/mosquitto/acl\n\
         directives /etc/mosquitto/own.d\ndynamic-security /var/lib/mosquitto/dynamic-security.json\n\
         database /etc/mesh/broker1/mosquitto.db /var/lib/mosquitto/mosquitto.db\n"
    );
    let text = mesh_render::broker_conf(&config, &secrets(), &"broker1".parse().unwrap()).unwrap();
    insta::assert_snapshot!(text);
}

#[test]
fn a_network_with_every_door() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.toml");
    let broker = |n: u8| {
        let ip = format!("192.168.100.{}", 9 + n);
        format!(
            "[[broker]]\nid = \"broker{n}\"\naddress = \"{ip}:1883\"\nwebsockets = \"{ip}:8083\"\ntls = \"{ip}:8883\"\n"
        )
    };
    let more = r#"
        [mosquitto]
        tls_dir = "/etc/mesh/tls"
        [balancer]
        tls = "0.0.0.0:8883"
        websockets = "0.0.0.0:8083"
        websockets_tls = "0.0.0.0:8084"
        certificate = "/etc/mesh/tls/balancer.crt"
        certificate_key = "/etc/mesh/tls/balancer.key"
        "#;
    std::fs::write(&path, broker(1) + &broker(2) + more).unwrap();
    let mut config = Config::load(&path, [], &[]).unwrap();
    config.path = "/etc/mesh/mesh.toml".into();
    for file in mesh_render::all(&config, &secrets()).unwrap() {
        if !file.path.ends_with(".yaml") && file.path.contains('/') && !file.path.starts_with("broker2") {
            insta::assert_snapshot!(format!("doors-{}", file.path.replace('/', "-")), file.contents);
        }
    }
}

#[test]
fn links_may_do_without_the_tls_that_brokers_offer() {
    let broker = |n| {
        format!("[[broker]]\nid = \"broker{n}\"\naddress = \"10.0.0.{n}:1883\"\ntls = \"10.0.0.{n}:8883\"\n")
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.toml");
    let rendered = |more: &str| {
        std::fs::write(
            &path,
            broker(1) + &broker(2) + "[mosquitto]\ntls_dir = \"/tls\"\n" + more,
        )
        .unwrap();
        let config = Config::load(&path, [], &[]).unwrap();
        mesh_render::broker_conf(&config, &secrets(), &"broker1".parse().unwrap()).unwrap()
    };
    for (more, address) in [
        ("", "address 10.0.0.2:8883\nbridge_cafile"),
        ("link_tls = false\n", "address 10.0.0.2:1883\ntopic"),
    ] {
        let text = rendered(more);
        assert!(text.contains(address), "{text}");
        assert!(
            text.contains("listener 8883 10.0.0.1\ncafile /tls/ca.crt\n"),
            "{text}"
        );
    }
}

#[test]
fn paths_that_would_end_a_directive_are_refused() {
    for path in ["/var/lib/my mosquitto", "/x;y", "/x\\ny", "/{x}"] {
        let config = config(1, &format!("[mosquitto]\ndata_dir = \"{path}\"\n"));
        let error = mesh_render::all(&config, &secrets()).unwrap_err();
        assert!(error.to_string().starts_with("mosquitto.data_dir: "), "{error}");
    }
}
