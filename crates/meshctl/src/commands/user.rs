//! `meshctl user`: who may connect.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use mesh_model::names::{HEALTH_USER, LINK_USER};
use mesh_runtime::{Config, atomic_file};

use crate::find::NetworkArgs;
use crate::password_file::{PasswordFile, SALT};

/// Only who owns it may read it; brokers get copies of their own.
const MODE: u32 = 0o600;

/// Flags of `meshctl user`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, clap::Subcommand)]
enum UserCommand {
    /// Let a user connect, or change a password: asked for on a terminal, else the first line of standard input
    Add(AddArgs),
    /// Let a user connect no longer; sessions end when the brokers know
    Remove(NameArgs),
    /// List the users
    List(NetworkArgs),
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// The user's name
    name: String,

    #[command(flatten)]
    network: NetworkArgs,
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    #[command(flatten)]
    user: NameArgs,

    /// Make a password and print it, this once
    #[arg(long)]
    generate: bool,
}

/// Changes or lists users of `mosquitto.password_file`.
pub fn run(args: UserArgs) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match args.command {
        UserCommand::List(network) => {
            let (_, file) = load(&network.load()?)?;
            let mut users: Vec<&str> = file.users().collect();
            users.sort_unstable();
            for user in users {
                writeln!(out, "{user}")?;
            }
        }
        UserCommand::Remove(NameArgs { name, network }) => {
            let (path, mut file) = load(&network.load()?)?;
            ensure!(
                file.remove(&name),
                "there is no user {name}; `meshctl user list` lists them"
            );
            save(&path, &file)?;
            writeln!(out, "removed {name}; {}", next(&path))?;
        }
        UserCommand::Add(AddArgs { user, generate }) => {
            let NameArgs { name, network } = user;
            check_name(&name)?;
            let (path, mut file) = load(&network.load()?)?;
            let password = if generate { random_text()? } else { ask(&name)? };
            let was_there = file.set(&name, &password, random()?);
            save(&path, &file)?;
            if generate {
                writeln!(out, "{password}")?;
            }
            let done = if was_there {
                "changed the password of"
            } else {
                "added"
            };
            eprintln!("{done} {name}; {}", next(&path));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn next(path: &Path) -> String {
    format!(
        "brokers know it after ./deploy/deploy-brokers.sh, or where they read {} itself, after SIGHUP",
        path.display()
    )
}

fn load(config: &Config) -> anyhow::Result<(PathBuf, PasswordFile)> {
    let path = config.mosquitto.password_file.clone().with_context(|| {
        format!(
            "{} has no mosquitto.password_file; give one, and set mosquitto.allow_anonymous = false",
            config.path.display()
        )
    })?;
    ensure!(
        !path.to_string_lossy().contains("{broker}"),
        "mosquitto.password_file is another file for each broker; users of all need one without {{broker}}"
    );
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    Ok((path, PasswordFile::parse(&text)))
}

fn save(path: &Path, file: &PasswordFile) -> anyhow::Result<()> {
    atomic_file::write(path, file.text().as_bytes(), MODE)?;
    Ok(())
}

/// A name that Mosquitto can read back, and that is not the mesh's own.
fn check_name(name: &str) -> anyhow::Result<()> {
    ensure!(
        !name.is_empty() && !name.starts_with('#') && !name.contains(|c: char| c == ':' || c.is_control()),
        "{name:?} cannot be a user's name: it must not be empty, begin with # or contain : or control characters"
    );
    if [LINK_USER, HEALTH_USER].contains(&name) {
        bail!("{name} is the mesh's own; choose another name");
    }
    Ok(())
}

fn ask(name: &str) -> anyhow::Result<String> {
    let password = if std::io::stdin().is_terminal() {
        let password = rpassword::prompt_password(format!("password of {name}: "))?;
        let again = rpassword::prompt_password("again: ")?;
        ensure!(password == again, "the two are not the same; nothing is changed");
        password
    } else {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    ensure!(
        !password.is_empty(),
        "a password must not be empty; nothing is changed"
    );
    Ok(password)
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.context("cannot read /dev/urandom")?;
    Ok(bytes)
}

fn random_text() -> anyhow::Result<String> {
    let bytes: [u8; SALT] = random()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
