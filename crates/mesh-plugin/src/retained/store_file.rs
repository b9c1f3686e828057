//! The retained messages in `mosquitto.db`, the broker's own database.
//!
//! The broker has loaded this file right before it starts its plugins, so what stands there is what it holds. An
//! index file of our own would be of another moment than the database, and the two would disagree after a crash.
//!
//! The format (Mosquitto's `persist.h`, database versions 5 and 6, which 2.0 and 2.1 write): a header, then chunks
//! of a kind and a length, both in network order. A message is one chunk, that it is retained another one, which
//! comes later and holds the number that the first one has. Numbers inside are partly in the order of the machine.
//! A file that is cut off or damaged is used up to there, as the broker does; no input makes this panic.

use std::io::{self, Read};

use thiserror::Error;

use crate::message::{self, Input, Property};

const MAGIC: &[u8; 15] = b"\0\xb5\0mosquitto db";
const MESSAGE: u32 = 2;
const RETAINED: u32 = 4;

/// A retained message as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// Its topic.
    pub topic: String,
    /// In which second since 1970 it expires, if it does.
    pub expires: Option<u32>,
    /// What the caller made of it.
    pub about: T,
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum StoreFileError {
    /// It cannot be read.
    #[error("cannot read")]
    Read(#[from] io::Error),
    /// It is no database of Mosquitto.
    #[error("not a database of Mosquitto")]
    Format,
    /// It was written by a version that is not known.
    #[error("database version {0}, and only 5 and 6 are known")]
    Version(u32),
}

/// How much of the file was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// So many retained messages were found.
    pub found: usize,
    /// Whether the file ends where a chunk ends.
    pub whole: bool,
}

/// Reads the retained messages. `about` makes something of the properties and the payload of each, since most
/// callers do not want to keep these; `visit` gets the messages when all is read, in the order of their numbers.
///
/// # Errors
///
/// [`StoreFileError`], if nothing can be read. A damaged end is none.
pub fn read<T>(
    mut input: impl Read,
    about: impl Fn(&[Property<'_>], &[u8]) -> T,
    mut visit: impl FnMut(Stored<T>),
) -> Result<Used, StoreFileError> {
    let mut header = [0; 23];
    input.read_exact(&mut header)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(StoreFileError::Format);
    }
    let version = be32(&rest[4..]);
    if ![5, 6].contains(&version) {
        return Err(StoreFileError::Version(version));
    }
    let (mut messages, mut retained) = (Vec::new(), Vec::new());
    let mut body = Vec::new();
    let whole = loop {
        let mut head = [0; 8];
        let read = fill(&mut input, &mut head)?;
        if read < head.len() {
            break read == 0;
        }
        let (kind, length) = (be32(&head), be32(&head[4..]));
        body.clear();
        // Grows with what is there, whatever length is claimed.
        let read = input.by_ref().take(length.into()).read_to_end(&mut body)?;
        let cut = read < length as usize;
        match kind {
            MESSAGE if !cut => messages.extend(message(&body, &about)),
            RETAINED if !cut => {
                let id = body.first_chunk().map(|id| u64::from_ne_bytes(*id));
                retained.extend(id);
            }
            _ => {}
        }
        if cut {
            break false;
        }
    };
    // Both lists are gone through once: looking up each of a million numbers would take as long as reading them.
    messages.sort_by_key(|(id, _)| *id);
    retained.sort_unstable();
    let mut retained = retained.into_iter().peekable();
    let mut found = 0;
    for (id, stored) in messages {
        while retained.next_if(|other| *other < id).is_some() {}
        if retained.next_if_eq(&id).is_some() {
            found += 1;
            visit(stored);
        }
    }
    Ok(Used { found, whole })
}

/// The number of a message and what is of interest in it. Nothing if it was not published to be kept.
fn message<T>(body: &[u8], about: &impl Fn(&[Property<'_>], &[u8]) -> T) -> Option<(u64, Stored<T>)> {
    // struct PF_msg_store.
    let (fixed, mut rest) = body.split_first_chunk::<32>()?;
    let id = u64::from_ne_bytes(*fixed.first_chunk()?);
    let expires = i64::from_ne_bytes(*fixed[8..].first_chunk()?);
    let payload = be32(&fixed[16..]) as usize;
    let [source_id, source_user, topic] = [22, 24, 26].map(|at| usize::from(be16(&fixed[at..])));
    if fixed[31] == 0 {
        return None;
    }
    let mut take = |length| {
        let (taken, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(taken)
    };
    take(source_id)?;
    take(source_user)?;
    let topic = String::from_utf8(take(topic)?.to_vec()).ok()?;
    let payload = take(payload)?;
    let properties = if rest.is_empty() {
        Vec::new()
    } else {
        properties(rest).unwrap_or_default()
    };
    let stored = Stored {
        topic,
        expires: (expires > 0).then(|| u32::try_from(expires).unwrap_or(u32::MAX)),
        about: about(&properties, payload),
    };
    Some((id, stored))
}

/// Properties stand here as in a packet: their length, then they.
fn properties(bytes: &[u8]) -> Option<Vec<Property<'_>>> {
    let mut input = Input(bytes);
    let length = input.varint()?;
    message::decode(input.take(length)?)
}

/// Reads until `buffer` is full or the input ends; how much there was.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// `bytes` has at least four.
fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// `bytes` has at least two.
fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last user property `mesh`, and the payload's length.
    type About = (Option<String>, usize);

    fn about(properties: &[Property<'_>], payload: &[u8]) -> About {
        let mesh = properties.iter().rev().find_map(|property| match property {
            Property::User("mesh", value) => Some((*value).to_owned()),
            _ => None,
        });
        (mesh, payload.len())
    }

    fn contents(bytes: &[u8]) -> Result<(Vec<Stored<About>>, Used), StoreFileError> {
        let mut all = Vec::new();
        let used = read(bytes, about, |stored| all.push(stored))?;
        Ok((all, used))
    }

    /// As `persist__chunk_message_store_write_v6` writes it.
    fn write_message(
        id: u64,
        expires: i64,
        retain: bool,
        topic: &str,
        payload: &[u8],
        properties: &[u8],
    ) -> Vec<u8> {
        let (source, user) = (b"client", b"somebody");
        let mut body = Vec::new();
        body.extend(id.to_ne_bytes());
        body.extend(expires.to_ne_bytes());
        body.extend((payload.len() as u32).to_be_bytes());
        body.extend(7u16.to_be_bytes());
        body.extend((source.len() as u16).to_be_bytes());
        body.extend((user.len() as u16).to_be_bytes());
        body.extend((topic.len() as u16).to_be_bytes());
        body.extend(1883u16.to_be_bytes());
        body.extend([1, retain.into()]);
        body.extend(source);
        body.extend(user);
        body.extend(topic.bytes());
        body.extend(payload);
        body.extend(properties);
        chunk(MESSAGE, &body)
    }

    fn chunk(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn user_property(name: &str, value: &str) -> Vec<u8> {
        let mut bytes = vec![0x26];
        for text in [name, value] {
            bytes.extend((text.len() as u16).to_be_bytes());
            bytes.extend(text.bytes());
        }
        bytes
    }

    fn file(version: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0; 4]);
        bytes.extend(version.to_be_bytes());
        bytes.extend(chunks.concat());
        bytes
    }

    fn sample(version: u32) -> Vec<u8> {
        let mut properties = [user_property("mesh", "forged"), user_property("mesh", "ours")].concat();
        properties.extend(user_property("other", "x"));
        properties.insert(0, properties.len() as u8);
        file(
            version,
            &[
                chunk(1, &[0; 16]),
                write_message(1, 0, true, "a/ö", b"payload", &properties),
                write_message(2, 1_700_000_000, true, "expires", b"", &[]),
                write_message(3, 0, false, "queued", b"not retained", &[]),
                write_message(4, 0, true, "was/replaced", b"old", &[]),
                chunk(99, b"from the future"),
                chunk(RETAINED, &1u64.to_ne_bytes()),
                chunk(RETAINED, &2u64.to_ne_bytes()),
                chunk(RETAINED, &77u64.to_ne_bytes()),
            ],
        )
    }

    #[test]
    fn retained_messages_are_found_in_versions_5_and_6() {
        for version in [5, 6] {
            let (stored, used) = contents(&sample(version)).unwrap();
            let ours = Some("ours".to_owned());
            assert_eq!(
                stored,
                [
                    Stored {
                        topic: "a/ö".to_owned(),
                        expires: None,
                        about: (ours, 7)
                    },
                    Stored {
                        topic: "expires".to_owned(),
                        expires: Some(1_700_000_000),
                        about: (None, 0)
                    },
                ]
            );
            assert_eq!(
                used,
                Used {
                    found: 2,
                    whole: true
                }
            );
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(contents(&sample(4)), Err(StoreFileError::Version(4))));
        assert!(matches!(contents(b""), Err(StoreFileError::Read(_))));
        assert!(matches!(contents(&[b'x'; 100]), Err(StoreFileError::Format)));
    }

    #[test]
    fn a_file_that_is_cut_off_is_used_up_to_there() {
        let bytes = sample(6);
        let mut before = 0;
        for end in 23..bytes.len() {
            let (stored, used) = contents(&bytes[..end]).unwrap();
            assert!(stored.len() >= before);
            assert_eq!(used.found, stored.len());
            before = stored.len();
        }
        assert_eq!(before, 2);
    }

    #[test]
    fn no_input_makes_it_panic_or_reserve_much() {
        let good = sample(6);
        let mut random = fastrand::Rng::with_seed(4);
        let mut found = 0;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(23..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(23..=bytes.len()));
            found += contents(&bytes).unwrap().0.len();
        }
        assert!(found > 0, "some are well-formed");
        // Four gigabytes are claimed.
        let claim = [&good[..23], &MESSAGE.to_be_bytes(), &u32::MAX.to_be_bytes(), b"x"].concat();
        assert_eq!(
            contents(&claim).unwrap().1,
            Used {
                found: 0,
                whole: false
            }
        );
    }
}
