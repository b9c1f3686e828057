//! What is sent to links beside what the broker routes: what was kept for them, and reports.

use super::Plugin;
use crate::ffi::{self, Level, log};
use crate::message::Publish;
use crate::replication::{Notice, Now};

impl Plugin {
    /// Sends what is due from the logs to links.
    pub(super) fn send_kept(&self) {
        let mut policy = self.policy.borrow_mut();
        // Queued by the broker until its next turn: nothing is called back from here.
        let mut refused = None;
        while let Some((peer, entry)) = policy.replication().next_send() {
            if let Some(message) = entry.publish() {
                refused = ffi::publish_to(&self.link_ids[peer], &message).err().or(refused);
            }
        }
        drop(policy);
        if let Some(code) = refused {
            log(
                Level::Error,
                &format!("cannot send to a link what is kept for it: error {code}"),
            );
        }
    }

    /// Tells peers what was seen here, if it is time for that.
    pub(super) fn report(&self, now: Now) -> bool {
        let mut policy = self.policy.borrow_mut();
        if !policy.report_due(now) {
            return false;
        }
        for (peer, report) in policy.reports(now) {
            let message = Publish {
                topic: &self.seen_topic,
                payload: report.as_bytes(),
                qos: 0,
                retain: false,
                properties: Vec::new(),
            };
            // Should it fail, the next one will do.
            ffi::publish_to(&self.link_ids[peer], &message).ok();
        }
        true
    }

    /// Says what is to be said of what is kept for peers.
    pub(super) fn tell_notices(&self) {
        loop {
            let notice = self.policy.borrow_mut().take_notice();
            let Some((peer, notice)) = notice else {
                return;
            };
            let id = &self.options.peers[peer].id;
            let (level, text) = match notice {
                Notice::Filling(backlog) => (
                    Level::Warning,
                    format!(
                        "{backlog} messages are kept for {id}, which does not take them; soon the oldest will be \
                         lost to it (mosquitto.replay_messages, mosquitto.replay_mib)"
                    ),
                ),
                Notice::Losing => (
                    Level::Error,
                    format!(
                        "what is kept for {id} has reached its bounds: the oldest messages are lost to it"
                    ),
                ),
                Notice::Calm(lost) => (
                    Level::Notice,
                    format!("{id} takes messages again; {lost} are lost to it since this broker started"),
                ),
            };
            log(level, &text);
        }
    }
}
