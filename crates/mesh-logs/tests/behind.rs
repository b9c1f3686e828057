//! Far behind on many files: memory stays, and what several programs say of one client comes together.
#![cfg(target_os = "linux")]

mod common;

use std::fmt::Write;
use std::time::Duration;

use common::Rig;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use mesh_lab::wait_until;
use mesh_store::Reader;

/// Files of brokers, and as many of balancers.
const PAIRS: usize = 24;

const CLIENTS: usize = 48_000;

/// So many come within a second of the time that lines tell.
const PER_S: i64 = 600;

/// There is much to be read, and other tests run beside this one.
const PATIENCE: Duration = Duration::from_secs(300);

const LINES_OF_A_CLIENT: usize = 5;

/// What a broker and a balancer log of each client, by pairs of files.
fn logs(upstream: &str) -> Vec<(String, String)> {
    let mut logs = vec![(String::new(), String::new()); PAIRS];
    // What is much older is deleted.
    let began = Timestamp::now().as_second() - CLIENTS as i64 / PER_S - 1;
    for client in 0..CLIENTS {
        let second = began + client as i64 / PER_S;
        let local = Timestamp::from_second(second)
            .unwrap()
            .to_zoned(TimeZone::system());
        let head = format!(
            "{} [info] 7902#7902: *{client}",
            local.strftime("%Y/%m/%d %H:%M:%S")
        );
        let seen = format!("127.0.0.2:{}", 1024 + client);
        let (broker, balancer) = &mut logs[client % PAIRS];
        write!(
            balancer,
            "{head} client 192.168.7.7:{} connected to 0.0.0.0:1883\n{head} proxy {seen} connected to {upstream}\n\
             {head} client disconnected, bytes from/to client:65/9, bytes from/to upstream:9/65\n",
            1024 + client
        )
        .unwrap();
        write!(
            broker,
            "{second}: New client connected from {seen} as sensor-{client} (p2, c1, k60).\n\
             {second}: Client sensor-{client} disconnected.\n"
        )
        .unwrap();
    }
    logs
}

fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

#[tokio::test]
async fn memory_stays_and_clients_are_known_however_many_files_there_are() {
    let sources: String = (0..PAIRS)
        .map(|pair| {
            format!(
                "[[logs.source]]\nname = \"broker-{pair}\"\npath = \"DIR/broker-{pair}.log\"\nformat = \"mosquitto\"\n\
                 broker = \"broker1\"\n\n[[logs.source]]\nname = \"nginx-{pair}\"\npath = \"DIR/nginx-{pair}.log\"\n\
                 format = \"nginx\"\n\n"
            )
        })
        .collect();
    let mut rig = Rig::new(&sources);
    for (pair, (broker, balancer)) in logs(&format!("127.0.0.1:{}", rig.port + 1))
        .into_iter()
        .enumerate()
    {
        rig.append(&format!("broker-{pair}.log"), broker);
        rig.append(&format!("nginx-{pair}.log"), balancer);
    }
    rig.start();
    let reader = wait_until("a database", PATIENCE, async || {
        Reader::open(&rig.database()).await
    });
    let reader = reader.await.unwrap();
    wait_until("all lines", PATIENCE, async || {
        let sources = reader.sources().await.map_err(|error| error.to_string())?;
        let stored: u64 = sources.iter().map(|source| source.lines).sum();
        if stored == (CLIENTS * LINES_OF_A_CLIENT) as u64 {
            Ok(())
        } else {
            Err(format!("{stored} lines"))
        }
    })
    .await
    .unwrap();
    let peak = peak(rig.pid());
    println!("at most {peak} bytes of memory");
    assert!(peak < 100_000_000, "{peak} bytes of memory");
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    let count = |what: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {what}");
        database.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let whole = "client_session WHERE reason IS NOT NULL AND \
                 remote_addr = '192.168.7.7:' || (1024 + CAST(substr(client_id, 8) AS INTEGER))";
    assert_eq!(count("client_session"), CLIENTS as i64);
    assert_eq!(count(whole), CLIENTS as i64);
    assert_eq!(count("proxied_connection"), 0);
    rig.stop();
}
