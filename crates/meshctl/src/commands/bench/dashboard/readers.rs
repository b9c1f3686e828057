//! Many readers of the event stream at once, without a browser.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What tells that the event is there.
const SIGN: &str = r#""name":"broker.dead""#;

/// Open streams. They end when this is dropped.
#[derive(Debug)]
pub struct Readers {
    count: usize,
    bytes: Arc<AtomicU64>,
    dead: mpsc::UnboundedReceiver<Instant>,
    _tasks: JoinSet<()>,
}

impl Readers {
    /// Opens `count` streams at `address`.
    ///
    /// # Errors
    ///
    /// If one of them is refused.
    pub async fn open(address: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let bytes = Arc::new(AtomicU64::new(0));
        let (told, dead) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let stream = open(address).await.with_context(|| format!("stream {number}"))?;
            tasks.spawn(read(stream, Arc::clone(&bytes), told.clone()));
        }
        Ok(Self {
            count,
            bytes,
            dead,
            _tasks: tasks,
        })
    }

    /// Bytes that all of them have read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When each of them was told that a broker is dead.
    ///
    /// # Errors
    ///
    /// If not all are told within `deadline`.
    pub async fn told_of_death(&mut self, deadline: Duration) -> anyhow::Result<Vec<Instant>> {
        let count = self.count;
        let all = async {
            let mut times = Vec::new();
            while times.len() < count {
                times.push(self.dead.recv().await.context("a stream ended")?);
            }
            Ok(times)
        };
        let told = tokio::time::timeout(deadline, all).await;
        told.with_context(|| format!("not all {count} readers were told within {deadline:?}"))?
    }
}

async fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /api/v1/events HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    if &head != b"HTTP/1.1 200" {
        bail!("it is refused: {}", String::from_utf8_lossy(&head));
    }
    Ok(stream)
}

async fn read(mut stream: TcpStream, bytes: Arc<AtomicU64>, told: mpsc::UnboundedSender<Instant>) {
    let mut buffer = vec![0; 32 << 10];
    // An event may lie across two reads.
    let mut tail: Vec<u8> = Vec::new();
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        bytes.fetch_add(read as u64, Ordering::Relaxed);
        tail.extend_from_slice(&buffer[..read]);
        if String::from_utf8_lossy(&tail).contains(SIGN) {
            tail.clear();
            if told.send(Instant::now()).is_err() {
                return;
            }
        }
        let over = tail.len().saturating_sub(SIGN.len());
        tail.drain(..over);
    }
}
