//! What has to be done about clients that move or die: peers told, wills published, old sessions ended.

use super::{Plugin, printable};
use crate::ffi::{self, Level, log};
use crate::message::Publish;
use crate::replication::Now;

impl Plugin {
    /// Tells peers which clients have connected here. Before the report: who hears that has heard this.
    pub(super) fn announce_clients(&self) {
        for (peer, clients) in self.policy.borrow_mut().announcements() {
            let message = Publish {
                topic: &self.presence_topic,
                payload: &clients,
                qos: 0,
                retain: false,
                properties: Vec::new(),
            };
            if let Err(code) = ffi::publish_to(&self.link_ids[peer], &message) {
                log(
                    Level::Error,
                    &format!("cannot tell a peer of clients: error {code}"),
                );
            }
        }
    }

    /// Publishes held wills whose clients have not moved.
    pub(super) fn execute_wills(&self, now: Now) {
        let unproven = self.policy.borrow_mut().execute_wills(now);
        if unproven > 0 {
            log(
                Level::Warning,
                &format!(
                    "{unproven} wills are not published: they were held while this broker could not tell whether \
                     their clients had moved, and those were not seen to publish to the same topics"
                ),
            );
        }
    }

    /// Ends the sessions of clients that have connected to a peer since.
    pub(super) fn end_outdated(&self) {
        let outdated = self.policy.borrow_mut().outdated_clients();
        for id in &outdated {
            if let Ok(id) = str::from_utf8(id) {
                log(
                    Level::Notice,
                    &format!(
                        "client \"{}\" has connected to another broker",
                        printable(id.as_bytes())
                    ),
                );
                ffi::kick(id);
            }
        }
    }
}
