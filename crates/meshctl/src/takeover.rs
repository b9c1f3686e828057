//! Taking over the configuration of one Mosquitto: what of it goes where, and an account of it.
//!
//! Nothing is read or written here. What came in is never opened wider: where something cannot be taken over that kept
//! clients out, the mesh keeps them out until its operator has decided.

mod access;
mod doors;

use std::path::PathBuf;

use mesh_runtime::config::Problem;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

use crate::mosquitto_conf::options::{Fate, fate};
use crate::mosquitto_conf::{Conf, Directive, Section};

/// What became of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is a setting of the mesh and does what it did.
    Took,
    /// The mesh does something like it.
    Changed,
    /// It is an own directive of brokers.
    Kept,
    /// It is not there any more.
    Left,
}

/// What became of one directive, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What became of it.
    pub verdict: Verdict,
    /// The directive and its place.
    pub what: String,
    /// What there is now, or why not.
    pub how: String,
}

/// A file that goes with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Who names it.
    pub by: Directive,
    /// Where it goes, in the folder of `mesh.toml`.
    pub to: &'static str,
    /// Whether nobody else may read it.
    pub is_secret: bool,
}

/// Everything that is taken over.
#[derive(Debug, Default)]
pub struct Import {
    /// What became of what, in the order in which it was met.
    pub account: Vec<Entry>,
    /// Files to be copied.
    pub copied: Vec<Copied>,
    /// Password files, which become one.
    pub password_files: Vec<Directive>,
    /// The database, of the first broker from now on.
    pub database: Option<PathBuf>,
    /// Own directives of every broker.
    pub own: String,
    /// Bridges, which are the first broker's.
    pub bridges: String,
    /// Plugins, which no broker loads yet.
    pub plugins: String,
    /// Section, key, value; none: the key is taken out.
    settings: Vec<(&'static str, &'static str, Option<Value>)>,
    /// The port where brokers take WebSockets.
    websockets: Option<u16>,
}

impl Import {
    /// What becomes of `conf`. The broker that bridges and the database go to is called `first` here.
    ///
    /// # Errors
    ///
    /// Every value that Mosquitto would not take.
    pub fn of(conf: &Conf, first: &str) -> Result<Self, Vec<Problem>> {
        let mut import = Self::default();
        let mut problems = Vec::new();
        problems.extend(import.doors(conf).err().into_iter().flatten());
        problems.extend(import.access(conf).err().into_iter().flatten());
        problems.extend(import.persistence(conf, first).err());
        for directive in &conf.general {
            problems.extend(import.general(directive).err());
        }
        for bridge in &conf.bridges {
            import.bridge(bridge, first);
        }
        if problems.is_empty() {
            Ok(import)
        } else {
            problems.sort();
            Err(problems)
        }
    }

    /// The text of `mesh.toml`: `template` with what was taken over.
    pub fn mesh_toml(&self, template: &str) -> anyhow::Result<String> {
        let mut document: DocumentMut = template.parse()?;
        for (section, key, value) in &self.settings {
            let table = document
                .entry(section)
                .or_insert_with(|| Item::Table(Table::new()));
            let Some(table) = table.as_table_mut() else {
                anyhow::bail!("[{section}] of the template is no table");
            };
            match value {
                Some(value) => table[*key] = Item::Value(value.clone()),
                None => {
                    table.remove(key);
                }
            }
        }
        if let Some(port) = self.websockets {
            let brokers = document["broker"].as_array_of_tables_mut();
            for broker in brokers.into_iter().flat_map(ArrayOfTables::iter_mut) {
                let address = broker["address"].as_str().unwrap_or_default();
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                broker["websockets"] = toml_edit::value(format!("{host}:{port}"));
            }
        }
        Ok(document.to_string())
    }

    fn note(&mut self, verdict: Verdict, directive: &Directive, how: impl Into<String>) {
        self.note_on(verdict, format!("{directive} ({})", directive.place()), how);
    }

    fn note_on(&mut self, verdict: Verdict, what: impl Into<String>, how: impl Into<String>) {
        self.account.push(Entry {
            verdict,
            what: what.into(),
            how: how.into(),
        });
    }

    fn set(&mut self, section: &'static str, key: &'static str, value: impl Into<Value>) {
        self.settings.push((section, key, Some(value.into())));
    }

    fn unset(&mut self, section: &'static str, key: &'static str) {
        self.settings.push((section, key, None));
    }

    fn copy(&mut self, by: &Directive, to: &'static str, is_secret: bool) {
        self.copied.push(Copied {
            by: by.clone(),
            to,
            is_secret,
        });
    }

    /// Where the database is, and that there is one from now on.
    fn persistence(&mut self, conf: &Conf, first: &str) -> Result<(), Problem> {
        let persistence = conf
            .get("persistence")
            .or_else(|| conf.get("retained_persistence"));
        if !persistence.map(switch).transpose()?.unwrap_or(false) {
            let what = persistence.map_or("no persistence".to_owned(), |directive| {
                format!("{directive} ({})", directive.place())
            });
            self.note_on(
                Verdict::Changed,
                what,
                "brokers of a mesh always keep their state",
            );
            return Ok(());
        }
        let Some(location) = conf.get("persistence_location") else {
            let how = format!(
                "without persistence_location it is not known where mosquitto.db is; copy it to {first}/mosquitto.db"
            );
            self.note_on(Verdict::Left, "the database", how);
            return Ok(());
        };
        let file = conf
            .get("persistence_file")
            .map_or("mosquitto.db", |file| &file.value);
        self.database = Some(PathBuf::from(&location.value).join(file));
        Ok(())
    }

    /// A directive about the whole broker that is not about access control.
    fn general(&mut self, directive: &Directive) -> Result<(), Problem> {
        match (directive.name.as_str(), fate(&directive.name)) {
            ("acl_file" | "allow_anonymous" | "password_file" | "per_listener_settings", _) => {}
            ("persistence" | "retained_persistence" | "persistence_location" | "persistence_file", _) => {}
            ("user", _) if directive.value == "mosquitto" => {}
            ("user", _) => self.note(
                Verdict::Left,
                directive,
                "brokers run as mosquitto; set mosquitto.user where they shall not",
            ),
            ("autosave_interval", _) => match number(directive)? {
                seconds @ 1..=86_400 => {
                    self.set("mosquitto", "autosave_interval", format!("{seconds}s"));
                    self.note(Verdict::Took, directive, "mosquitto.autosave_interval");
                }
                _ => self.note(Verdict::Changed, directive, "saved every 60 s"),
            },
            ("max_inflight_messages", _) => {
                self.at_least(directive, "max_inflight_messages", 20_000, 65_534)?
            }
            ("max_queued_messages", _) => {
                self.at_least(directive, "max_queued_messages", 100_000, 100_000_000)?;
            }
            (_, Some(Fate::Own)) => {
                self.own += &format!("{directive}\n");
                self.note(Verdict::Kept, directive, "an own directive of every broker");
            }
            (_, None) => {
                self.own += &format!("{directive}\n");
                let how = "an own directive of every broker, though not known here; a broker that does not know it \
                           either will not start";
                self.note(Verdict::Kept, directive, how);
            }
            (_, Some(Fate::Mesh(why) | Fate::Without(why) | Fate::Never(why))) => {
                self.note(Verdict::Left, directive, why);
            }
            (_, Some(Fate::Setting(key))) => self.note(Verdict::Left, directive, format!("see {key}")),
        }
        Ok(())
    }

    /// A bound on messages, which holds for links too and so must not be below the mesh's own. 0 is no bound.
    fn at_least(
        &mut self,
        directive: &Directive,
        key: &'static str,
        ours: i64,
        most: i64,
    ) -> Result<(), Problem> {
        let value = match number(directive)? {
            0 => most,
            value => value.min(most),
        };
        if value > ours {
            self.set("mosquitto", key, value);
            self.note(Verdict::Took, directive, format!("mosquitto.{key} = {value}"));
        } else {
            let how = format!("{ours}, since it holds for links too, and they must not wait");
            self.note(Verdict::Changed, directive, how);
        }
        Ok(())
    }

    /// A bridge to a broker outside. Were it every broker's, what crosses it would cross it five times.
    fn bridge(&mut self, section: &Section, first: &str) {
        let Some(head) = &section.head else { return };
        self.bridges += &format!("{head}\n");
        let mut files = Vec::new();
        for option in &section.options {
            self.bridges += &format!("{option}\n");
            if [
                "bridge_cafile",
                "bridge_capath",
                "bridge_certfile",
                "bridge_keyfile",
            ]
            .contains(&option.name.as_str())
            {
                files.push(option.value.as_str());
            }
        }
        self.bridges.push('\n');
        let mut how = format!("{first}'s alone, or messages would cross it once for each broker");
        if !files.is_empty() {
            how += &format!("; its machine needs {}", files.join(" and "));
        }
        self.note(Verdict::Kept, head, how);
    }
}

/// The value of a switch.
fn switch(directive: &Directive) -> Result<bool, Problem> {
    let wrong = || directive.problem(format!("must be true or false, not {:?}", directive.word()));
    directive.switch().ok_or_else(wrong)
}

/// The value of a number, 0 or more.
fn number(directive: &Directive) -> Result<i64, Problem> {
    let number = directive.word().parse::<u32>().map(i64::from);
    number.map_err(|_| directive.problem(format!("must be a whole number, not {:?}", directive.word())))
}
