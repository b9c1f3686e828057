//! What has to be done about clients that move or die: peers told, wills published, old sessions ended.

use super::{Plugin, printable};
use crate::ffi::{self, Level, log};
use crate::message::{Property, Publish};
use crate::policy::{Last, Shown};
use crate::replication::Now;
use crate::stamp::{STAMP_PROPERTY, Stamp};

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
        let execution = self.policy.borrow_mut().execute_wills(now);
        for Last { will, stamp } in &execution.publish {
            let stamp = stamp.as_ref().map(Stamp::to_string);
            let Ok(topic) = str::from_utf8(&will.topic) else {
                continue;
            };
            let message = Publish {
                topic,
                payload: &will.payload,
                qos: will.qos,
                retain: will.retain,
                properties: stamp
                    .iter()
                    .map(|stamp| Property::User(STAMP_PROPERTY, stamp))
                    .collect(),
            };
            if let Err(code) = ffi::publish(&message) {
                log(Level::Error, &format!("cannot publish a will: error {code}"));
            }
        }
        if execution.unproven > 0 {
            log(
                Level::Warning,
                &format!(
                    "{} wills are not published: they were held while this broker could not tell whether their \
                     clients had moved, and those were not seen to publish to the same topics",
                    execution.unproven
                ),
            );
        }
    }

    /// Gives what the broker has stored the stamp that it has elsewhere. Else it would come back as a newer value after
    /// the next start.
    pub(super) fn store_anew(&self) {
        let entries = self.policy.borrow_mut().take_to_store();
        for entry in &entries {
            let Some(message) = entry.publish() else {
                continue;
            };
            let message = Publish {
                qos: entry.stamp.qos,
                ..message
            };
            let shown = Shown {
                topic: message.topic.as_bytes(),
                length: message.payload.len(),
                qos: message.qos,
                retain: true,
            };
            self.policy.borrow_mut().hide(shown);
            if let Err(code) = ffi::publish(&message) {
                log(
                    Level::Error,
                    &format!("cannot store a message anew: error {code}"),
                );
            }
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
