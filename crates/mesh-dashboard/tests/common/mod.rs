//! Asking the page, and reading its stream.
#![allow(dead_code, reason = "not every test uses everything")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What was answered. A server that is not there answers 0.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

pub fn get(url: &str) -> Answer {
    request("GET", url, &[])
}

/// As the page itself does.
pub fn post(url: &str) -> Answer {
    request("POST", url, &[("x-mesh-action", "1")])
}

/// One request on a connection of its own. What is compressed has no body here.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> Answer {
    with_body(method, url, headers, "")
}

/// The same with a body.
pub fn with_body(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    exchange(method, url, headers, body).unwrap_or_default()
}

fn exchange(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
    let (mut reader, mut answer) = begin(method, url, headers, body)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    if answer.header("content-encoding").is_none() {
        answer.body = String::from_utf8_lossy(&bytes).into_owned();
    }
    Ok(answer)
}

/// HTTP/1.0, so that nothing comes in chunks and the end of the connection is the end of the body.
fn begin(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<(BufReader<TcpStream>, Answer)> {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut text = format!("{method} /{path} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        text += &format!("host: {host}\r\n");
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut answer = Answer::default();
    let mut line = String::new();
    reader.read_line(&mut line)?;
    answer.status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok((reader, answer));
        }
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            answer.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
}

/// One event of the stream.
#[derive(Debug, Default, Clone)]
pub struct Message {
    pub name: String,
    pub id: String,
    pub data: Value,
}

/// An open event stream.
#[derive(Debug)]
pub struct Stream(BufReader<TcpStream>);

impl Stream {
    pub fn open(url: &str, last: Option<&str>) -> Result<Self, Answer> {
        Self::follow(url, "", last)
    }

    /// With parameters that say what is followed.
    pub fn follow(url: &str, parameters: &str, last: Option<&str>) -> Result<Self, Answer> {
        let headers: Vec<(&str, &str)> = last.map(|last| ("last-event-id", last)).into_iter().collect();
        let opened = begin("GET", &format!("{url}/api/v1/events{parameters}"), &headers, "");
        let (reader, answer) = opened.map_err(|_| Answer::default())?;
        if answer.status == 200 {
            Ok(Self(reader))
        } else {
            Err(answer)
        }
    }

    /// The next event, or `None` at the end of the stream.
    pub fn next(&mut self, patience: Duration) -> Option<Message> {
        self.0.get_ref().set_read_timeout(Some(patience)).unwrap();
        let mut message = Message::default();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut message.name),
                Some(("id", id)) => id.clone_into(&mut message.id),
                Some(("data", data)) => message.data = serde_json::from_str(data).unwrap(),
                _ if line.trim_end().is_empty() && !message.name.is_empty() => return Some(message),
                _ => {}
            }
        }
    }

    /// The first event that is wanted.
    pub fn until(&mut self, patience: Duration, mut wanted: impl FnMut(&Message) -> bool) -> Message {
        let deadline = Instant::now() + patience;
        let mut last = None;
        while Instant::now() < deadline {
            let Some(message) = self.next(patience) else { break };
            if wanted(&message) {
                return message;
            }
            last = Some(message);
        }
        panic!("it was not told; the last was {last:?}");
    }
}
