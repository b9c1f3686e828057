//! `mosquitto.conf` as Mosquitto reads it (`src/conf.c` and `src/conf_includedir.c` of 2.0 and 2.1).
//!
//! A directive is a name and the rest of its line. `listener`, `connection` and `plugin` begin a section, to which
//! later directives of their kind belong, up to the end of the file that they stand in. `include_dir` is followed in
//! the main file only, and reads what ends with `.conf`, sorted.

pub mod options;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_runtime::ConfigError;
use mesh_runtime::config::Problem;

use options::Scope;

/// One line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The file that it stands in.
    pub file: Arc<Path>,
    /// Its line, counted from 1.
    pub line: usize,
    /// The first word.
    pub name: String,
    /// The rest of the line, without the blanks around it. Never empty.
    pub value: String,
}

impl Directive {
    /// The first word of the value, which is all that Mosquitto reads of a number or a switch.
    pub fn word(&self) -> &str {
        self.value.split_whitespace().next().unwrap_or_default()
    }

    /// Its value as a switch; `None` if it is none.
    pub fn switch(&self) -> Option<bool> {
        match self.word() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    /// Where it stands, as `file:line`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// What is wrong with it.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            line: self.line,
            origin: Some(self.place()),
            key: self.name.clone(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.value)
    }
}

/// A listener, a bridge or a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The directive that begins it; `None` for the listener that there is without one.
    pub head: Option<Directive>,
    /// What belongs to it, in order.
    pub options: Vec<Directive>,
}

impl Section {
    /// The last directive `name`, which is the one that counts.
    pub fn get(&self, name: &str) -> Option<&Directive> {
        self.options.iter().rev().find(|option| option.name == name)
    }

    /// The port of a listener, and the host that it is bound to; 0 and a path are a Unix socket.
    ///
    /// # Errors
    ///
    /// What is wrong with its line.
    pub fn port_and_host(&self) -> Result<(u16, Option<&str>), Problem> {
        let number = |directive: &Directive| {
            let port = directive.word().parse();
            port.map_err(|_| directive.problem(format!("{:?} is no port", directive.word())))
        };
        match &self.head {
            Some(head) => {
                let host = head.value.split_whitespace().nth(1);
                Ok((number(head)?, host.filter(|host| !host.starts_with('#'))))
            }
            None => {
                let port = self.get("port").map_or(Ok(1883), number)?;
                Ok((port, self.get("bind_address").map(Directive::word)))
            }
        }
    }
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conf {
    /// What concerns the whole broker, and what is not known.
    pub general: Vec<Directive>,
    /// The first has no head; it exists for Mosquitto only if it has options.
    pub listeners: Vec<Section>,
    /// Bridges, each a `connection`.
    pub bridges: Vec<Section>,
    /// Plugins in the order in which they are asked.
    pub plugins: Vec<Section>,
}

impl Conf {
    /// Reads `file` and what it includes.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every line that Mosquitto would not take, or if a file cannot be read.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        reader.file(file, true)?;
        reader.finish(file)
    }

    /// Reads the files of a folder as `include_dir` does; a folder that is not there has none.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn read_included(folder: &Path) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        if folder.exists() {
            for file in included(folder)? {
                reader.file(&file, false)?;
            }
        }
        reader.finish(folder)
    }

    /// The last general directive `name`, which is the one that counts.
    pub fn get(&self, name: &str) -> Option<&Directive> {
        self.general.iter().rev().find(|directive| directive.name == name)
    }
}

/// What to do where a file cannot be read.
const HINT: &str = "give the folder or the file of a Mosquitto, as one who may read it";

/// The files of `include_dir`, in Mosquitto's order: letter by letter, without regard to case first.
fn included(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let error = |source| ConfigError::Read {
        path: folder.to_owned(),
        hint: HINT,
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.len() > ".conf".len() && bytes.ends_with(b".conf") {
            names.push(name);
        }
    }
    names.sort_by_key(|name| -> Vec<(u8, u8)> {
        let bytes = name.as_encoded_bytes().iter();
        bytes.map(|byte| (byte.to_ascii_uppercase(), *byte)).collect()
    });
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

struct Reader {
    conf: Conf,
    problems: Vec<Problem>,
}

impl Default for Reader {
    fn default() -> Self {
        let default_listener = Section {
            head: None,
            options: Vec::new(),
        };
        Self {
            conf: Conf {
                general: Vec::new(),
                listeners: vec![default_listener],
                bridges: Vec::new(),
                plugins: Vec::new(),
            },
            problems: Vec::new(),
        }
    }
}

/// The sections that directives belong to, by their places; each file begins without any.
#[derive(Default)]
struct Current {
    listener: usize,
    bridge: Option<usize>,
    plugin: Option<usize>,
}

impl Reader {
    fn file(&mut self, file: &Path, is_main: bool) -> Result<(), ConfigError> {
        let text = std::fs::read(file).map_err(|source| ConfigError::Read {
            path: file.to_owned(),
            hint: HINT,
            source,
        })?;
        let (directives, problems) = parse(file, &text);
        self.problems.extend(problems);
        let mut current = Current::default();
        for directive in directives {
            if directive.name != "include_dir" {
                self.add(&mut current, directive);
            } else if is_main {
                for file in included(Path::new(&directive.value))? {
                    self.file(&file, false)?;
                }
            } else {
                self.problems
                    .push(directive.problem("Mosquitto follows it in its main file only"));
            }
        }
        Ok(())
    }

    fn add(&mut self, current: &mut Current, directive: Directive) {
        let begin = |sections: &mut Vec<Section>, head| {
            sections.push(Section {
                head: Some(head),
                options: Vec::new(),
            });
            sections.len() - 1
        };
        let conf = &mut self.conf;
        match directive.name.as_str() {
            "listener" => current.listener = begin(&mut conf.listeners, directive),
            "connection" => current.bridge = Some(begin(&mut conf.bridges, directive)),
            name if options::is_plugin(name) => current.plugin = Some(begin(&mut conf.plugins, directive)),
            name => {
                let (sections, at, head) = match options::scope(name) {
                    Scope::General => return conf.general.push(directive),
                    Scope::Listener => (&mut conf.listeners, Some(current.listener), "listener"),
                    Scope::Bridge => (&mut conf.bridges, current.bridge, "connection"),
                    Scope::Plugin => (&mut conf.plugins, current.plugin, "plugin"),
                };
                match at {
                    Some(at) => sections[at].options.push(directive),
                    None => {
                        let why = format!("stands before any `{head}` of its file; Mosquitto refuses that");
                        self.problems.push(directive.problem(why));
                    }
                }
            }
        }
    }

    fn finish(self, path: &Path) -> Result<Conf, ConfigError> {
        if self.problems.is_empty() {
            return Ok(self.conf);
        }
        Err(ConfigError::Invalid {
            path: path.to_owned(),
            problems: self.problems,
        })
    }
}

/// The directives of one file's `text`, and what cannot be one.
fn parse(file: &Path, text: &[u8]) -> (Vec<Directive>, Vec<Problem>) {
    let file: Arc<Path> = file.into();
    let (mut directives, mut problems) = (Vec::new(), Vec::new());
    for (index, bytes) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(bytes);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let directive = Directive {
            file: file.clone(),
            line: index + 1,
            name: name.to_owned(),
            value: value.trim().to_owned(),
        };
        if std::str::from_utf8(bytes).is_err() {
            problems.push(directive.problem("is not UTF-8"));
        } else if directive.value.is_empty() {
            problems.push(directive.problem("has no value"));
        } else {
            directives.push(directive);
        }
    }
    (directives, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(directives: &[Directive]) -> Vec<String> {
        directives.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lines_become_directives_and_bad_ones_are_told_with_their_place() {
        let text =
            b"# comment\r\nallow_anonymous false\r\n\n  acl_file\t/a b/acl  \nuser\npassword_file /\xff\n";
        let (directives, problems) = parse(Path::new("/x.conf"), text);
        assert_eq!(texts(&directives), ["allow_anonymous false", "acl_file /a b/acl"]);
        assert_eq!(directives[1].place(), "/x.conf:4");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "/x.conf:5: user: has no value",
                "/x.conf:6: password_file: is not UTF-8"
            ]
        );
    }

    #[test]
    fn directives_belong_to_sections_up_to_the_end_of_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let conf_d = folder.path().join("conf.d");
        std::fs::create_dir(&conf_d).unwrap();
        let main = folder.path().join("mosquitto.conf");
        let text = "listener 1883\nmax_connections 5\nconnection cloud\naddress a:1883\n\
                    include_dir INCLUDED\ncertfile /c\ntopic # out\n";
        std::fs::write(&main, text.replace("INCLUDED", conf_d.to_str().unwrap())).unwrap();
        for (name, text) in [
            ("b.conf", "listener 2000\n"),
            ("A.conf", "listener 2001\nplugin p.so\nplugin_opt_abc x\n"),
            ("a.conf", "max_qos 1\nlistener 2002\n"),
            (".conf", "bad\n"),
            ("c.txt", "bad\n"),
        ] {
            std::fs::write(conf_d.join(name), text).unwrap();
        }
        let conf = Conf::read(&main).unwrap();
        let listeners: Vec<_> = conf
            .listeners
            .iter()
            .map(|listener| {
                (
                    listener.head.as_ref().map(|head| head.value.as_str()),
                    texts(&listener.options),
                )
            })
            .collect();
        assert_eq!(
            listeners,
            [
                (None, vec!["max_qos 1".to_owned()]),
                (
                    Some("1883"),
                    vec!["max_connections 5".to_owned(), "certfile /c".to_owned()]
                ),
                (Some("2001"), vec![]),
                (Some("2002"), vec![]),
                (Some("2000"), vec![]),
            ]
        );
        assert_eq!(texts(&conf.bridges[0].options), ["address a:1883", "topic # out"]);
        assert_eq!(texts(&conf.plugins[0].options), ["plugin_opt_abc x"]);

        for bad in ["topic # out\n", "plugin_opt_abc x\n", "include_dir /tmp\n"] {
            std::fs::write(conf_d.join("z.conf"), bad).unwrap();
            let error = Conf::read(&main).unwrap_err().to_string();
            assert!(error.contains("z.conf:1: "), "{error}");
        }
    }
}
