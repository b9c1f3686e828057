//! A message as it travels, and its properties as they stand in an MQTT 5 packet.

use std::str;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// The quality of service.
    pub qos: u8,
    /// Whether it shall be kept for later subscribers.
    pub retain: bool,
    /// Its properties, without those that are about the connection.
    pub properties: Vec<Property<'a>>,
}

impl Publish<'_> {
    /// The packet that brings it. `id` is not 0.
    pub fn packet(&self, id: u16) -> Vec<u8> {
        let mut properties = Vec::new();
        for property in &self.properties {
            encode(*property, &mut properties);
        }
        let mut body = Vec::with_capacity(self.topic.len() + properties.len() + self.payload.len() + 8);
        // A topic came out of a packet, where it has no more than 65,535 bytes.
        body.extend((self.topic.len() as u16).to_be_bytes());
        body.extend(self.topic.bytes());
        if self.qos > 0 {
            body.extend(id.to_be_bytes());
        }
        encode_length(properties.len(), &mut body);
        body.extend(properties);
        body.extend(self.payload);
        let mut packet = Vec::with_capacity(body.len() + 5);
        packet.push(0x30 | self.qos << 1 | u8::from(self.retain));
        encode_length(body.len(), &mut packet);
        packet.extend(body);
        packet
    }
}

/// Appends a length as a variable byte integer.
pub(crate) fn encode_length(mut length: usize, bytes: &mut Vec<u8>) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        bytes.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            return;
        }
    }
}

/// A property that travels with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// Whether the payload is text.
    PayloadFormat(u8),
    /// How many seconds the message is of use.
    MessageExpiry(u32),
    /// What the payload is.
    ContentType(&'a str),
    /// Where to answer.
    ResponseTopic(&'a str),
    /// What the answer shall carry.
    CorrelationData(&'a [u8]),
    /// Name and value.
    User(&'a str, &'a str),
}

/// Links use no topic aliases, so a message without a topic is none.
pub(crate) fn topic(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains(['#', '+'])).then_some(text)
}

/// Appends `property` to `bytes`, as it stands in a packet. Text and data are at most 65,535 bytes long: they came
/// out of a packet.
pub fn encode(property: Property<'_>, bytes: &mut Vec<u8>) {
    let data = |bytes: &mut Vec<u8>, data: &[u8]| {
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&data[..length.into()]);
    };
    match property {
        Property::PayloadFormat(format) => bytes.extend([0x01, format]),
        Property::MessageExpiry(seconds) => {
            bytes.push(0x02);
            bytes.extend(seconds.to_be_bytes());
        }
        Property::ContentType(text) => {
            bytes.push(0x03);
            data(bytes, text.as_bytes());
        }
        Property::ResponseTopic(topic) => {
            bytes.push(0x08);
            data(bytes, topic.as_bytes());
        }
        Property::CorrelationData(correlation) => {
            bytes.push(0x09);
            data(bytes, correlation);
        }
        Property::User(name, value) => {
            bytes.push(0x26);
            data(bytes, name.as_bytes());
            data(bytes, value.as_bytes());
        }
    }
}

/// The properties in `bytes`, without those that are about the connection; `None` if no broker would send them.
pub fn decode(bytes: &[u8]) -> Option<Vec<Property<'_>>> {
    let mut input = Input(bytes);
    let mut properties = Vec::new();
    let mut seen = 0u64;
    while !input.0.is_empty() {
        let name = input.byte()?;
        // All but user properties and subscription identifiers occur once.
        let bit = 1u64.checked_shl(name.into())?;
        if seen & bit != 0 && ![0x0b, 0x26].contains(&name) {
            return None;
        }
        seen |= bit;
        properties.push(match name {
            0x01 => Property::PayloadFormat(input.byte().filter(|format| *format < 2)?),
            0x02 => Property::MessageExpiry(input.u32()?),
            0x03 => Property::ContentType(input.text()?),
            0x08 => Property::ResponseTopic(input.text().filter(|topic| !topic.contains(['#', '+']))?),
            0x09 => Property::CorrelationData(input.binary()?),
            0x26 => Property::User(input.text()?, input.text()?),
            // Subscription identifier and topic alias are about the connection.
            0x0b => {
                input.varint().filter(|id| *id != 0)?;
                continue;
            }
            0x23 => {
                input.u16().filter(|alias| *alias != 0)?;
                continue;
            }
            _ => return None,
        });
    }
    Some(properties)
}

/// What is not yet read.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let text = str::from_utf8(self.binary()?).ok()?;
        (!text.contains('\0')).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let properties = [
            Property::PayloadFormat(1),
            Property::MessageExpiry(70_000),
            Property::ContentType("text/plain"),
            Property::ResponseTopic("answer/here"),
            Property::CorrelationData(&[0, 255, 1]),
            Property::User("a", "b"),
            Property::User("a", "ö"),
        ];
        let mut bytes = Vec::new();
        for property in properties {
            encode(property, &mut bytes);
        }
        assert_eq!(decode(&bytes).unwrap(), properties);
        for end in 0..bytes.len() {
            if let Some(some) = decode(&bytes[..end]) {
                assert!(properties.starts_with(&some), "{end}");
            }
        }
    }
}
