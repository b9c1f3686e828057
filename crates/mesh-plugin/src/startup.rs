//! What must hold in the broker's configuration and cannot be asked of the broker.
//!
//! - With `per_listener_settings true` the broker looks for plugins in the listener of a client. A bridge that it
//!   runs itself has no listener, so what comes in over a link never reaches us and would go out over every other
//!   link.
//! - A plugin that is loaded before ours may answer in our place, with the same result. The policy notices that
//!   at run time too, but only once a client publishes here.
//!
//! Nor where the broker keeps its database, or whether it keeps one. The plugin API tells none of this; it is read
//! from the configuration file that the process was started with.

use std::path::{Path, PathBuf};
use std::{fs, io};

const APART: &str = "per_listener_settings true is set: the broker then calls no plugin for what its own bridges \
    bring in, and messages would circle in the mesh for ever. Remove it from the configuration";

/// An option that only our plugin has: it tells which `plugin` line is ours.
const OWN_OPTION: &str = "plugin_opt_broker_id";

/// What of the configuration matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// `per_listener_settings true`.
    apart: bool,
    /// The plugin whose options follow; not yet known to be ours.
    current: Option<String>,
    /// The plugins before ours.
    ahead: Vec<String>,
    /// Whether ours was seen.
    own: bool,
    /// `persistence true`, and where.
    persistence: bool,
    persistence_location: String,
    persistence_file: Option<String>,
    /// How many bytes the broker reads from a socket at once, if that is set.
    read_size: Option<String>,
}

/// What is wrong in the configuration of this process, a sentence each.
///
/// # Errors
///
/// Why it cannot be told, in a few words.
pub fn problems() -> Result<Vec<String>, String> {
    Ok(Findings::of_this_process()?.problems())
}

/// The database that this broker has loaded; `None` if it keeps none.
///
/// # Errors
///
/// Why it cannot be told, in a few words.
pub fn database() -> Result<Option<PathBuf>, String> {
    Ok(Findings::of_this_process()?.database())
}

/// Whether Mosquitto 2.1 or later takes more from a socket than the packet that it handles.
///
/// # Errors
///
/// Why it cannot be told, in a few words.
pub fn reads_ahead() -> Result<bool, String> {
    Ok(Findings::of_this_process()?.read_size.as_deref() != Some("1"))
}

fn configuration_file<S: AsRef<str>>(arguments: &[S]) -> Option<&str> {
    let at = arguments
        .iter()
        .position(|argument| ["-c", "--config-file"].contains(&argument.as_ref()))?;
    arguments.get(at + 1).map(AsRef::as_ref)
}

impl Findings {
    fn of_this_process() -> Result<Self, String> {
        let line = fs::read("/proc/self/cmdline").map_err(|error| format!("/proc/self/cmdline: {error}"))?;
        let arguments: Vec<_> = line
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy)
            .collect();
        let file = configuration_file(&arguments).ok_or("no configuration file among the arguments")?;
        let mut findings = Self::default();
        findings.read(Path::new(file))?;
        Ok(findings)
    }

    /// Reads one file and what it includes, in the order in which the broker does.
    fn read(&mut self, file: &Path) -> Result<(), String> {
        let problem = |error: io::Error| format!("{}: {error}", file.display());
        let text = fs::read(file).map_err(problem)?;
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((name, value)) = line.trim().split_once([' ', '\t']) else {
                continue;
            };
            if name == "include_dir" {
                for included in configurations_in(Path::new(value.trim())).map_err(problem)? {
                    self.read(&included)?;
                }
            } else {
                self.directive(name, value.trim());
            }
        }
        Ok(())
    }

    fn directive(&mut self, name: &str, value: &str) {
        match name {
            "persistence" => self.persistence = ["true", "1"].contains(&value),
            "persistence_location" => value.clone_into(&mut self.persistence_location),
            "persistence_file" => self.persistence_file = Some(value.to_owned()),
            // Two names for the same thing.
            "packet_buffer_size" | "websockets_headers_size" => self.read_size = Some(value.to_owned()),
            "per_listener_settings" => self.apart = ["true", "1"].contains(&value),
            "plugin" | "auth_plugin" | "global_plugin" | "plugin_load" if !self.own => {
                self.ahead.extend(self.current.replace(value.to_owned()));
            }
            OWN_OPTION if !self.own => {
                self.own = true;
                self.current = None;
            }
            _ => {}
        }
    }

    fn database(&self) -> Option<PathBuf> {
        let file = self.persistence_file.as_deref().unwrap_or("mosquitto.db");
        self.persistence
            .then(|| Path::new(&self.persistence_location).join(file))
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.apart {
            problems.push(APART.to_owned());
        }
        if self.own && !self.ahead.is_empty() {
            problems.push(format!(
                "a plugin that is loaded first answers in our place, and messages would circle in the mesh for \
                 ever. Put the plugin line of mesh-plugin before that of {}",
                self.ahead.join(" and ")
            ));
        }
        problems
    }
}

/// The broker reads what ends with `.conf`, sorted by name, and does not descend.
fn configurations_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(lines: &str) -> Findings {
        let mut findings = Findings::default();
        for line in lines.lines() {
            let (name, value) = line.split_once(' ').unwrap();
            findings.directive(name, value);
        }
        findings
    }

    #[test]
    fn the_file_follows_its_flag() {
        assert_eq!(
            configuration_file(&["mosquitto", "-v", "-c", "/a.conf", ""]),
            Some("/a.conf")
        );
        assert_eq!(
            configuration_file(&["mosquitto", "--config-file", "b"]),
            Some("b")
        );
        assert_eq!(configuration_file(&["mosquitto", "-p", "1883"]), None);
        assert_eq!(configuration_file(&["mosquitto", "-c"]), None);
    }

    #[test]
    fn the_last_per_listener_settings_counts() {
        assert_eq!(findings("per_listener_settings true").problems(), [APART]);
        assert_eq!(findings("per_listener_settings 1").problems(), [APART]);
        assert_eq!(
            findings("per_listener_settings true\nper_listener_settings false")
                .problems()
                .len(),
            0
        );
        assert_eq!(findings("per_listener_settings_x true").problems().len(), 0);
    }

    #[test]
    fn how_much_is_read_at_once_has_two_names() {
        for lines in [
            "websockets_headers_size 1",
            "packet_buffer_size 4096\nwebsockets_headers_size 1",
        ] {
            assert_eq!(findings(lines).read_size.as_deref(), Some("1"));
        }
        let later = "websockets_headers_size 1\npacket_buffer_size 4096";
        assert_eq!(findings(later).read_size.as_deref(), Some("4096"));
    }

    #[test]
    fn our_plugin_must_be_the_first() {
        let ours = "plugin ours.so\nplugin_opt_auth allow\nplugin_opt_broker_id b1\nplugin_opt_acl allow";
        assert_eq!(findings(ours).problems(), Vec::<String>::new());
        assert_eq!(
            findings(&format!("{ours}\nplugin other.so")).problems(),
            Vec::<String>::new()
        );
        for name in ["plugin", "auth_plugin", "global_plugin"] {
            let problems = findings(&format!("{name} other.so\nplugin_opt_x y\n{ours}")).problems();
            assert!(problems[0].ends_with("before that of other.so"), "{problems:?}");
        }
        let problems = findings(&format!("plugin a.so\nplugin b.so\n{ours}")).problems();
        assert!(
            problems[0].ends_with("before that of a.so and b.so"),
            "{problems:?}"
        );
    }

    #[test]
    fn included_files_are_read_in_order() {
        let folder = std::env::temp_dir().join(format!("mesh-plugin-startup-{}", std::process::id()));
        let conf_d = folder.join("conf.d");
        fs::create_dir_all(&conf_d).unwrap();
        let main = folder.join("main.conf");
        let write = |file: &Path, text: String| fs::write(file, text).unwrap();
        let ours = "plugin ours.so\nplugin_opt_broker_id b1\n";
        write(
            &main,
            format!(
                "# per_listener_settings true\n  include_dir\t{} \n{ours}",
                conf_d.display()
            ),
        );
        write(&conf_d.join("z.txt"), "plugin z.so\n".to_owned());
        write(&conf_d.join("b.conf"), "plugin b.so\n".to_owned());
        write(&conf_d.join("a.conf"), "plugin a.so\n".to_owned());
        let mut findings = Findings::default();
        let result = findings.read(&main);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(result, Ok(()));
        assert_eq!(findings.ahead, ["a.so", "b.so"]);
        assert!(!findings.apart);
        assert!(findings.read(&main).is_err(), "a file that is gone is a problem");
    }
}
