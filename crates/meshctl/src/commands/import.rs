//! `meshctl import`: takes over the configuration of a Mosquitto that is there already.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use mesh_model::names::{HEALTH_USER, LINK_USER};
use mesh_runtime::config::Problem;
use mesh_runtime::{Config, ConfigError, atomic_file};

use crate::mosquitto_conf::{Conf, Directive};
use crate::own_directives;
use crate::password_file::PasswordFile;
use crate::takeover::{Entry, Import, Verdict};

/// The network as it is deployed, into which the configuration is put.
const TEMPLATE: &str = include_str!("../../../../deploy/mesh.toml");

/// For what has a secret in it, and for everything else.
const SECRET: u32 = 0o600;
const OPEN: u32 = 0o644;

/// Flags of `meshctl import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The configuration of Mosquitto: mosquitto.conf, or its folder; nothing is written there
    #[arg(default_value = "/etc/mosquitto")]
    from: PathBuf,

    /// The folder to write mesh.toml and its files into; absent or empty
    #[arg(long, value_name = "DIR", default_value = "mesh-import")]
    out: PathBuf,
}

/// A file to be written.
struct Output {
    path: PathBuf,
    contents: Vec<u8>,
    mode: u32,
}

/// Imports, and tells what became of everything.
pub fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let main = if args.from.is_dir() {
        args.from.join("mosquitto.conf")
    } else {
        args.from.clone()
    };
    let conf = Conf::read(&main)?;
    let refuse = |problems| ConfigError::Invalid {
        path: main.clone(),
        problems,
    };
    let brokers = template_brokers()?;
    let mut import = Import::of(&conf, &brokers[0]).map_err(refuse)?;
    let files = files(&mut import, &brokers, main.parent()).map_err(|trouble| match trouble {
        Trouble::Problems(problems) => refuse(problems).into(),
        Trouble::Other(error) => error,
    })?;
    prepare(&args.out, &main)?;
    for file in &files {
        let path = args.out.join(&file.path);
        let folder = path.parent().context("a file is in a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        atomic_file::write(&path, &file.contents, file.mode)?;
    }
    let mesh_toml = args.out.join("mesh.toml");
    let config = Config::load(&mesh_toml, [], &[])?;
    own_directives::check(&config)?;
    let has_database = files.iter().any(|file| file.path.ends_with("mosquitto.db"));
    tell(&import.account, &args.out, has_database)?;
    Ok(ExitCode::SUCCESS)
}

fn template_brokers() -> anyhow::Result<Vec<String>> {
    let template: toml_edit::DocumentMut = TEMPLATE.parse()?;
    let brokers = template["broker"].as_array_of_tables().into_iter().flatten();
    let ids: Vec<String> = brokers
        .filter_map(|broker| Some(broker["id"].as_str()?.to_owned()))
        .collect();
    ensure!(!ids.is_empty(), "the template names no broker");
    Ok(ids)
}

enum Trouble {
    Problems(Vec<Problem>),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Everything that is to be written; reads what is copied.
fn files(import: &mut Import, brokers: &[String], folder: Option<&Path>) -> Result<Vec<Output>, Trouble> {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for copied in &import.copied {
        let mode = if copied.is_secret { SECRET } else { OPEN };
        match read(&copied.by, folder) {
            Ok(contents) => files.push(output(copied.to, contents, mode)),
            Err(problem) => problems.push(problem),
        }
    }
    match users(import, folder) {
        Ok(Some(text)) => files.push(output("users", text, SECRET)),
        Ok(None) => {}
        Err(more) => problems.extend(more),
    }
    if !problems.is_empty() {
        return Err(Trouble::Problems(problems));
    }
    if let Some(path) = import.database.clone() {
        let (entry, contents) = database(&path, &brokers[0])?;
        import.account.push(entry);
        files.extend(contents.map(|bytes| output(format!("{}/mosquitto.db", brokers[0]), bytes, SECRET)));
    }
    let mut document: toml_edit::DocumentMut = import
        .mesh_toml(TEMPLATE)?
        .parse()
        .map_err(|error| anyhow::anyhow!("mesh.toml: {error}"))?;
    if files.iter().any(|file| file.path.ends_with("mosquitto.db")) {
        document["mosquitto"]["first_database"] = toml_edit::value("{broker}/mosquitto.db");
    }
    let has_own = !import.own.is_empty() || !import.bridges.is_empty() || !import.plugins.is_empty();
    if has_own {
        document["mosquitto"]["extra_dir"] = toml_edit::value("extra/{broker}");
        for (place, broker) in brokers.iter().enumerate() {
            let bridges = if place == 0 { import.bridges.as_str() } else { "" };
            for (name, text) in [
                ("own.conf", import.own.as_str()),
                ("bridges.conf", bridges),
                ("plugins.conf.off", &import.plugins),
            ] {
                if !text.is_empty() {
                    files.push(output(format!("extra/{broker}/{name}"), text, SECRET));
                }
            }
        }
    }
    let head = "# Made by `meshctl import` from the configuration of a Mosquitto, and now the one to edit.\n";
    files.push(output("mesh.toml", format!("{head}{document}"), OPEN));
    Ok(files)
}

fn output(path: impl Into<PathBuf>, contents: impl Into<Vec<u8>>, mode: u32) -> Output {
    Output {
        path: path.into(),
        contents: contents.into(),
        mode,
    }
}

/// The file that a directive names. Mosquitto takes relative paths from where it is started, which for one that was
/// started by hand is most likely beside its configuration.
fn read(directive: &Directive, folder: Option<&Path>) -> Result<Vec<u8>, Problem> {
    let path = folder.unwrap_or(Path::new("")).join(&directive.value);
    std::fs::read(&path)
        .map_err(|error| directive.problem(format!("cannot read {}: {error}", path.display())))
}

/// The users of all password files, the mesh's own left out.
fn users(import: &mut Import, folder: Option<&Path>) -> Result<Option<String>, Vec<Problem>> {
    let (mut text_of_all, mut names, mut problems) = (String::new(), Vec::new(), Vec::new());
    let password_files = std::mem::take(&mut import.password_files);
    for file in &password_files {
        let text = match read(file, folder) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        for line in text.lines() {
            let name = line.split(':').next().unwrap_or_default().to_owned();
            if line.starts_with('#') || names.contains(&name) {
                continue;
            }
            if [LINK_USER, HEALTH_USER].contains(&name.as_str()) {
                import.account.push(Entry {
                    verdict: Verdict::Left,
                    what: format!("the user {name} ({})", file.value),
                    how: "a user of the mesh has this name; give that client another".to_owned(),
                });
                continue;
            }
            text_of_all += &format!("{line}\n");
            names.push(name);
        }
        import.account.push(Entry {
            verdict: Verdict::Took,
            what: format!("users of {}", file.value),
            how: format!(
                "{}, with their passwords",
                PasswordFile::parse(&text).users().count()
            ),
        });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok((!password_files.is_empty()).then_some(text_of_all))
}

/// The database, if it can be used: the mesh-plugin reads versions 5 and 6, which Mosquitto 2 writes.
fn database(path: &Path, first: &str) -> anyhow::Result<(Entry, Option<Vec<u8>>)> {
    let entry = |verdict, how: String| Entry {
        verdict,
        what: format!("the database {}", path.display()),
        how,
    };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let how = "it is not there; Mosquitto writes it when it ends".to_owned();
            return Ok((entry(Verdict::Left, how), None));
        }
        Err(error) => bail!("cannot read the database {}: {error}", path.display()),
    };
    let is_one = bytes.starts_with(b"\0\xb5\0mosquitto db");
    let version = bytes
        .get(19..23)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_be_bytes);
    match version {
        Some(5 | 6) if is_one => {
            let how =
                format!("{first}/mosquitto.db: retained messages, sessions and what is queued for them");
            Ok((entry(Verdict::Took, how), Some(bytes)))
        }
        Some(version) if is_one => {
            let how = format!(
                "version {version} of the format; start and end Mosquitto 2 on it once, then import again"
            );
            Ok((entry(Verdict::Left, how), None))
        }
        _ => Ok((
            entry(Verdict::Left, "it is no database of Mosquitto".to_owned()),
            None,
        )),
    }
}

/// Makes the folder to write into: one that holds nothing, and is not Mosquitto's.
fn prepare(out: &Path, main: &Path) -> anyhow::Result<()> {
    let absolute = std::path::absolute(out)?;
    let source = main.canonicalize()?;
    let source = source.parent().unwrap_or(Path::new("/"));
    let existing = absolute.ancestors().find_map(|path| path.canonicalize().ok());
    ensure!(
        existing.is_none_or(|existing| !existing.starts_with(source)),
        "{} is inside {}, where nothing is written; name another folder by --out",
        out.display(),
        source.display()
    );
    if let Ok(mut entries) = std::fs::read_dir(out) {
        ensure!(
            entries.next().is_none(),
            "{} is not empty, and nothing is overwritten; name another folder by --out",
            out.display()
        );
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))
}

/// The account, what was taken first.
fn tell(account: &[Entry], out: &Path, has_database: bool) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for (verdict, word) in [
        (Verdict::Took, "took"),
        (Verdict::Changed, "changed"),
        (Verdict::Kept, "kept"),
        (Verdict::Left, "left"),
    ] {
        for entry in account.iter().filter(|entry| entry.verdict == verdict) {
            writeln!(stdout, "{word:8} {}: {}", entry.what, entry.how)?;
        }
    }
    let out = out.display();
    writeln!(stdout, "\nwrote {out}/mesh.toml; next:")?;
    writeln!(
        stdout,
        "  read what was changed and left, give the brokers their addresses in {out}/mesh.toml, then \
         meshctl check --config {out}/mesh.toml"
    )?;
    if has_database {
        writeln!(
            stdout,
            "  the database is as of when Mosquitto saved last; end that and import again for the latest"
        )?;
    }
    writeln!(
        stdout,
        "  copy all of {out} into /etc/mesh of the machine in front of the brokers; deploy-brokers.sh carries to them \
         what is theirs"
    )?;
    Ok(())
}
