//! Brokers that hang and go on: what clients that have gone elsewhere had sent before does no harm, and clients that
//! have stayed lose nothing.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use bytes::Bytes;
use mesh_lab::Lab;
use support::client::{Client, Who};
use support::inbox::Inbox;
use support::retained::{Values, agreed};
use support::{
    HUNG, PATIENCE, all, at, brokers, id, listen, quiet, stand_still, start, time_for, wait_for_log,
};

/// A client of one of both versions that sends what it is told and does not wait for answers, as one does whose
/// broker hangs.
struct Sender {
    stream: TcpStream,
    version: u8,
    next_id: u8,
}

impl Sender {
    /// Connects; `version` is 4 for MQTT 3.1.1 and 5 for MQTT 5.
    fn open(address: SocketAddr, version: u8, client_id: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        let mut sender = Self {
            stream,
            version,
            next_id: 0,
        };
        // A clean session without keepalive.
        let mut body = b"\x00\x04MQTT".to_vec();
        body.extend([version, 2, 0, 0]);
        body.extend_from_slice(sender.no_properties());
        body.extend([0, client_id.len() as u8]);
        body.extend(client_id.as_bytes());
        sender.send(0x10, &body);
        let mut answer = [0; 4];
        sender.stream.read_exact(&mut answer).expect("a CONNACK");
        assert_eq!((answer[0], answer[3]), (0x20, 0), "it is accepted");
        sender
    }

    /// Sends a retained message.
    fn set(&mut self, topic: &str, qos: u8, value: &str) {
        let mut body = vec![0, topic.len() as u8];
        body.extend(topic.as_bytes());
        if qos > 0 {
            self.next_id += 1;
            body.extend([0, self.next_id]);
        }
        body.extend_from_slice(self.no_properties());
        body.extend(value.as_bytes());
        self.send(0x31 | qos << 1, &body);
    }

    /// Releases the message of QoS 2 that was sent last but for so many others since.
    fn release(&mut self, others: u8) {
        self.send(0x62, &[0, self.next_id - others]);
    }

    /// Ends its side of the connection, so that what it has sent can still be read.
    fn close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("it is open");
    }

    fn no_properties(&self) -> &'static [u8] {
        if self.version == 5 { &[0] } else { &[] }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        assert!(body.len() < 128, "the length is one byte");
        let packet = [&[kind, body.len() as u8], body].concat();
        self.stream.write_all(&packet).expect("the kernel takes it");
    }
}

fn topic(qos: u8) -> String {
    format!("moved/{qos}")
}

/// Waits until a message that the first broker is given now has come everywhere: links keep the order, so whatever it
/// had to say before has come too.
async fn caught_up(lab: &Lab, inboxes: &[Inbox], mark: &str) {
    let mut client = Client::open(at(lab, 1), &Who::anonymous()).await;
    client.publish(mark, 1, false, "now").await;
    for inbox in inboxes {
        inbox.first(mark).await;
    }
}

/// The primary hangs with messages of a client that sets the same topics anew at the second broker. When it goes on,
/// the first ones must not replace those.
async fn moves(version: u8, stays_open: bool) {
    let lab = start(brokers(5)).await;
    let inboxes = listen(&lab, &Who::anonymous(), "moved/#").await;
    let mut left = Sender::open(at(&lab, 1), version, "mover");
    for qos in 0..=2 {
        left.set(&topic(qos), qos, "first");
    }
    left.release(0);
    for inbox in &inboxes {
        for qos in 0..=2 {
            inbox.first(&topic(qos)).await;
        }
    }
    // Its release will lie in the socket.
    left.set(&topic(3), 2, "old");
    caught_up(&lab, &inboxes, "moved/before").await;
    lab.hang("broker1").await.unwrap();
    left.release(0);
    for qos in 0..=2 {
        left.set(&topic(qos), qos, "old");
        left.set(&topic(qos), qos, "older than new");
    }
    time_for("a standstill", HUNG).await;
    let mut moved = Client::open(at(&lab, 2), &Who::named("mover")).await;
    for qos in 0..=2 {
        moved.publish(&topic(qos), qos, true, "new").await;
    }
    moved.publish(&topic(3), 1, true, "new").await;
    if !stays_open {
        left.close();
    }
    lab.resume("broker1").await.unwrap();
    wait_for_log(&lab, 1, &["Client mover "], 1).await;
    drop(left);
    caught_up(&lab, &inboxes, "moved/after").await;
    let brokers: Vec<usize> = all(&lab).collect();
    let expected: Values = (0..=3).map(|qos| (topic(qos), Bytes::from("new"))).collect();
    let found = agreed(&lab, &brokers).await;
    assert_eq!(found, expected, "version {version}, stays open: {stays_open}");
    quiet(&inboxes).await;
    for inbox in &inboxes {
        for qos in 0..=3 {
            let shown: Vec<String> = inbox
                .on(&topic(qos))
                .iter()
                .map(|message| message.text())
                .collect();
            let last = shown.last().map(String::as_str);
            assert_eq!(
                last,
                Some("new"),
                "{} at the {}: {shown:?}",
                topic(qos),
                inbox.name()
            );
        }
    }
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_client_has_set_elsewhere_is_not_replaced_by_what_it_had_sent_to_a_broker_that_hung() {
    moves(4, false).await;
    moves(5, false).await;
}

#[tokio::test]
async fn nor_if_its_connection_to_that_broker_is_still_there() {
    moves(4, true).await;
    moves(5, true).await;
}

/// A message of QoS 2 is released after a standstill, when something later is shown and stored already. The broker
/// stores it all the same, and takes the later one from a peer for a second time; nobody is shown anything of that.
#[tokio::test]
async fn what_is_released_after_something_later_is_not_shown_nor_is_the_later_one_again() {
    const TOPIC: &str = "released/late";
    let lab = start(brokers(3)).await;
    let inboxes = listen(&lab, &Who::anonymous(), "released/#").await;
    let mut client = Sender::open(at(&lab, 1), 4, "releases late");
    client.set(TOPIC, 2, "old");
    // What it has sent before is read before this.
    client.set("released/known", 1, "now");
    for inbox in &inboxes {
        inbox.first("released/known").await;
    }
    // As long as the third broker is silent, it may know who has moved, and the first one waits for its answer.
    lab.hang("broker3").await.unwrap();
    stand_still(&lab, 1).await;
    let mut other = Client::open(at(&lab, 2), &Who::anonymous()).await;
    other.publish(TOPIC, 1, true, "new").await;
    lab.resume("broker1").await.unwrap();
    inboxes[0].first(TOPIC).await;
    client.release(1);
    wait_for_log(&lab, 1, &["took over 1 retained messages ", " from broker2 "], 1).await;
    lab.resume("broker3").await.unwrap();
    let brokers: Vec<usize> = all(&lab).collect();
    let found = agreed(&lab, &brokers).await;
    assert_eq!(found[TOPIC], "new");
    caught_up(&lab, &inboxes, "released/after").await;
    quiet(&inboxes).await;
    for inbox in &inboxes {
        let shown: Vec<String> = inbox.on(TOPIC).iter().map(|message| message.text()).collect();
        assert_eq!(shown, ["new"], "at the {}", inbox.name());
    }
    lab.stop().await.unwrap();
}

/// All machines stood still: nobody has moved, and what clients had sent is taken, in order.
#[tokio::test]
async fn if_all_brokers_hang_and_go_on_nobody_loses_anything() {
    const ROUNDS: u8 = 5;
    let lab = start(brokers(5)).await;
    let inboxes = listen(&lab, &Who::anonymous(), "stays/#").await;
    let mut clients = Vec::new();
    for n in all(&lab) {
        let mut client = Client::open(at(&lab, n), &Who::named(&format!("stays-{n}"))).await;
        client.publish(&format!("stays/{n}"), 1, true, "0").await;
        clients.push(client);
    }
    for n in all(&lab) {
        lab.hang(id(n).as_str()).await.unwrap();
    }
    let mut sent = Vec::new();
    for (n, client) in (1..).zip(&mut clients) {
        for round in 1..ROUNDS {
            let id = client
                .send_publish(&format!("stays/{n}"), 1, true, round.to_string())
                .await;
            sent.push((n, id));
        }
    }
    time_for("a standstill", HUNG).await;
    for n in all(&lab) {
        lab.resume(id(n).as_str()).await.unwrap();
    }
    for (n, id) in sent {
        let answer = clients[n - 1].acknowledged(id).await;
        assert!(
            ["Success", "NoMatchingSubscribers"].contains(&answer.as_str()),
            "{answer}"
        );
    }
    for (n, client) in (1..).zip(&mut clients) {
        client
            .publish(&format!("stays/{n}"), 1, true, ROUNDS.to_string())
            .await;
        assert!(client.is_alive().await, "client {n} is served on");
    }
    let expected: Vec<String> = (0..=ROUNDS).map(|round| round.to_string()).collect();
    for inbox in &inboxes {
        let everything = usize::from(ROUNDS + 1) * clients.len();
        inbox
            .wait_for("all of it", |messages| messages.len() >= everything)
            .await;
    }
    quiet(&inboxes).await;
    for inbox in &inboxes {
        for n in all(&lab) {
            let shown: Vec<String> = inbox
                .on(&format!("stays/{n}"))
                .iter()
                .map(|message| message.text())
                .collect();
            assert_eq!(shown, expected, "stays/{n} at the {}", inbox.name());
        }
    }
    let brokers: Vec<usize> = all(&lab).collect();
    let found = agreed(&lab, &brokers).await;
    let last = Bytes::from(ROUNDS.to_string());
    assert_eq!(found.len(), clients.len());
    assert!(found.values().all(|value| *value == last), "{found:?}");
    lab.stop().await.unwrap();
}
