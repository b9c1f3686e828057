//! The few MQTT 5 packets that the reader sends.

use std::io;

use super::Login;
use crate::message::encode_length;

pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(super) const PINGRESP: u8 = 0xd0;
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// A clean session without keepalive: on this machine a connection ends with the process at its other end.
pub(super) fn connect(login: &Login) -> Vec<u8> {
    let mut body = Vec::new();
    text("MQTT", &mut body);
    // Version 5; clean start, with user name and password; no keepalive; no properties.
    body.extend([5, 0b1100_0010, 0, 0, 0]);
    for field in [&login.client_id, &login.user, &login.password] {
        text(field, &mut body);
    }
    packet(0x10, &body)
}

/// What the broker says to that.
pub(super) fn check_connack(packet: &[u8]) -> io::Result<()> {
    match packet {
        [0x20, _, _, 0, ..] => Ok(()),
        [0x20, _, _, reason, ..] => Err(io::Error::other(format!(
            "the broker refuses the reader, reason {reason:#x}"
        ))),
        _ => Err(io::Error::other("the listener does not speak MQTT 5")),
    }
}

/// At QoS 0: a value's own QoS stands in its stamp, and nothing has to be acknowledged.
pub(super) fn subscribe(id: u16, topics: &[Box<str>]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.push(0);
    for topic in topics {
        text(topic, &mut body);
        body.push(0);
    }
    packet(0x82, &body)
}

pub(super) fn unsubscribe(id: u16, topics: &[Box<str>]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.push(0);
    for topic in topics {
        text(topic, &mut body);
    }
    packet(0xa2, &body)
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    encode_length(body.len(), &mut packet);
    packet.extend(body);
    packet
}

/// Nothing here is longer than MQTT allows: topics came from the broker, the rest from its configuration.
fn text(text: &str, to: &mut Vec<u8>) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text.bytes());
}
