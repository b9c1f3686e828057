//! What the broker asks: may this client connect, publish, subscribe, receive?

use std::ffi::c_int;

use mesh_model::names::TOPIC_PREFIX;

use super::{Plugin, printable};
use crate::ffi::{Access, AclCheck, BasicAuth, Level, abi, log};
use crate::policy::{self, Admission, Fate, Login, Shown, Verdict};
use crate::replication::Content;

impl Plugin {
    /// BASIC_AUTH.
    pub(crate) fn basic_auth(&self, login: &BasicAuth<'_>) -> c_int {
        let id = login.client.id().unwrap_or_default();
        let asked = Login {
            client: login.client.key(),
            id,
            user: login.user,
            password: login.password,
            clean_session: login.client.clean_session(),
        };
        let admission = self.policy.borrow_mut().basic_auth(&asked, self.now());
        match admission {
            Admission::Mesh => {
                self.contexts.keep(login.client);
                abi::SUCCESS
            }
            Admission::Accept => abi::SUCCESS,
            Admission::Defer => abi::ERR_PLUGIN_DEFER,
            Admission::Refuse(why) => {
                log(
                    Level::Warning,
                    &format!("refused client \"{}\": {why}", printable(id)),
                );
                abi::ERR_AUTH
            }
        }
    }

    /// ACL_CHECK.
    pub(crate) fn acl_check(&self, check: &AclCheck<'_>) -> c_int {
        #[cfg(feature = "panic-on-demand")]
        assert!(check.topic() != b"mesh-test/panic-acl", "panic on demand");
        let client = check.client.key();
        let user = || check.client.user();
        let mut policy = self.policy.borrow_mut();
        let verdict = match check.access {
            Access::Read => {
                policy.delivers(client, || check.topic().starts_with(b"$SYS"));
                if check.qos == 2 {
                    let shown = Shown {
                        topic: check.topic(),
                        length: check.length,
                        retain: check.retain,
                    };
                    policy.released(check.topic_key, &shown);
                }
                if policy.awaits_will() {
                    let (topic, now) = (check.topic_key, self.now());
                    policy.will_routed(
                        (client, user()),
                        topic,
                        (check.qos, check.retain),
                        &content(check),
                        now,
                    );
                }
                policy.read(client, user, check.topic_key, check.qos)
            }
            Access::Write => {
                let network = check.client.is_network();
                let verdict = policy.write(client, user(), network, check.topic());
                if verdict != Verdict::Refuse && network && policy.may_withhold() {
                    let id = check.client.id().unwrap_or_default();
                    match policy.fate(client, id, (check.qos, check.retain), &content(check), self.now()) {
                        Fate::Pass => verdict,
                        Fate::Drop | Fate::Hold => Verdict::Refuse,
                    }
                } else {
                    verdict
                }
            }
            Access::Subscribe => policy.subscribe(client, user(), check.topic()),
            Access::Other => policy.other_access(client, user()),
        };
        let sends = policy.replication().has_sends();
        drop(policy);
        if sends {
            self.send_kept();
        }
        acl_code(verdict)
    }

    /// ACL_CHECK, after a panic: users of the mesh get nothing, and nobody writes to its topics.
    pub(crate) fn acl_check_failed(&self, check: &AclCheck<'_>) -> c_int {
        if check.access == Access::Write {
            // Or the message that follows would look like a bypass.
            if let Ok(mut policy) = self.policy.try_borrow_mut() {
                policy.asked_to_publish(check.client.key());
            }
            if check.topic().starts_with(TOPIC_PREFIX.as_bytes()) {
                return abi::ERR_ACL_DENIED;
            }
        }
        acl_code(policy::stranger(&self.options, check.client.user()))
    }
}

/// What can be seen of a message in a check: all but its properties.
fn content<'a>(check: &AclCheck<'a>) -> Content<'a> {
    Content {
        topic: check.topic(),
        payload: check.payload(),
        properties: &[],
    }
}

fn acl_code(verdict: Verdict) -> c_int {
    match verdict {
        Verdict::Accept => abi::SUCCESS,
        Verdict::Refuse => abi::ERR_ACL_DENIED,
        Verdict::Defer => abi::ERR_PLUGIN_DEFER,
    }
}
