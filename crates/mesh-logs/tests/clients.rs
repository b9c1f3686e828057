//! Who is connected where, from lines that a mesh does not produce: there the newer session ends the older one.

mod common;

use common::{DEADLINE, Rig};
use mesh_lab::wait_until;
use mesh_store::Reader;

/// Nothing runs there.
const OTHER: &str = "[[broker]]\nid = \"broker3\"\naddress = \"127.0.0.1:1\"\n";

fn broker(id: &str) -> String {
    format!(
        "[[logs.source]]\nname = \"{id}\"\npath = \"DIR/{id}.log\"\nformat = \"mosquitto\"\nbroker = \"{id}\"\n"
    )
}

#[tokio::test]
async fn a_client_id_on_two_brokers_at_once_is_shown_as_such() {
    let mut rig = Rig::new(&(OTHER.to_owned() + &broker("broker1") + &broker("broker3")));
    rig.start();
    let line = "2026-11-23T09:00:00: New client connected from 127.0.0.1:50123 as twin (p2, c1, k60).\n";
    rig.append("broker1.log", line);
    rig.append("broker3.log", line);
    let expected = [(
        "twin".to_owned(),
        vec!["broker1".to_owned(), "broker3".to_owned()],
    )];
    wait_until("the client to be seen twice", DEADLINE, async || {
        let reader = Reader::open(&rig.database())
            .await
            .map_err(|error| error.to_string())?;
        let twice = reader.duplicates().await.map_err(|error| error.to_string())?;
        if twice == expected {
            Ok(())
        } else {
            Err(format!("{twice:?}"))
        }
    })
    .await
    .unwrap();
}
