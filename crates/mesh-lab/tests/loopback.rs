//! A lab on 127.0.0.1: it starts, breaks as asked, and leaves nothing behind.

use std::sync::Arc;
use std::time::Instant;

use mesh_lab::{Lab, LabOptions};

fn options() -> LabOptions {
    LabOptions {
        health: false,
        progress: Some(Arc::new(|line| eprintln!("lab: {line}"))),
        ..LabOptions::default()
    }
}

#[tokio::test]
async fn five_brokers_start_and_stop() {
    let begin = Instant::now();
    let lab = Lab::start(options()).await.unwrap();
    eprintln!("started after {:?}", begin.elapsed());
    let begin = Instant::now();
    lab.stop().await.unwrap();
    eprintln!("stopped after {:?}", begin.elapsed());
}

#[tokio::test]
async fn tmp_keep() {
    let lab = Lab::start(options()).await.unwrap();
    drop(lab);
}
