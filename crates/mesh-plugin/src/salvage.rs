//! What a dead broker had sent over a link and nobody has read: bytes in, messages out.
//!
//! Acknowledging a message to a broker that has just died fails, and Mosquitto then closes the link's socket with
//! everything that is still in it. The dead broker's clients got their PUBACK for that. So when a link breaks
//! right after one of its messages was handled, [`crate::hooks`] takes the rest out of the socket, and this module
//! makes messages of it again.
//!
//! Every complete packet counts, in order, up to the first byte that no MQTT 5 broker would send to its
//! subscriber; what follows that cannot be trusted. The last packet is often incomplete, since its sender died.

use crate::message::{Input, Publish, decode, topic};

/// So much is taken out of a socket at most. Kernels keep a tenth of it.
pub const MOST: usize = 64 << 20;

/// The messages in `bytes`, which begin at the border of a packet.
pub fn parse(bytes: &[u8]) -> Vec<Publish<'_>> {
    let mut input = Input(bytes);
    let mut messages = Vec::new();
    while let Some(packet) = packet(&mut input) {
        messages.extend(packet);
    }
    messages
}

/// The next packet, if it is whole and well-formed; inside, the message that it brings.
fn packet<'a>(input: &mut Input<'a>) -> Option<Option<Publish<'a>>> {
    let first = input.byte()?;
    let length = input.varint()?;
    let body = Input(input.take(length)?);
    match first {
        0x30..=0x3f => publish(first & 0x0f, body).map(Some),
        // PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK and PINGRESP bring none.
        0x40 | 0x50 | 0x62 | 0x70 | 0x90 | 0xb0 | 0xd0 => Some(None),
        _ => None,
    }
}

fn publish<'a>(flags: u8, mut body: Input<'a>) -> Option<Publish<'a>> {
    let (dup, qos, retain) = (flags & 8 != 0, flags >> 1 & 3, flags & 1 != 0);
    if qos == 3 || (qos == 0 && dup) {
        return None;
    }
    let topic = topic(body.text()?)?;
    if qos > 0 && body.u16()? == 0 {
        return None;
    }
    let length = body.varint()?;
    let properties = decode(body.take(length)?)?;
    Some(Publish {
        topic,
        payload: body.0,
        qos,
        retain,
        properties,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Property;
    use bytes::BytesMut;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PingResp, Publish as Sent, PublishProperties};

    /// As rumqttc writes it.
    fn sent(number: u16, qos: QoS, properties: Option<PublishProperties>) -> Packet {
        let payload = vec![b'x'; usize::from(number)];
        let mut sent = Sent::new(format!("a/{number}"), qos, payload, properties);
        sent.pkid = if qos == QoS::AtMostOnce { 0 } else { number };
        sent.retain = number % 2 == 1;
        Packet::Publish(sent)
    }

    fn all_properties() -> PublishProperties {
        PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(70_000),
            topic_alias: Some(3),
            response_topic: Some("answer/here".to_owned()),
            correlation_data: Some(vec![0, 255, 1].into()),
            user_properties: vec![("a".into(), "b".into()), ("a".into(), "ö".into())],
            subscription_identifiers: vec![5],
            content_type: Some("text/plain".to_owned()),
        }
    }

    fn stream(packets: &[Packet]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        for packet in packets {
            packet.write(&mut bytes, None).unwrap();
        }
        bytes.to_vec()
    }

    fn some_stream() -> Vec<u8> {
        stream(&[
            sent(1, QoS::AtLeastOnce, None),
            Packet::PingResp(PingResp),
            sent(200, QoS::AtMostOnce, Some(PublishProperties::default())),
            sent(20_000, QoS::ExactlyOnce, Some(all_properties())),
            sent(9, QoS::AtLeastOnce, None),
        ])
    }

    #[test]
    fn what_a_client_library_writes_is_read() {
        let bytes = some_stream();
        let messages = parse(&bytes);
        let told = messages
            .iter()
            .map(|message| (message.topic, message.payload.len(), message.qos, message.retain));
        let told: Vec<_> = told.collect();
        assert_eq!(
            told,
            [
                ("a/1", 1, 1, true),
                ("a/200", 200, 0, false),
                ("a/20000", 20_000, 2, false),
                ("a/9", 9, 1, true)
            ]
        );
        let mut properties = messages[2].properties.clone();
        properties.sort_by_key(|property| format!("{property:?}"));
        assert_eq!(
            properties,
            [
                Property::ContentType("text/plain"),
                Property::CorrelationData(&[0, 255, 1]),
                Property::MessageExpiry(70_000),
                Property::PayloadFormat(1),
                Property::ResponseTopic("answer/here"),
                Property::User("a", "b"),
                Property::User("a", "ö"),
            ]
        );
        assert!([0, 1, 3].iter().all(|at| messages[*at].properties.is_empty()));
    }

    #[test]
    fn an_incomplete_end_is_left_out() {
        let bytes = some_stream();
        let whole = parse(&bytes);
        let mut before = 0;
        for end in 0..=bytes.len() {
            let messages = parse(&bytes[..end]);
            assert!(messages.len() >= before && whole.starts_with(&messages));
            before = messages.len();
        }
        assert_eq!(before, 4);
        assert_eq!(parse(&bytes[..bytes.len() - 1]).len(), 3);
    }

    #[test]
    fn what_is_malformed_ends_it() {
        let good = stream(&[sent(7, QoS::AtLeastOnce, None)]);
        let bad: &[&[u8]] = &[
            b"\x00\x00",
            // CONNECT, CONNACK, DISCONNECT, AUTH and a PINGRESP with flags.
            b"\x10\x00",
            b"\x20\x00",
            b"\xe0\x00",
            b"\xf0\x00",
            b"\xd1\x00",
            // A length of five bytes.
            b"\x30\x80\x80\x80\x80\x01",
            // QoS 3, QoS 0 a second time, packet id 0.
            b"\x36\x06\x00\x01a\x00\x01\x00",
            b"\x38\x04\x00\x01a\x00",
            b"\x32\x06\x00\x01a\x00\x00\x00",
            // No topic, wildcards, a zero, half a letter, a topic that is longer than the packet.
            b"\x30\x03\x00\x00\x00",
            b"\x30\x04\x00\x01#\x00",
            b"\x30\x04\x00\x01+\x00",
            b"\x30\x04\x00\x01\x00\x00",
            b"\x30\x04\x00\x01\xc3\x00",
            b"\x30\x04\x00\x09a\x00",
            // Properties: longer than the packet, unknown, of another packet, twice, cut off, impossible.
            b"\x30\x04\x00\x01a\x01",
            b"\x30\x06\x00\x01a\x02\xff\x00",
            b"\x30\x06\x00\x01a\x02\x11\x00",
            b"\x30\x08\x00\x01a\x04\x01\x00\x01\x00",
            b"\x30\x06\x00\x01a\x02\x02\x00",
            b"\x30\x06\x00\x01a\x02\x01\x02",
            b"\x30\x07\x00\x01a\x03\x23\x00\x00",
            b"\x30\x08\x00\x01a\x04\x08\x00\x01#",
        ];
        for bad in bad {
            let bytes = [&good, *bad, &good].concat();
            assert_eq!(parse(&bytes).len(), 1, "{bad:?}");
        }
        assert_eq!(parse(&[&good[..], b"\xd0\x00", &good].concat()).len(), 2);
    }

    #[test]
    fn no_input_makes_it_panic() {
        let good = some_stream();
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut survived = 0;
        for _ in 0..20_000 {
            let start = random(300);
            let end = start + random(200);
            let mut bytes = good[start.min(250)..end.max(250)].to_vec();
            for _ in 0..random(4) {
                let at = random(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random(256) as u8;
                }
            }
            survived += parse(&bytes).len();
            let noise: Vec<u8> = (0..random(40)).map(|_| random(256) as u8).collect();
            survived += parse(&noise).len();
        }
        assert!(survived > 0, "some of it is well-formed");
    }
}
