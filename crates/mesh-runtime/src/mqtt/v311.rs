//! MQTT 3.1.1 on the wire for those who speak MQTT 5: what the older version has not is left out, and what it has is
//! given the newer one's words.

use bytes::BytesMut;
use rumqttc::mqttbytes::{self as old, QoS as OldQoS, v4};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{self as new, Packet};

use super::MqttError;

/// Of a packet, what MQTT allows.
const LARGEST: usize = 268_435_455;

/// Adds `packet` to `output`.
///
/// # Errors
///
/// [`MqttError::Protocol`] if nobody here says that in 3.1.1, or it cannot be encoded.
pub(super) fn write(packet: &Packet, output: &mut BytesMut) -> Result<(), MqttError> {
    let packet = match packet {
        Packet::Connect(connect, None, login) => {
            let mut written = v4::Connect::new(&connect.client_id);
            written.keep_alive = connect.keep_alive;
            written.clean_session = connect.clean_start;
            if let Some(login) = login {
                written.set_login(&login.username, &login.password);
            }
            v4::Packet::Connect(written)
        }
        Packet::Publish(publish) => {
            let topic = String::from_utf8_lossy(&publish.topic);
            let mut written = v4::Publish::from_bytes(topic, old_qos(publish.qos), publish.payload.clone());
            (written.pkid, written.retain, written.dup) = (publish.pkid, publish.retain, publish.dup);
            v4::Packet::Publish(written)
        }
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.iter();
            let mut written = v4::Subscribe::new_many(
                filters.map(|filter| v4::SubscribeFilter::new(filter.path.clone(), old_qos(filter.qos))),
            );
            written.pkid = subscribe.pkid;
            v4::Packet::Subscribe(written)
        }
        Packet::PubAck(ack) => v4::Packet::PubAck(v4::PubAck::new(ack.pkid)),
        Packet::PubRec(rec) => v4::Packet::PubRec(v4::PubRec::new(rec.pkid)),
        Packet::PubRel(rel) => v4::Packet::PubRel(v4::PubRel::new(rel.pkid)),
        Packet::PubComp(comp) => v4::Packet::PubComp(v4::PubComp::new(comp.pkid)),
        Packet::PingReq(_) => v4::Packet::PingReq,
        Packet::Disconnect(_) => v4::Packet::Disconnect,
        other => {
            return Err(MqttError::Protocol(format!(
                "MQTT 3.1.1 is not spoken for {other:?}"
            )));
        }
    };
    packet.write(output, LARGEST).map_err(error)?;
    Ok(())
}

/// The next packet of `input`; `None` until all of it is there.
///
/// # Errors
///
/// [`MqttError::Protocol`] for what is no packet of a broker.
pub(super) fn read(input: &mut BytesMut) -> Result<Option<Packet>, MqttError> {
    let packet = match v4::Packet::read(input, LARGEST) {
        Ok(packet) => packet,
        Err(old::Error::InsufficientBytes(missing)) => {
            input.reserve(missing);
            return Ok(None);
        }
        Err(cause) => return Err(error(cause)),
    };
    Ok(Some(match packet {
        v4::Packet::ConnAck(ack) => Packet::ConnAck(new::ConnAck {
            session_present: ack.session_present,
            code: match ack.code {
                v4::ConnectReturnCode::Success => new::ConnectReturnCode::Success,
                v4::ConnectReturnCode::RefusedProtocolVersion => {
                    new::ConnectReturnCode::UnsupportedProtocolVersion
                }
                v4::ConnectReturnCode::BadClientId => new::ConnectReturnCode::ClientIdentifierNotValid,
                v4::ConnectReturnCode::ServiceUnavailable => new::ConnectReturnCode::ServerUnavailable,
                v4::ConnectReturnCode::BadUserNamePassword => new::ConnectReturnCode::BadUserNamePassword,
                v4::ConnectReturnCode::NotAuthorized => new::ConnectReturnCode::NotAuthorized,
            },
            properties: None,
        }),
        v4::Packet::Publish(publish) => {
            let mut read = new::Publish::new(publish.topic, new_qos(publish.qos), publish.payload, None);
            (read.pkid, read.retain, read.dup) = (publish.pkid, publish.retain, publish.dup);
            Packet::Publish(read)
        }
        v4::Packet::SubAck(ack) => Packet::SubAck(new::SubAck {
            pkid: ack.pkid,
            return_codes: ack.return_codes.into_iter().map(granted).collect(),
            properties: None,
        }),
        v4::Packet::PubAck(ack) => Packet::PubAck(new::PubAck::new(ack.pkid, None)),
        v4::Packet::PubRec(rec) => Packet::PubRec(new::PubRec::new(rec.pkid, None)),
        v4::Packet::PubRel(rel) => Packet::PubRel(new::PubRel::new(rel.pkid, None)),
        v4::Packet::PubComp(comp) => Packet::PubComp(new::PubComp::new(comp.pkid, None)),
        v4::Packet::PingResp => Packet::PingResp(new::PingResp),
        other => return Err(MqttError::Protocol(format!("a broker does not send {other:?}"))),
    }))
}

fn granted(code: v4::SubscribeReasonCode) -> new::SubscribeReasonCode {
    match code {
        v4::SubscribeReasonCode::Success(qos) => new::SubscribeReasonCode::Success(new_qos(qos)),
        v4::SubscribeReasonCode::Failure => new::SubscribeReasonCode::Failure,
    }
}

fn old_qos(qos: QoS) -> OldQoS {
    match qos {
        QoS::AtMostOnce => OldQoS::AtMostOnce,
        QoS::AtLeastOnce => OldQoS::AtLeastOnce,
        QoS::ExactlyOnce => OldQoS::ExactlyOnce,
    }
}

fn new_qos(qos: OldQoS) -> QoS {
    match qos {
        OldQoS::AtMostOnce => QoS::AtMostOnce,
        OldQoS::AtLeastOnce => QoS::AtLeastOnce,
        OldQoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn error(cause: old::Error) -> MqttError {
    MqttError::Protocol(format!("{cause:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_the_same_on_the_way_out_and_in() {
        let mut publish = new::Publish::new("a/b", QoS::AtLeastOnce, "x", None);
        (publish.pkid, publish.retain, publish.dup) = (7, true, true);
        let packet = Packet::Publish(publish);
        let mut wire = BytesMut::new();
        write(&packet, &mut wire).unwrap();
        // The first byte of 3.1.1 and 5 is the same; the properties of 5 are not there.
        assert_eq!(&wire[..], b"\x3b\x08\x00\x03a/b\x00\x07x");
        let whole = wire.clone();
        let mut part = BytesMut::from(&whole[..4]);
        assert_eq!(read(&mut part).unwrap(), None);
        assert_eq!(read(&mut wire).unwrap(), Some(packet));
    }

    #[test]
    fn what_nobody_says_in_3_1_1_is_refused() {
        let unsubscribe = new::Unsubscribe::new("a", None);
        assert!(write(&Packet::Unsubscribe(unsubscribe), &mut BytesMut::new()).is_err());
    }
}
