//! Nginx's lines: the error log of the stream module at level `info`, and its access log as JSON.

use std::borrow::Cow;
use std::sync::Arc;

use mesh_model::{Attributes, LogRecord, Severity};
use serde::Deserialize;

use super::{Parsed, Parser};
use crate::core::fact::Fact;

pub(super) fn parse(parser: &mut Parser, line: &str) -> Option<Parsed> {
    if line.starts_with('{') {
        access(parser, line)
    } else {
        error(parser, line)
    }
}

/// `2026/11/23 05:40:59 [info] 7902#7902: *1 client 127.0.0.1:42998 connected to 127.0.0.1:23999`
fn error(parser: &mut Parser, line: &str) -> Option<Parsed> {
    let time_ns = parser.clock.read(line)?;
    let (level, rest) = line[19..].strip_prefix(" [")?.split_once("] ")?;
    let severity: Severity = level.parse().ok()?;
    let (process, body) = rest.split_once(": ")?;
    let mut attributes = Attributes::default();
    let pid = process.split_once('#')?.0;
    attributes.set("pid", pid.parse::<i64>().ok()?);
    let connection = body.strip_prefix('*').and_then(|rest| rest.split_once(' '));
    let numbered = connection.and_then(|(number, said)| Some((number.parse::<i64>().ok()?, said)));
    let fact = numbered.and_then(|(number, said)| of_connection(number, said));
    if let Some((number, _)) = numbered {
        attributes.set("connection", number);
    }
    match &fact {
        Some(Fact::Accepted { remote_addr, .. }) => attributes.set("remote_addr", remote_addr.as_str()),
        Some(Fact::Proxied {
            broker_addr,
            upstream,
            ..
        }) => {
            attributes.set("proxy_addr", broker_addr.as_str());
            attributes.set("upstream_addr", upstream.as_str());
        }
        _ => {}
    }
    Some(Parsed {
        record: record(parser, time_ns, severity, body.to_owned(), attributes),
        fact: fact.map(Box::new),
        understood: true,
    })
}

fn of_connection(number: i64, said: &str) -> Option<Fact> {
    let pair = |kind: &str| said.strip_prefix(kind)?.split_once(" connected to ");
    if let Some((remote_addr, _)) = pair("client ") {
        return Some(Fact::Accepted {
            number,
            remote_addr: remote_addr.to_owned(),
        });
    }
    if let Some((broker_addr, upstream)) = pair("proxy ") {
        return Some(Fact::Proxied {
            number,
            broker_addr: broker_addr.to_owned(),
            upstream: upstream.to_owned(),
        });
    }
    let is_end =
        said.contains("disconnected, bytes from/to client:") || said.starts_with("connection timed out");
    is_end.then_some(Fact::Closed { number })
}

/// The fields of the access log that `nginx.conf` asks for.
#[derive(Deserialize)]
struct Session<'a> {
    msec: f64,
    connection: i64,
    remote_addr: Cow<'a, str>,
    remote_port: Cow<'a, str>,
    upstream_addr: Cow<'a, str>,
    status: i64,
    session_time: f64,
    bytes_received: i64,
    bytes_sent: i64,
}

fn access(parser: &Parser, line: &str) -> Option<Parsed> {
    let session: Session<'_> = serde_json::from_str(line).ok()?;
    let remote_addr = format!("{}:{}", session.remote_addr, session.remote_port);
    let to = match &*session.upstream_addr {
        "" => "nobody",
        upstream => upstream,
    };
    let body = format!(
        "session of {remote_addr} with {to} ended after {:.3} s, status {}",
        session.session_time, session.status
    );
    let mut attributes = Attributes::default();
    attributes.set("connection", session.connection);
    attributes.set("remote_addr", remote_addr);
    attributes.set("upstream_addr", session.upstream_addr.as_ref());
    attributes.set("status", session.status);
    attributes.set("bytes_received", session.bytes_received);
    attributes.set("bytes_sent", session.bytes_sent);
    let severity = match session.status {
        ..400 => Severity::INFO,
        400..500 => Severity::WARN,
        _ => Severity::ERROR,
    };
    let millis = (session.msec * 1000.0).round();
    let in_range = (0.0..9e15).contains(&millis);
    let time_ns = in_range.then_some(millis as i64)?.checked_mul(1_000_000)?;
    Some(Parsed {
        record: record(parser, time_ns, severity, body, attributes),
        fact: Some(Box::new(Fact::Closed {
            number: session.connection,
        })),
        understood: true,
    })
}

fn record(
    parser: &Parser,
    time_ns: i64,
    severity: Severity,
    body: String,
    attributes: Attributes,
) -> LogRecord {
    LogRecord {
        time_ns,
        severity,
        body,
        attributes,
        event: None,
        node: parser.place.node.clone(),
        broker: parser.place.broker.clone(),
        service: Arc::clone(&parser.services.nginx),
        client_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::{Format, Place};
    use jiff::tz::TimeZone;

    fn parsed(line: &str) -> Parsed {
        Parser::new(Format::Nginx, Place::default(), TimeZone::UTC).parse(line.as_bytes(), 1)
    }

    #[test]
    fn both_ends_of_a_connection_are_told() {
        let client = parsed(
            "2026/11/23 05:40:59 [info] 7902#7902: *12 client 192.168.1.7:42998 connected to 0.0.0.0:1883",
        );
        let expected = Fact::Accepted {
            number: 12,
            remote_addr: "192.168.1.7:42998".to_owned(),
        };
        assert_eq!(*client.fact.unwrap(), expected);
        assert_eq!(client.record.time_ns, 1_795_412_459_000_000_000);
        let proxy = parsed(
            "2026/11/23 05:40:59 [info] 7902#7902: *12 proxy 127.0.0.2:4000 connected to 127.0.0.1:18831",
        );
        let expected = Fact::Proxied {
            number: 12,
            broker_addr: "127.0.0.2:4000".to_owned(),
            upstream: "127.0.0.1:18831".to_owned(),
        };
        assert_eq!(*proxy.fact.unwrap(), expected);
        let end = parsed(
            "2026/11/23 05:41:00 [info] 1#1: *12 client disconnected, bytes from/to client:65/9, bytes from/to upstream:9/65",
        );
        assert_eq!(*end.fact.unwrap(), Fact::Closed { number: 12 });
        let notice =
            parsed("2026/11/23 05:42:01 [notice] 7893#7893: signal 15 (SIGTERM) received from 7863, exiting");
        assert_eq!((notice.record.severity, notice.fact), (Severity::NOTICE, None));
    }

    #[test]
    fn a_line_of_the_access_log_becomes_a_sentence() {
        let line = r#"{"time":"2026-11-23T05:40:59+00:00","msec":1795412459.977,"connection":1,"remote_addr":"127.0.0.1","remote_port":"42998","upstream_addr":"127.0.0.1:18831","status":502,"session_time":0.250,"bytes_received":0,"bytes_sent":63}"#;
        let parsed = parsed(line);
        assert_eq!(parsed.record.time_ns, 1_795_412_459_977_000_000);
        let body = "session of 127.0.0.1:42998 with 127.0.0.1:18831 ended after 0.250 s, status 502";
        assert_eq!(
            (parsed.record.body.as_str(), parsed.record.severity),
            (body, Severity::ERROR)
        );
    }

    #[test]
    fn what_is_cut_off_is_not_understood() {
        for line in [
            "2026/11/23 05:40:59 [info] 79",
            "2026/11/23 05:40:59 [loud] 1#1: x",
            "{\"time\":1}",
            "{",
        ] {
            assert!(!parsed(line).understood, "{line}");
        }
    }
}
