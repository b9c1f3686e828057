//! What is rendered is accepted by stock Mosquitto and Nginx, and what would make a mesh storm is not.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use mesh_lab::ports::PortBlock;
use mesh_lab::{Lab, LabError, LabOptions};
use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;
use support::client::{Who, login};
use support::stock::{Stock, user_name};
use support::{brokers, changed, replace_line, start, tools};

#[tokio::test]
async fn per_listener_settings_keep_a_broker_from_starting() {
    // A lab that does not start would keep a folder of its own.
    let folder = tempfile::tempdir().unwrap();
    let options = LabOptions {
        state: Some(folder.path().to_owned()),
        ..brokers(2)
    };
    let options = changed(options, |_, conf| {
        replace_line(&conf, "per_listener_settings false", "per_listener_settings true")
    });
    let Err(error) = Lab::start(options).await.map(drop) else {
        panic!("a broker started with per_listener_settings true");
    };
    assert!(matches!(error, LabError::Died { .. }), "{error}");
    let said = "mesh-plugin: per_listener_settings true is set: the broker then calls no plugin for what its own \
                bridges bring in";
    assert!(error.to_string().contains(said), "its log says why: {error}");
}

/// A `mesh.toml` like the deployed one, on 127.0.0.1.
fn mesh_toml(folder: &Path, ports: &PortBlock, brokers: u16, nginx_module: Option<&Path>) -> Config {
    let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let base = ports.base();
    let mut text = String::new();
    for n in 1..=brokers {
        text += &format!(
            "[[broker]]\nid = \"broker{n}\"\naddress = \"{}\"\n",
            here(base + n)
        );
    }
    let user = user_name();
    text += &format!(
        "[mosquitto]\nplugin = {:?}\ndata_dir = \"{}/{{broker}}\"\nuser = {user:?}\n\
         [balancer]\nlisten = \"{}\"\nreadback = \"{}\"\ndir = \"{}/nginx\"\n",
        tools::mesh_plugin(),
        folder.display(),
        here(base),
        here(base - 1),
        folder.display(),
    );
    if let Some(module) = nginx_module {
        text += &format!("stream_module = {module:?}\n");
    }
    if rustix::process::geteuid().is_root() {
        text += &format!("user = {user:?}\n");
    }
    let path = folder.join("mesh.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path, [], &[]).unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn what_is_rendered_for_any_number_of_brokers_is_accepted_by_nginx_and_mosquitto() {
    // The lab knows where Nginx and its stream module are.
    let lab = start(LabOptions {
        balancer: true,
        ..brokers(1)
    })
    .await;
    let nginx = lab.config().balancer.clone();
    lab.stop().await.unwrap();
    for count in [1, 2, 5, 12, 40] {
        let folder = tempfile::tempdir().unwrap();
        let ports = PortBlock::reserve().unwrap();
        let config = mesh_toml(folder.path(), &ports, count, nginx.stream_module.as_deref());
        let secrets = Secrets {
            link: "link-password-of-this-test".into(),
            health: "health-password-of-this-test".into(),
        };
        let files = mesh_render::all(&config, &secrets).unwrap();
        assert_eq!(
            files.len(),
            3 * usize::from(count) + 4,
            "for each broker its configuration, its machine and a list of files; two for Nginx and its list; one for scripts"
        );
        for file in &files {
            let path = folder.path().join(&file.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &file.contents).unwrap();
        }

        let prefix = folder.path().join("nginx");
        let output = Command::new(&nginx.program)
            .arg("-t")
            .arg("-c")
            .arg(prefix.join("nginx.conf"))
            .arg("-p")
            .arg(&prefix)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "nginx -t refuses what is rendered for {count} brokers:\n{said}"
        );
        assert!(
            !said.contains("[warn]"),
            "nginx -t warns of what is rendered for {count} brokers:\n{said}"
        );

        // The last broker, whose bridges lead to all others; nobody is there.
        let own = format!("broker{count}");
        let conf = std::fs::read_to_string(folder.path().join(format!("{own}/mosquitto.conf"))).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.base() + count));
        let broker = Stock::run(&folder.path().join(&own), &conf, address, ports).await;
        assert_eq!(
            login(broker.address(), &Who::anonymous()).await,
            "accepted",
            "{own} of {count} serves"
        );
        let log = std::fs::read_to_string(folder.path().join(&own).join("mosquitto.log")).unwrap();
        assert!(
            log.contains(&format!(
                "mesh-plugin: {}, broker {own}",
                env!("CARGO_PKG_VERSION")
            )),
            "{log}"
        );
    }
}
