//! What is retained here, and of which stamp.

use crate::stamp::Stamp;

/// The index.
#[derive(Debug, Default)]
pub struct Retained;

impl Retained {
    /// A client published this here, to be kept; no payload clears the topic. It is newer than all before.
    pub fn local(&mut self, _topic: &[u8], _stamp: &Stamp, _payload: &[u8]) {}

    /// Whether nothing newer than this stamp is known of the topic.
    pub fn is_newest(&self, _topic: &[u8], _stamp: &Stamp) -> bool {
        true
    }

    /// This came over a link, to be kept. Whether it is newer than what is retained here.
    pub fn offer(&mut self, _topic: &[u8], _stamp: &Stamp, _payload: &[u8]) -> bool {
        true
    }
}
