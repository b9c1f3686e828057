//! The name of a broker.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a broker: 1 to 32 characters of `a-z`, `0-9` and `-`, beginning with a letter.
///
/// The alphabet is small on purpose. An id stands in MQTT topics and client ids, file names, systemd unit names
/// and host names without ever being quoted, and it contains no `.`, which separates the parts of a client id
/// (see [`crate::names`]).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, pattern = "^[a-z][a-z0-9-]{0,31}$"))]
pub struct BrokerId(String);

/// Why a text is not a [`BrokerId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a broker id: use 1 to 32 characters of a-z, 0-9 and '-', beginning with a letter")]
pub struct InvalidBrokerId(pub String);

impl BrokerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BrokerId {
    type Err = InvalidBrokerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let valid = (1..=32).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(allowed);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidBrokerId(text.to_owned()))
        }
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
        id.0
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
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
