//! Publishes numbers, or prints what arrives; the same as the Python examples in `client-examples/python`.
//!
//! ```sh
//! numbers publish --broker 127.0.0.1:18830 --topic example/a --count 1000 --rate 100 --outbox outbox.db
//! numbers subscribe --broker 127.0.0.1:18830 --topic 'example/#' --client-id reader-1
//! ```
//!
//! Kill the publisher, start it again with the same outbox, and it goes on where it was.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mesh_client::{Client, Options, Outbox, Status};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

#[derive(Parser)]
#[command(
    version,
    about = "Publish numbers, or print what arrives, whatever becomes of the broker"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish numbered messages and lose none
    Publish(PublishArgs),
    /// Print each message once, as topic, tab, payload
    Subscribe(SubscribeArgs),
}

#[derive(Args)]
struct Network {
    /// The balancer; or several times, brokers in order of preference
    #[arg(long = "broker", value_name = "HOST:PORT", value_parser = address, default_value = "127.0.0.1:18830")]
    brokers: Vec<(String, u16)>,
    /// Name of the session (default: a new one each time)
    #[arg(long)]
    client_id: Option<String>,
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    keep_alive: u64,
    /// Between two attempts
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    longest_pause: f64,
    #[arg(long, requires = "password")]
    username: Option<String>,
    /// Use TLS and trust these certificates
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Of the user
    #[arg(long, env = "MQTT_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

#[derive(Args)]
struct PublishArgs {
    #[command(flatten)]
    network: Network,
    #[arg(long, default_value = "example/messages")]
    topic: String,
    /// End after so many messages (default: go on)
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
    /// Messages a second
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    #[arg(long, value_name = "FILE", default_value = "outbox.db")]
    outbox: PathBuf,
}

#[derive(Args)]
struct SubscribeArgs {
    #[command(flatten)]
    network: Network,
    /// Topic filter; may be given several times
    #[arg(long, default_value = "example/#")]
    topic: Vec<String>,
    /// End after so many messages (default: go on)
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    session_expiry: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Publish(args) => publish(args).await,
        Command::Subscribe(args) => subscribe(args).await,
    }
}

async fn publish(args: PublishArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.rate > 0.0, "--rate must be above 0");
    let outbox = Outbox::open(&args.outbox).with_context(|| args.outbox.display().to_string())?;
    let (client, _messages) = mesh_client::start(options(args.network)?, outbox).await?;
    tokio::spawn(tell(client.status()));
    let mut ticks = interval(Duration::from_secs_f64(1.0 / args.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let all = async {
        for number in 1..=args.count {
            ticks.tick().await;
            client.publish(&args.topic, number.to_string()).await?;
        }
        client.flush().await
    };
    tokio::select! {
        done = all => done?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    close(&client).await
}

async fn subscribe(args: SubscribeArgs) -> anyhow::Result<()> {
    let mut options = options(args.network)?;
    options.subscriptions = args.topic;
    options.session_expiry = Duration::from_secs(args.session_expiry);
    let (client, mut messages) = mesh_client::start(options, Outbox::in_memory()?).await?;
    tokio::spawn(tell(client.status()));
    let all = async {
        for _ in 0..args.count {
            let Some(message) = messages.next().await else {
                break;
            };
            let payload = String::from_utf8_lossy(&message.payload);
            writeln!(std::io::stdout(), "{}\t{payload}", message.topic)?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = all => done?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    messages.acknowledge().await;
    eprintln!("{} duplicates dropped", messages.duplicates());
    close(&client).await
}

async fn close(client: &Client) -> anyhow::Result<()> {
    client.close().await;
    let status = client.status().borrow().clone();
    eprintln!("{} acknowledged, {} wait", status.acknowledged, status.waiting);
    anyhow::ensure!(
        status.refused == 0,
        "{} messages were refused by a broker",
        status.refused
    );
    Ok(())
}

/// A line for each change of the connection, and else one every ten seconds.
async fn tell(mut status: watch::Receiver<Status>) {
    let mut told: Option<(String, Instant)> = None;
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        let text = connection(&now);
        let is_old = |(last, at): &(String, Instant)| *last != text || at.elapsed() > Duration::from_secs(10);
        if told.as_ref().is_none_or(is_old) {
            eprintln!(
                "{text}; {} acknowledged, {} waiting",
                now.acknowledged, now.waiting
            );
            told = Some((text, Instant::now()));
        }
    }
}

fn connection(status: &Status) -> String {
    let Status {
        connections, resumed, ..
    } = status;
    match (&status.connected, &status.last_error) {
        (Some(place), _) if status.subscribed => {
            format!("ready at {place}, connection {connections}, resumed {resumed}")
        }
        (Some(place), _) => format!("connected to {place}"),
        (None, Some(error)) => format!("not connected: {error}"),
        (None, None) => "not connected".to_owned(),
    }
}

#[cfg(feature = "tls")]
fn tls(ca_file: Option<PathBuf>) -> anyhow::Result<Option<mesh_client::Tls>> {
    let Some(path) = ca_file else { return Ok(None) };
    let ca = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(Some(mesh_client::Tls {
        ca: Some(ca),
        identity: None,
    }))
}

fn options(network: Network) -> anyhow::Result<Options> {
    let client_id = network
        .client_id
        .unwrap_or_else(|| format!("example-{}", std::process::id()));
    Ok(Options {
        keep_alive: Duration::from_secs(network.keep_alive),
        longest_pause: Duration::from_secs_f64(network.longest_pause.clamp(0.0, 86_400.0)),
        login: network.username.zip(network.password),
        #[cfg(feature = "tls")]
        tls: tls(network.ca_file)?,
        ..Options::new(client_id, network.brokers)
    })
}

fn address(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "1883"));
    let port = port
        .parse()
        .map_err(|_| format!("{text:?} is not HOST or HOST:PORT"))?;
    Ok((host.to_owned(), port))
}
