//! Reading server-sent events, as the HTML standard's "event stream interpretation" says, without retry times.

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its `event` field; empty if it has none.
    pub name: String,
    /// Its `id` field; empty if it has none.
    pub id: String,
    /// Its `data` lines, with newlines between them.
    pub data: String,
}

/// The most bytes of one event: more is not what mesh-health sends.
const LIMIT: usize = 1 << 20;

/// Takes a stream in pieces and gives its events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    message: Message,
    has_data: bool,
}

impl Parser {
    /// Takes in `piece` and returns the events that it completes, or `None` if this is no event stream.
    pub fn feed(&mut self, piece: &[u8]) -> Option<Vec<Message>> {
        let mut complete = Vec::new();
        for byte in piece {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() + self.message.data.len() > LIMIT {
                    return None;
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            complete.extend(self.end_of_line(line.trim_end_matches('\r')));
        }
        Some(complete)
    }

    fn end_of_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return std::mem::take(&mut self.has_data).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.message.name),
            "id" => value.clone_into(&mut self.message.id),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            // Comments keep the connection alive; retry times are for browsers.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, id: &str, data: &str) -> Message {
        Message {
            name: name.to_owned(),
            id: id.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream = b": hello\n\nevent: status\ndata: {\"a\":\ndata: 1}\n\nid: 7\nevent:broker.dead\r\ndata:x\r\n\r\ndata: \xff\n\nevent: no data\n\n";
        let expected = [
            message("status", "", "{\"a\":\n1}"),
            message("broker.dead", "7", "x"),
            message("", "", "\u{fffd}"),
        ];
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let pieces = stream.chunks(size);
            let found: Vec<Message> = pieces.flat_map(|piece| parser.feed(piece).unwrap()).collect();
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.feed(&vec![b'x'; LIMIT + 1]).is_none());
    }
}
