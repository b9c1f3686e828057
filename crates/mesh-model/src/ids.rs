//! The name of a broker.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::{fmt, str};

use serde::{Deserialize, Serialize};

/// The name of a broker: 1 to 32 characters of `a-z`, `0-9` and `-`, beginning with a letter.
///
/// The alphabet is small on purpose. An id stands in MQTT topics and client ids, file names, systemd unit names
/// and host names without ever being quoted, and it contains no `.`, which separates the parts of a client id
/// (see [`crate::names`]).
///
/// It is kept in place and not on the heap: every message of the mesh carries one, and is compared by it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BrokerId {
    length: u8,
    /// Zero behind the length, so that equal ids are equal bytes.
    bytes: [u8; LONGEST],
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for BrokerId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .pattern(Some("^[a-z][a-z0-9-]{0,31}$"))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for BrokerId {}

/// So many characters has an id at most.
const LONGEST: usize = 32;

/// Why a text is not a [`BrokerId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a broker id: use 1 to 32 characters of a-z, 0-9 and '-', beginning with a letter")]
pub struct InvalidBrokerId(pub String);

impl BrokerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Only the alphabet above is ever stored, so it is text.
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BrokerId").field(&self.as_str()).finish()
    }
}

impl PartialOrd for BrokerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BrokerId {
    /// As their texts: none of the characters is below the zeros behind the shorter one.
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

impl Hash for BrokerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes[..usize::from(self.length)].hash(state);
    }
}

impl FromStr for BrokerId {
    type Err = InvalidBrokerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
        let valid = (1..=LONGEST).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.as_bytes().iter().all(allowed);
        if !valid {
            return Err(InvalidBrokerId(text.to_owned()));
        }
        let mut bytes = [0; LONGEST];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self {
            length: text.len() as u8,
            bytes,
        })
    }
}

impl TryFrom<String> for BrokerId {
    type Error = InvalidBrokerId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BrokerId> for String {
    fn from(id: BrokerId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_need_no_quoting_are_accepted() {
        for text in ["broker1", "b", "plant-north-2", &"x".repeat(32)] {
            assert_eq!(text.parse::<BrokerId>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn ids_are_in_order_as_their_texts_are() {
        let mut texts = ["b2", "b", "b-", "broker10", "b1", "broker1", "broker2", "a"];
        let mut ids = texts.map(|text| text.parse::<BrokerId>().unwrap());
        texts.sort_unstable();
        ids.sort_unstable();
        assert_eq!(ids.map(String::from), texts);
    }

    #[test]
    fn ids_that_would_need_quoting_are_refused() {
        for text in [
            "",
            "1broker",
            "-b",
            "Broker1",
            "a.b",
            "a/b",
            "a b",
            "ä",
            "a+",
            "a#",
            &"x".repeat(33),
        ] {
            assert!(text.parse::<BrokerId>().is_err(), "{text:?}");
        }
    }
}
