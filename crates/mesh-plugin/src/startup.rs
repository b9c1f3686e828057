//! What must hold in the broker's configuration and cannot be asked of the broker.
//!
//! With `per_listener_settings true` the broker looks for plugins in the listener of a client. A bridge that it
//! runs itself has no listener, so what comes in over a link never reaches us and would go out over every
//! other link. The plugin API does not tell the setting; it is read from the configuration file that the
//! process was started with. This is the only time that the plugin touches the disk.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why `per_listener_settings true` is refused.
pub const APART: &str = "per_listener_settings true is set: the broker then calls no plugin for what its own \
    bridges bring in, and messages would circle in the mesh for ever. Remove it from the configuration";

/// Whether all listeners share one set of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listeners {
    /// They do.
    Alike,
    /// `per_listener_settings true`.
    Apart,
}

/// What the configuration of this process says.
///
/// # Errors
///
/// Why it cannot be told, in a few words.
pub fn listeners() -> Result<Listeners, String> {
    let line = fs::read("/proc/self/cmdline").map_err(|error| format!("/proc/self/cmdline: {error}"))?;
    let arguments: Vec<_> = line
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    let Some(file) = configuration_file(&arguments) else {
        // Without a file there is no plugin either; somebody embeds the broker.
        return Err("no configuration file among the arguments".to_owned());
    };
    let mut apart = false;
    read(Path::new(file), &mut apart)?;
    Ok(if apart { Listeners::Apart } else { Listeners::Alike })
}

fn configuration_file<S: AsRef<str>>(arguments: &[S]) -> Option<&str> {
    let at = arguments
        .iter()
        .position(|argument| ["-c", "--config-file"].contains(&argument.as_ref()))?;
    arguments.get(at + 1).map(AsRef::as_ref)
}

/// Reads one file and what it includes, as the broker does: the last line of a kind counts.
fn read(file: &Path, apart: &mut bool) -> Result<(), String> {
    let problem = |error: io::Error| format!("{}: {error}", file.display());
    let text = fs::read(file).map_err(problem)?;
    for directive in directives(&String::from_utf8_lossy(&text)) {
        match directive {
            Directive::PerListener(value) => *apart = value,
            Directive::IncludeDir(folder) => {
                for included in configurations_in(Path::new(folder)).map_err(problem)? {
                    read(&included, apart)?;
                }
            }
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Directive<'a> {
    PerListener(bool),
    IncludeDir(&'a str),
}

fn directives(text: &str) -> impl Iterator<Item = Directive<'_>> {
    text.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once([' ', '\t'])?;
        let value = value.trim();
        match name {
            "per_listener_settings" => Some(Directive::PerListener(["true", "1"].contains(&value))),
            "include_dir" => Some(Directive::IncludeDir(value)),
            _ => None,
        }
    })
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
    fn only_whole_directives_count() {
        let text = "# per_listener_settings true\n  per_listener_settings\ttrue \nlistener 1883\n\
                    per_listener_settings false\nper_listener_settings_x true\ninclude_dir /etc/a b";
        let found: Vec<_> = directives(text).collect();
        assert_eq!(
            found,
            [
                Directive::PerListener(true),
                Directive::PerListener(false),
                Directive::IncludeDir("/etc/a b")
            ]
        );
    }

    #[test]
    fn included_files_are_read_in_order() {
        let folder = std::env::temp_dir().join(format!("mesh-plugin-startup-{}", std::process::id()));
        let conf_d = folder.join("conf.d");
        fs::create_dir_all(&conf_d).unwrap();
        let main = folder.join("main.conf");
        let write = |file: &Path, text: String| fs::write(file, text).unwrap();
        write(
            &main,
            format!("per_listener_settings false\ninclude_dir {}\n", conf_d.display()),
        );
        write(&conf_d.join("z.txt"), "per_listener_settings false".to_owned());
        write(&conf_d.join("b.conf"), "per_listener_settings true".to_owned());
        write(&conf_d.join("a.conf"), "per_listener_settings false".to_owned());
        let mut apart = false;
        let result = read(&main, &mut apart);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((result, apart), (Ok(()), true));
        assert!(
            read(&main, &mut apart).is_err(),
            "a file that is gone is a problem"
        );
    }
}
