//! One session of a fleet.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mesh_runtime::mqtt::mqttbytes::v5::PingReq;
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet, open_within};
use tokio::sync::watch;
use tokio::time::sleep;

use super::lock;

/// Seconds: far longer than any bench takes, so that only a cut ends a session.
const KEEP_ALIVE_S: u16 = 600;

/// What a session has lived through.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) connected: bool,
    /// When the present connection was accepted.
    pub(super) since: Option<Instant>,
    /// The client id of the present connection.
    pub(super) client_id: String,
    /// When each open connection ended that was not to end.
    pub(super) losses: Vec<Instant>,
    /// Connections that could not be made.
    pub(super) failed: u64,
    /// The last roll call that the broker answered.
    pub(super) answered: u64,
}

/// What all sessions were told so far: how often.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Order {
    pub(super) roll_call: u64,
    pub(super) reconnect: u64,
}

pub(super) struct Session {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) retry: Duration,
    pub(super) patience: Duration,
    pub(super) account: Arc<Mutex<Account>>,
}

impl Session {
    /// Lives until its fleet is gone.
    pub(super) async fn run(self, mut orders: watch::Receiver<Order>) {
        for connection in 1u64.. {
            let identity = Identity {
                client_id: format!("{}-{connection}", self.name),
                login: None,
                keep_alive_s: KEEP_ALIVE_S,
            };
            match open_within(self.address, &identity, self.patience).await {
                Ok(open) => {
                    {
                        let mut account = lock(&self.account);
                        account.connected = true;
                        account.since = Some(Instant::now());
                        account.client_id = identity.client_id;
                    }
                    match self.live(open, &mut orders).await {
                        End::Ordered => {}
                        End::Lost => {
                            let mut account = lock(&self.account);
                            account.connected = false;
                            account.losses.push(Instant::now());
                        }
                        End::Fleet => return,
                    }
                }
                Err(_) => {
                    lock(&self.account).failed += 1;
                    sleep(self.retry).await;
                }
            }
        }
    }

    async fn live(&self, mut connection: Connection, orders: &mut watch::Receiver<Order>) -> End {
        // An order that was given while there was no connection is done with, but for the roll call.
        let known = *orders.borrow_and_update();
        let lived = async {
            self.ask(&mut connection).await?;
            let mut asked = known;
            loop {
                tokio::select! {
                    changed = orders.changed() => {
                        if changed.is_err() {
                            return Ok(End::Fleet);
                        }
                        let order = *orders.borrow_and_update();
                        if order.reconnect != known.reconnect {
                            return Ok(End::Ordered);
                        }
                        asked = order;
                        self.ask(&mut connection).await?;
                    }
                    packet = connection.receive() => if matches!(packet?, Packet::PingResp(_)) {
                        lock(&self.account).answered = asked.roll_call;
                    }
                }
            }
        };
        let ended: Result<End, MqttError> = lived.await;
        ended.unwrap_or(End::Lost)
    }

    async fn ask(&self, connection: &mut Connection) -> Result<(), MqttError> {
        connection.send(&Packet::PingReq(PingReq)).await
    }
}

/// Why a connection ended.
enum End {
    /// The fleet said so.
    Ordered,
    /// Somebody cut it.
    Lost,
    /// The fleet is gone.
    Fleet,
}
