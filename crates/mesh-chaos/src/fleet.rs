//! Clients that live through faults as well-made clients do: QoS 1, an outbox kept until the PUBACK, sessions that outlive
//! their connection, and growing pauses with full jitter before they come back. Half of the publishers and half of the
//! subscribers speak MQTT 5, the others 3.1.1, in all four pairs; those subscribers subscribe anew each time and see no
//! stamp, so that a message is known again by its number alone.
//!
//! Publishers and their subscribers are anywhere, mostly behind the balancer. Witnesses subscribe to everything on one
//! broker each, past the balancer, so that it shows what that broker has got.

mod publisher;
mod session;
mod subscriber;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::wait_until;
use mesh_runtime::mqtt::Version;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Login;
use crate::book::{Book, Client};
use publisher::Publisher;
use subscriber::{Role, Subscriber};

/// All topics are below this.
pub const PREFIX: &str = "chaos";

/// Every so many publishers one has its messages retained.
pub const RETAINED: usize = 10;

/// What a fleet shall be.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Where publishers connect, and the subscriber of each, in turns.
    pub clients: Vec<SocketAddr>,
    /// Where witnesses connect, one each, and how they are called.
    pub witnesses: Vec<(String, SocketAddr)>,
    /// How many publishers.
    pub publishers: usize,
    /// Whether each publisher has a subscriber of its own beside the witnesses.
    pub subscribers: bool,
    /// Messages a second of each publisher.
    pub rate: f64,
    /// As whom they log in.
    pub login: Login,
}

/// What publishers shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Nothing yet: subscribers come first.
    Wait,
    /// Publish.
    Publish,
    /// Have acknowledged what there is, and no more.
    Finish,
}

/// Running clients; they end when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    book: Book,
    orders: watch::Sender<Order>,
    run: u64,
    _tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts the clients and returns when all are connected and publish.
    ///
    /// # Errors
    ///
    /// If they are not within `deadline`.
    pub async fn start(options: &FleetOptions, deadline: Duration) -> anyhow::Result<Self> {
        let subscribers = if options.subscribers {
            options.publishers
        } else {
            0
        };
        let book = Book::new(
            options.publishers,
            is_retained,
            subscribers + options.witnesses.len(),
        );
        let orders = watch::Sender::new(Order::Wait);
        let mut tasks = JoinSet::new();
        // What an earlier run has left on topics or in sessions is not of this one.
        let run = fastrand::u64(..) >> 16;
        let mut places = 0..;
        for (name, address) in &options.witnesses {
            let reader = book.pages().ledger.add_reader(format!("witness at {name}"), None);
            let subscriber = Subscriber {
                // It sees stamps.
                version: Version::V5,
                run,
                address: *address,
                reader,
                place: places.next().context("places have no end")?,
                role: Role::Witness,
                login: options.login.clone(),
                book: book.clone(),
            };
            tasks.spawn(subscriber.run());
        }
        let clients = || options.clients.iter().cycle().copied();
        for (stream, address) in clients().take(subscribers).enumerate() {
            let name = format!("subscriber {stream}");
            let reader = book.pages().ledger.add_reader(name, Some(stream));
            let subscriber = Subscriber {
                version: versions(stream).1,
                run,
                address,
                reader,
                place: places.next().context("places have no end")?,
                role: Role::Own(stream),
                login: options.login.clone(),
                book: book.clone(),
            };
            tasks.spawn(subscriber.run());
        }
        for (stream, address) in clients().take(options.publishers).enumerate() {
            let publisher = Publisher {
                version: versions(stream).0,
                run,
                address,
                stream,
                period: Duration::from_secs_f64(1.0 / options.rate),
                is_retained: is_retained(stream),
                login: options.login.clone(),
                book: book.clone(),
            };
            tasks.spawn(publisher.run(orders.subscribe()));
        }
        let fleet = Self {
            book,
            orders,
            run,
            _tasks: tasks,
        };
        fleet.wait_served(deadline).await?;
        fleet.orders.send_replace(Order::Publish);
        Ok(fleet)
    }

    /// What is written of it.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The payload of this run's message with `number`.
    pub fn payload(&self, number: u64) -> String {
        payload(self.run, number)
    }

    /// Waits until every client is served.
    ///
    /// # Errors
    ///
    /// If they are not within `deadline`.
    pub async fn wait_served(&self, deadline: Duration) -> anyhow::Result<()> {
        let served = wait_until("the whole fleet is connected", deadline, async || {
            let pages = self.book.pages();
            let (served, all) = (pages.served(), pages.clients());
            if served == all {
                Ok(())
            } else {
                Err(format!("{served} of {all} clients"))
            }
        });
        Ok(served.await?)
    }

    /// Ends publishing, and waits until everything is acknowledged and has come to whom it is owed; whatever is still
    /// missing at the deadline is then a broken promise in the account.
    pub async fn settle(&self, deadline: Duration) {
        self.orders.send_replace(Order::Finish);
        let settled = wait_until("everything has come", deadline, async || {
            let pages = self.book.pages();
            let (waiting, outstanding) = (pages.ledger.unacknowledged(), pages.ledger.outstanding());
            if (waiting, outstanding) == (0, 0) {
                Ok(())
            } else {
                Err(format!("{waiting} wait for a PUBACK, {outstanding} for a reader"))
            }
        });
        // The account tells more than this error could.
        settled.await.ok();
        let now = self.book.now();
        self.book.pages().ledger.finish(now);
    }
}

/// Whether a stream's messages are retained.
fn is_retained(stream: usize) -> bool {
    stream.is_multiple_of(RETAINED)
}

/// What the publisher and the subscriber of a stream speak: each pair of versions in turn.
fn versions(stream: usize) -> (Version, Version) {
    let version = |is_old| if is_old { Version::V311 } else { Version::V5 };
    (version(stream & 1 == 1), version(stream & 2 == 2))
}

/// The topic of a stream.
pub fn topic(stream: usize) -> String {
    format!("{PREFIX}/{stream}")
}

fn payload(run: u64, number: u64) -> String {
    format!("{run:x} {number}")
}

/// Run and number of a [`payload`].
fn parse(payload: &[u8]) -> Option<(u64, u64)> {
    let (run, number) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some((u64::from_str_radix(run, 16).ok()?, number.parse().ok()?))
}

impl Role {
    fn client(self, place: usize) -> Option<Client> {
        // Witnesses are there to see, not to be served: their broker is broken on purpose.
        matches!(self, Self::Own(_)).then_some(Client::Subscriber(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_versions_is_there() {
        let pairs: Vec<_> = (0..4).map(versions).collect();
        for publisher in [Version::V311, Version::V5] {
            for subscriber in [Version::V311, Version::V5] {
                assert!(
                    pairs.contains(&(publisher, subscriber)),
                    "{publisher:?} {subscriber:?}"
                );
            }
        }
    }

    #[test]
    fn payloads_are_read_as_they_are_written() {
        assert_eq!(parse(payload(0xabc, 7).as_bytes()), Some((0xabc, 7)));
        for wrong in ["", "7", "x y", "abc 7 8"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
