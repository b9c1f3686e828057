//! Mosquitto's lines, of 2.0 and 2.1: a time, a colon, and a sentence.
//!
//! The sentences carry no level, so it is inferred from how they begin. What clients chose (client id, user name)
//! stands in the middle; both ends are Mosquitto's.

use std::borrow::Cow;
use std::sync::Arc;

use mesh_model::{Attributes, EventName, LogRecord, Severity};

use super::{Parsed, Parser};
use crate::core::fact::{Connected, Fact};

/// What a sentence says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `New client connected from …`
    Connected(Connected),
    /// `Client … disconnected.` and its many forms.
    Disconnected {
        /// The client.
        client_id: String,
        /// Why.
        reason: String,
        /// The client's address, which 2.1 tells.
        address: Option<String>,
    },
    /// `mosquitto version … starting`
    Starts,
    /// `mosquitto version … terminating`
    Stops,
    /// Anything else.
    Other,
}

/// The record of a line that begins with a time.
pub(super) fn parse(parser: &mut Parser, line: &str) -> Option<Parsed> {
    let (time_ns, body) = match parser.clock.read(line) {
        Some(time_ns) => (time_ns, line[19..].strip_prefix(": ")?),
        None => {
            let (seconds, body) = line.split_once(": ")?;
            let is_number = seconds.len() >= 9 && seconds.bytes().all(|byte| byte.is_ascii_digit());
            let seconds: i64 = is_number.then(|| seconds.parse().ok())??;
            (seconds.checked_mul(1_000_000_000)?, body)
        }
    };
    Some(parse_body(parser, body, time_ns))
}

/// The record of a sentence.
pub(super) fn parse_body(parser: &Parser, body: &str, time_ns: i64) -> Parsed {
    let mut attributes = Attributes::default();
    let (event, client_id, fact) = match Message::read(body) {
        Message::Connected(connected) => {
            attributes.set("remote_addr", connected.address.as_str());
            attributes.set("protocol", connected.protocol);
            attributes.set("keep_alive", connected.keep_alive);
            attributes.set("clean_start", connected.clean_start);
            if let Some(user) = &connected.username {
                attributes.set("username", user.as_str());
            }
            let client = connected.client_id.clone();
            (
                Some(EventName::ClientConnected),
                Some(client),
                Some(Fact::Connected(connected)),
            )
        }
        Message::Disconnected {
            client_id,
            reason,
            address,
        } => {
            attributes.set("reason", reason.as_str());
            if let Some(address) = address {
                attributes.set("remote_addr", address);
            }
            let fact = Fact::Disconnected {
                client_id: client_id.clone(),
                reason,
            };
            (Some(EventName::ClientDisconnected), Some(client_id), Some(fact))
        }
        Message::Starts => (None, None, Some(Fact::BrokerStarts)),
        Message::Stops => (None, None, Some(Fact::BrokerStops)),
        Message::Other => (None, None, None),
    };
    Parsed {
        record: LogRecord {
            time_ns,
            severity: severity(body),
            body: body.to_owned(),
            attributes,
            event: event.map(|event| Cow::Borrowed(event.as_str())),
            node: parser.place.node.clone(),
            broker: parser.place.broker.clone(),
            service: Arc::clone(&parser.services.mosquitto),
            client_id,
        },
        fact: fact.map(Box::new),
        understood: true,
    }
}

/// How each sentence that is not merely information begins.
const BEGINNINGS: [(&str, Severity); 16] = [
    ("Error", Severity::ERROR),
    ("OpenSSL Error", Severity::ERROR),
    ("Unable to", Severity::ERROR),
    ("Out of memory", Severity::ERROR),
    ("Warning", Severity::WARN),
    ("Outgoing messages are being dropped", Severity::WARN),
    ("Socket error", Severity::WARN),
    ("Bad socket", Severity::WARN),
    ("Protocol error", Severity::WARN),
    ("Invalid", Severity::WARN),
    ("ACL denying", Severity::WARN),
    ("Client connection from", Severity::WARN),
    ("New client connected", Severity::NOTICE),
    ("New connection", Severity::NOTICE),
    ("Client ", Severity::NOTICE),
    ("mesh: error", Severity::ERROR),
];

fn severity(body: &str) -> Severity {
    let known = BEGINNINGS.iter().find(|(begin, _)| body.starts_with(begin));
    known.map_or(Severity::INFO, |(_, severity)| *severity)
}

/// How a sentence on the end of a session ends, and what that means. The longer ones come first.
const ENDINGS: [(&str, &str); 12] = [
    (
        " already connected, closing old connection.",
        "taken over by a new connection",
    ),
    (" disconnected due to malformed packet.", "malformed packet"),
    (" disconnected due to protocol error.", "protocol error"),
    (" disconnected due to oversize packet.", "oversize packet"),
    (" disconnected due to oversize payload.", "oversize payload"),
    (" disconnected due to out of memory.", "out of memory"),
    (
        " disconnected due to QoS too high or retain not supported.",
        "QoS too high or retain not supported",
    ),
    (
        " been disconnected by administrative action.",
        "administrative action",
    ),
    (" has exceeded timeout, disconnecting.", "keepalive exceeded"),
    (" disconnected, not authorised.", "not authorised"),
    (" closed its connection.", "connection closed by the client"),
    (" disconnected.", "disconnected by the client"),
];

impl Message {
    /// Reads a sentence.
    pub fn read(body: &str) -> Self {
        let beginnings = ["New client connected from ", "New bridge connected from "];
        if let Some(rest) = beginnings.iter().find_map(|begin| body.strip_prefix(begin)) {
            return connected(rest).map_or(Self::Other, Self::Connected);
        }
        if let Some(rest) = body.strip_prefix("Client ") {
            return disconnected(rest).unwrap_or(Self::Other);
        }
        if let Some(rest) = body.strip_prefix("Socket error on client ") {
            return match rest.strip_suffix(", disconnecting.") {
                Some(client) => ended(client, "socket error", None),
                None => Self::Other,
            };
        }
        if let Some((client, reason)) = body
            .strip_prefix("Bad socket read/write on client ")
            .and_then(|rest| rest.rsplit_once(": "))
        {
            return ended(client, reason.trim_end_matches('.'), None);
        }
        match body.strip_prefix("mosquitto version ") {
            Some(rest) if rest.ends_with(" starting") => Self::Starts,
            Some(rest) if rest.ends_with(" terminating") => Self::Stops,
            _ => Self::Other,
        }
    }
}

fn ended(client_id: &str, reason: &str, address: Option<&str>) -> Message {
    Message::Disconnected {
        client_id: client_id.to_owned(),
        reason: reason.to_owned(),
        address: address.map(str::to_owned),
    }
}

/// `ADDRESS:PORT as CLIENT (p2, c1, k60).`, or with `, u'USER'` before the bracket. An address has no spaces, so the
/// first ` as ` is Mosquitto's; everything after the client is read from the right.
fn connected(rest: &str) -> Option<Connected> {
    let (address, rest) = rest.split_once(" as ")?;
    let (rest, username) = match rest.strip_suffix("').") {
        Some(rest) => {
            let (rest, user) = with_user(rest)?;
            (rest, Some(user.to_owned()))
        }
        None => (rest.strip_suffix(").")?, None),
    };
    let (client_id, session) = rest.rsplit_once(" (p")?;
    let (protocol, clean_start, keep_alive) = session_of(session)?;
    Some(Connected {
        client_id: client_id.to_owned(),
        address: address.to_owned(),
        username,
        protocol,
        keep_alive,
        clean_start,
    })
}

/// The last place where a user can begin: `CLIENT (p2, c1, k60` and `USER`. That a user name contains ` (p2, c1, k60,
/// u'` is as possible as that a client id does; nothing in the line tells which, and client ids are the freer choice.
fn with_user(rest: &str) -> Option<(&str, &str)> {
    let mut end = rest.len();
    loop {
        let place = rest[..end].rfind(", u'")?;
        let before = &rest[..place];
        if before
            .rsplit_once(" (p")
            .is_some_and(|(_, session)| session_of(session).is_some())
        {
            return Some((before, &rest[place + 4..]));
        }
        end = place;
    }
}

/// `2, c1, k60`
fn session_of(text: &str) -> Option<(&'static str, bool, i64)> {
    let mut parts = text.split(", ");
    let protocol = match parts.next()? {
        "1" => "3.1",
        "2" => "3.1.1",
        "5" => "5",
        _ => return None,
    };
    let clean = match parts.next()? {
        "c0" => false,
        "c1" => true,
        _ => return None,
    };
    let keep_alive: u32 = parts.next()?.strip_prefix('k')?.parse().ok()?;
    parts
        .next()
        .is_none()
        .then_some((protocol, clean, keep_alive.into()))
}

/// `CLIENT disconnected.`, since 2.1 `CLIENT [ADDRESS:PORT] disconnected: reason.`
fn disconnected(rest: &str) -> Option<Message> {
    if let Some((client, reason)) = ENDINGS
        .iter()
        .find_map(|(end, reason)| Some((rest.strip_suffix(end)?, *reason)))
    {
        let (client, address) = without_address(client);
        return Some(ended(client, reason, address));
    }
    let (client, reason) = rest.rsplit_once(" disconnected: ")?;
    let (client, address) = without_address(client);
    Some(ended(client, reason.trim_end_matches('.'), address))
}

/// `CLIENT [ADDRESS:PORT]`. A client id may end like that too: only what is an address and a port counts.
fn without_address(client: &str) -> (&str, Option<&str>) {
    let bracketed = client.strip_suffix(']').and_then(|rest| rest.rsplit_once(" ["));
    match bracketed {
        Some((client, address)) if is_address(address) => (client, Some(address)),
        _ => (client, None),
    }
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    port.parse::<u16>().is_ok() && host.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::{Format, Place};
    use jiff::tz::TimeZone;

    fn connect(client_id: &str, user: Option<&str>) -> Message {
        Message::Connected(Connected {
            client_id: client_id.to_owned(),
            address: "127.0.0.1:36670".to_owned(),
            username: user.map(str::to_owned),
            protocol: "3.1.1",
            keep_alive: 60,
            clean_start: true,
        })
    }

    #[test]
    fn hostile_clients_come_out_as_themselves() {
        let ids = [
            "plain",
            "evil \"quoted\" as x (p2, c1)",
            "x (p2, c1, k60).",
            "x (p2, c1, k60, u'root').",
            " disconnected.",
            "a as b",
            "",
            "ä\u{0}🦟",
        ];
        let users = [
            None,
            Some("us er').".to_owned()),
            Some("o'neill, u'x".to_owned()),
            Some(String::new()),
        ];
        for id in ids {
            for user in &users {
                let tail = user.as_ref().map_or(String::new(), |user| format!(", u'{user}'"));
                let line = format!("New client connected from 127.0.0.1:36670 as {id} (p2, c1, k60{tail}).");
                assert_eq!(Message::read(&line), connect(id, user.as_deref()), "{line}");
            }
            for (end, reason) in ENDINGS {
                let old = format!("Client {id}{end}");
                assert_eq!(Message::read(&old), ended(id, reason, None), "{old}");
            }
            let new = format!("Client {id} [10.0.0.7:5000] disconnected: keepalive timeout.");
            assert_eq!(
                Message::read(&new),
                ended(id, "keepalive timeout", Some("10.0.0.7:5000"))
            );
            let new = format!("Client {id} [::1:5000] disconnected.");
            assert_eq!(
                Message::read(&new),
                ended(id, "disconnected by the client", Some("::1:5000"))
            );
            let socket = format!("Socket error on client {id}, disconnecting.");
            assert_eq!(Message::read(&socket), ended(id, "socket error", None));
        }
        let odd = Message::read("Client x [y] disconnected.");
        assert_eq!(odd, ended("x [y]", "disconnected by the client", None));
    }

    #[test]
    fn what_is_no_session_is_other() {
        for body in [
            "New client connected from 127.0.0.1:1 as x",
            "New client connected from 127.0.0.1:1 as x (p9, c1, k60).",
            "New client connected from 127.0.0.1:1 as x (p2, c1, k60, u'y'). z",
            "Client x is fine.",
            "Client connection from 10.0.0.1 denied access by tcpd.",
            "mosquitto version 2.0.11 running",
            "",
        ] {
            assert_eq!(Message::read(body), Message::Other, "{body}");
        }
        assert_eq!(Message::read("mosquitto version 2.1.2 starting"), Message::Starts);
        assert_eq!(
            Message::read("mosquitto version 2.0.11 terminating"),
            Message::Stops
        );
    }

    #[test]
    fn lines_have_a_time_and_a_level_of_their_own() {
        let mut parser = Parser::new(Format::Mosquitto, Place::default(), TimeZone::UTC);
        for (line, seconds, severity, body) in [
            ("1700000000: Error: x", 1_700_000_000, Severity::ERROR, "Error: x"),
            (
                "2023-11-14T22:13:20: Warning: y",
                1_700_000_000,
                Severity::WARN,
                "Warning: y",
            ),
            (
                "2023-11-14T22:13:20: Client a disconnected.",
                1_700_000_000,
                Severity::NOTICE,
                "Client a disconnected.",
            ),
        ] {
            let parsed = parser.parse(line.as_bytes(), 0);
            assert!(parsed.understood);
            assert_eq!(parsed.record.time_ns, seconds * 1_000_000_000, "{line}");
            assert_eq!(
                (parsed.record.severity, parsed.record.body.as_str()),
                (severity, body)
            );
        }
        for line in [
            "17: x",
            "2023-11-14T22:13:20 x",
            "\tcontinued",
            "99999999999999999999: x",
        ] {
            let parsed = parser.parse(line.as_bytes(), 5);
            assert!(!parsed.understood, "{line}");
            assert_eq!((parsed.record.time_ns, parsed.record.body.as_str()), (5, line));
        }
    }
}
