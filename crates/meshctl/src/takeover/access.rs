//! Who may do what: one rule for all listeners, and never a wider one than there was.

use mesh_runtime::config::Problem;

use super::{Import, Verdict, switch};
use crate::mosquitto_conf::{Conf, Directive, Section};

const DYNAMIC_SECURITY: &str = "mosquitto_dynamic_security.so";

impl Import {
    /// What becomes of logins and rules.
    pub(super) fn access(&mut self, conf: &Conf) -> Result<(), Vec<Problem>> {
        let apart = conf.get("per_listener_settings");
        let is_apart = apart.and_then(Directive::switch).unwrap_or(false);
        if let Some(directive) = apart.filter(|_| is_apart) {
            let how = "links have no listener, so Mosquitto would not ask the mesh-plugin about them; the strictest of \
                       what listeners had holds for all now";
            self.note(Verdict::Changed, directive, how);
        }
        self.passwords(conf);
        self.rules(conf, is_apart);
        let (dynamic, foreign): (Vec<&Section>, Vec<&Section>) =
            conf.plugins.iter().partition(|section| is_dynamic(section));
        self.dynamic_security(&dynamic);
        for section in &foreign {
            self.plugin(section);
        }
        self.anonymous(conf, is_apart, !foreign.is_empty())
    }

    /// Whether clients without a name may come: only where they might everywhere, and nothing else kept them out.
    fn anonymous(&mut self, conf: &Conf, is_apart: bool, had_plugin: bool) -> Result<(), Vec<Problem>> {
        let given: Vec<&Directive> = all(conf, "allow_anonymous");
        let values: Vec<(&Directive, bool)> = given
            .iter()
            .map(|directive| Ok((*directive, switch(directive)?)))
            .collect::<Result<_, Problem>>()
            .map_err(|problem| vec![problem])?;
        let listeners = conf.listeners.iter().filter(|section| section.head.is_some());
        let listeners: Vec<&Section> = listeners.collect();
        let is_local_only = listeners.is_empty() && conf.listeners[0].options.is_empty();
        let wanted = match values.last() {
            None => is_local_only,
            Some((_, last)) if !is_apart => *last,
            // A listener that says nothing of it does not allow it.
            Some(_) => values.len() >= listeners.len() && values.iter().all(|(_, value)| *value),
        };
        let certificates = conf.listeners.iter().filter_map(|section| {
            section
                .get("require_certificate")
                .or_else(|| section.get("psk_hint"))
        });
        let by_certificate = certificates.filter(|lock| lock.switch() != Some(false)).count() > 0;
        let allowed = wanted && !had_plugin && !by_certificate;
        self.set("mosquitto", "allow_anonymous", allowed);
        let now = format!("mosquitto.allow_anonymous = {allowed}");
        match values.last() {
            None => self.note_on(Verdict::Took, "no allow_anonymous", now),
            Some((directive, _)) if values.iter().all(|(_, value)| *value == allowed) => {
                self.note(Verdict::Took, directive, now);
            }
            Some((directive, _)) => {
                let how = if had_plugin {
                    "a plugin kept some out, which brokers do not load yet"
                } else if by_certificate {
                    "certificates kept some out, which Nginx does not ask for; give users passwords by `meshctl user add`"
                } else {
                    "listeners differed; clients that came without a name need one now, see `meshctl user add`"
                };
                self.note(Verdict::Changed, directive, format!("{now}: {how}"));
            }
        }
        Ok(())
    }

    fn passwords(&mut self, conf: &Conf) {
        let files = all(conf, "password_file");
        if files.is_empty() {
            return self.unset("mosquitto", "password_file");
        }
        self.set("mosquitto", "password_file", "users");
        let is_one = files.iter().all(|file| file.value == files[0].value);
        for file in &files {
            let (verdict, how) = if is_one {
                (Verdict::Took, "mosquitto.password_file = \"users\"")
            } else {
                let how = "mosquitto.password_file = \"users\", which has the users of all; of two with a name the first";
                (Verdict::Changed, how)
            };
            self.note(verdict, file, how);
        }
        self.password_files = files.into_iter().cloned().collect();
    }

    fn rules(&mut self, conf: &Conf, is_apart: bool) {
        let files = all(conf, "acl_file");
        let Some(first) = files.first() else {
            return self.unset("mosquitto", "acl_file");
        };
        self.set("mosquitto", "acl_file", "acl");
        self.copy(first, "acl", true);
        let listeners = conf.listeners.iter().filter(|section| section.head.is_some());
        if is_apart && files.len() < listeners.count() {
            let how = "mosquitto.acl_file = \"acl\", for clients of all listeners now";
            self.note(Verdict::Changed, first, how);
        } else {
            self.note(Verdict::Took, first, "mosquitto.acl_file = \"acl\"");
        }
        for file in files.iter().filter(|file| file.value != first.value) {
            let how = format!(
                "rules hold for all listeners, and those of {} are taken; put what is missing there",
                first.value
            );
            self.note(Verdict::Left, file, how);
        }
    }

    fn dynamic_security(&mut self, sections: &[&Section]) {
        let file = sections
            .iter()
            .find_map(|section| section.get("plugin_opt_config_file"));
        let Some((section, file)) = sections.first().zip(file) else {
            return self.unset("mosquitto", "dynamic_security_file");
        };
        self.set("mosquitto", "dynamic_security_file", "dynamic-security.json");
        self.copy(file, "dynamic-security.json", true);
        if let Some(head) = &section.head {
            self.set("mosquitto", "dynamic_security_plugin", head.value.clone());
            let how = "mosquitto.dynamic_security_file; each broker has its own copy, and what is changed through \
                       $CONTROL is changed at one broker";
            self.note(Verdict::Took, head, how);
        }
    }

    /// A plugin has to be on every broker's machine before a broker may load it, or the broker does not start.
    fn plugin(&mut self, section: &Section) {
        let Some(head) = &section.head else { return };
        for directive in std::iter::once(head).chain(&section.options) {
            self.plugins += &format!("{directive}\n");
        }
        let how = "in a file of its own that no broker reads yet: once each broker's machine has the plugin, rename it \
                   to plugins.conf; it is asked after the mesh-plugin, about logins if there is a password_file, about \
                   topics if there is an acl_file";
        self.note(Verdict::Kept, head, how);
    }
}

/// Every directive `name`; with per_listener_settings each listener may have one.
fn all<'a>(conf: &'a Conf, name: &str) -> Vec<&'a Directive> {
    let general = conf.general.iter();
    general.filter(|directive| directive.name == name).collect()
}

fn is_dynamic(section: &Section) -> bool {
    let head = section.head.as_ref();
    head.is_some_and(|head| head.value.ends_with(DYNAMIC_SECURITY))
}
