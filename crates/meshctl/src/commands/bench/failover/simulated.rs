//! Fifty brokers that are none: they answer mesh-health as a full mesh of real ones would, and cost little.
//!
//! Each takes connections on a port of its own. A message published at one reaches the subscribers at all, as
//! over links; each second every session that asked for counters gets those that change each second on a real
//! broker: one for each link into it, and three for itself. So mesh-health has the sessions, the probes, the
//! 2,500 canaries and the 2,600 counters a second that fifty real brokers would give it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mesh_model::{BrokerId, names};
use mesh_runtime::mqtt::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, Packet, PingResp, Publish, SubAck, SubscribeReasonCode,
};
use mesh_runtime::mqtt::mqttbytes::{Error as CodecError, QoS};
use mesh_runtime::mqtt::publish;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::interval;

/// Messages that a slow subscriber may be behind.
const BACKLOG: usize = 16_384;

const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// Running simulated brokers; they end when this is dropped.
pub struct Simulated {
    /// Their names and addresses.
    pub brokers: Vec<(BrokerId, SocketAddr)>,
    _tasks: JoinSet<()>,
}

impl Simulated {
    /// Starts `count` of them on free ports.
    pub async fn start(count: usize) -> anyhow::Result<Self> {
        let (messages, _) = broadcast::channel(BACKLOG);
        let mut tasks = JoinSet::new();
        let mut brokers = Vec::new();
        let mut listeners = Vec::new();
        for number in 1..=count {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            brokers.push((format!("broker{number}").parse()?, listener.local_addr()?));
            listeners.push(listener);
        }
        let ids: Arc<[BrokerId]> = brokers.iter().map(|(id, _): &(BrokerId, _)| id.clone()).collect();
        for (listener, (id, _)) in listeners.into_iter().zip(&brokers) {
            let broker = Broker {
                id: id.clone(),
                all: Arc::clone(&ids),
                messages: messages.clone(),
            };
            tasks.spawn(broker.serve(listener));
        }
        Ok(Self {
            brokers,
            _tasks: tasks,
        })
    }
}

#[derive(Clone)]
struct Broker {
    id: BrokerId,
    all: Arc<[BrokerId]>,
    messages: broadcast::Sender<Arc<Publish>>,
}

impl Broker {
    async fn serve(self, listener: TcpListener) {
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    let broker = self.clone();
                    // Whoever ends a session knows why.
                    sessions.spawn(async move { broker.session(stream).await.ok() });
                },
                Some(_) = sessions.join_next() => {}
            }
        }
    }

    async fn session(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut messages = self.messages.subscribe();
        let mut filters: Vec<String> = Vec::new();
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut tick = interval(COUNTERS_EVERY);
        let mut seconds = 0;
        loop {
            stream.write_all_buf(&mut output).await?;
            tokio::select! {
                read = stream.read_buf(&mut input) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    while let Some(packet) = take(&mut input)? {
                        self.answer(packet, &mut filters, &mut output)?;
                    }
                }
                message = messages.recv() => if let Ok(message) = message
                    && let Ok(topic) = std::str::from_utf8(&message.topic)
                    && matches(&filters, topic)
                {
                    put(&Packet::Publish((*message).clone()), &mut output)?;
                },
                _ = tick.tick() => {
                    seconds += 1;
                    self.count(seconds, &filters, &mut output)?;
                }
            }
        }
    }

    fn answer(&self, packet: Packet, filters: &mut Vec<String>, output: &mut BytesMut) -> io::Result<()> {
        match packet {
            Packet::Connect(..) => put(
                &Packet::ConnAck(ConnAck {
                    session_present: false,
                    code: ConnectReturnCode::Success,
                    properties: None,
                }),
                output,
            ),
            Packet::Subscribe(subscribe) => {
                let codes = subscribe.filters.iter();
                let return_codes = codes
                    .map(|_| SubscribeReasonCode::Success(QoS::AtMostOnce))
                    .collect();
                filters.extend(subscribe.filters.into_iter().map(|filter| filter.path));
                let ack = SubAck {
                    pkid: subscribe.pkid,
                    return_codes,
                    properties: None,
                };
                put(&Packet::SubAck(ack), output)
            }
            Packet::PingReq(_) => put(&Packet::PingResp(PingResp), output),
            Packet::Publish(message) => {
                // Nobody listens only before the first session.
                self.messages.send(Arc::new(message)).ok();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The counters that change each second.
    fn count(&self, seconds: u64, filters: &[String], output: &mut BytesMut) -> io::Result<()> {
        let links = self.all.iter().filter(|peer| **peer != self.id);
        let links = links.map(|peer| names::link_counter_topic(peer, names::link_counter::RECEIVED));
        let own = [
            "$SYS/broker/publish/messages/received",
            "$SYS/broker/publish/messages/sent",
            names::SESSIONS_TOPIC,
        ];
        for topic in links.chain(own.map(str::to_owned)) {
            if matches(filters, &topic) {
                put(&publish(&topic, QoS::AtMostOnce, 0, seconds.to_string()), output)?;
            }
        }
        Ok(())
    }
}

fn matches(filters: &[String], topic: &str) -> bool {
    filters.iter().any(|filter| match filter.strip_suffix('#') {
        Some(prefix) => topic.starts_with(prefix),
        None => topic == filter,
    })
}

fn take(input: &mut BytesMut) -> io::Result<Option<Packet>> {
    match Packet::read(input, None) {
        Ok(packet) => Ok(Some(packet)),
        Err(CodecError::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(io::Error::other(format!("{error:?}"))),
    }
}

fn put(packet: &Packet, output: &mut BytesMut) -> io::Result<()> {
    let written = packet.write(output, None);
    written
        .map(drop)
        .map_err(|error| io::Error::other(format!("{error:?}")))
}
