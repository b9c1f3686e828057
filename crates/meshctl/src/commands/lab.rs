//! `meshctl lab`: the whole network on this machine.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;
use mesh_lab::{Fault, Lab, LabOptions, MAX_BROKERS, MAX_BROKERS_WITH_DOORS, Net, Request};
use mesh_model::BrokerId;
use mesh_runtime::shutdown;

use crate::find::DEFAULT_STATE;

/// Flags of `meshctl lab`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct LabArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a lab and stay in the foreground until Ctrl-C, SIGTERM or `lab down`
    Up(UpArgs),
    /// Stop a running lab and wait until nothing of it is left
    Down(StateArgs),
    /// Break something in a running lab, or mend it; returns when that is done
    #[command(subcommand)]
    Fault(FaultCommand),
}

#[derive(Debug, clap::Args)]
struct StateArgs {
    /// The state folder of the lab
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    #[command(flatten)]
    state: StateArgs,

    /// How many brokers, at most 40
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = brokers)]
    brokers: usize,

    /// The balancer's port; brokers follow, and with another port than 18830 the page is 70 above it, mesh-health 71
    #[arg(long, value_name = "P", default_value_t = 18_830)]
    base_port: u16,

    /// Give each broker a network namespace with its true address, so that it can be cut off; needs root
    #[arg(long)]
    netns: bool,

    /// Forget what an earlier lab has left in the folder
    #[arg(long)]
    fresh: bool,
}

fn brokers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MAX_BROKERS).contains(&number) => Ok(number),
        _ => Err(format!("a lab has 1 to {MAX_BROKERS} brokers")),
    }
}

#[derive(Debug, Subcommand)]
enum FaultCommand {
    /// Kill a broker (SIGKILL); it stays dead until `restart`
    Kill(ProcessArgs),
    /// Stop a broker in its tracks (SIGSTOP): it keeps its connections and answers nothing
    Hang(ProcessArgs),
    /// Let a hung broker go on
    Resume(ProcessArgs),
    /// Start a broker again, killing what is left of it; returns when it takes connections
    Restart(ProcessArgs),
    /// Drop every packet from and to a broker, silently (lab with --netns)
    Cut(CutArgs),
    /// End cuts of a broker (lab with --netns)
    Heal(BetweenArgs),
}

#[derive(Debug, clap::Args)]
struct ProcessArgs {
    /// The broker; also `nginx`, `mesh-health`, `mesh-logs` or `mesh-dashboard`, which are started again by themselves
    #[arg(value_name = "BROKER")]
    process: String,

    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, clap::Args)]
struct CutArgs {
    #[command(flatten)]
    between: BetweenArgs,

    /// Only what that one sends to BROKER; what comes back passes
    #[arg(long, requires = "from")]
    one_way: bool,
}

#[derive(Debug, clap::Args)]
struct BetweenArgs {
    /// The broker
    broker: BrokerId,

    /// Only between BROKER and this one
    #[arg(long, value_name = "BROKER")]
    from: Option<BrokerId>,

    #[command(flatten)]
    state: StateArgs,
}

/// Runs a lab, or orders one about.
pub(crate) async fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Up(args) => up(&args).await?,
        Command::Down(args) => {
            mesh_lab::ask(&args.state, &Request::Down).await?;
            mesh_lab::wait_until_down(&args.state).await?;
        }
        Command::Fault(command) => {
            let (state, fault) = fault(command);
            mesh_lab::ask(&state, &Request::Fault(fault)).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn fault(command: FaultCommand) -> (PathBuf, Fault) {
    let on = |args: ProcessArgs, make: fn(String) -> Fault| (args.state.state, make(args.process));
    match command {
        FaultCommand::Kill(args) => on(args, |process| Fault::Kill { process }),
        FaultCommand::Hang(args) => on(args, |process| Fault::Hang { process }),
        FaultCommand::Resume(args) => on(args, |process| Fault::Resume { process }),
        FaultCommand::Restart(args) => on(args, |process| Fault::Restart { process }),
        FaultCommand::Cut(CutArgs { between, one_way }) => {
            let BetweenArgs { broker, from, state } = between;
            let fault = match from {
                Some(from) if one_way => Fault::CutWay { broker, from },
                from => Fault::Cut { broker, from },
            };
            (state.state, fault)
        }
        FaultCommand::Heal(BetweenArgs { broker, from, state }) => {
            (state.state, Fault::Heal { broker, from })
        }
    }
}

async fn up(args: &UpArgs) -> anyhow::Result<()> {
    let options = LabOptions {
        state: Some(args.state.state.clone()),
        fresh: args.fresh,
        brokers: args.brokers,
        base_port: Some(args.base_port),
        net: if args.netns {
            Net::Namespaces
        } else {
            Net::Loopback
        },
        dashboard: true,
        logs: true,
        websockets: args.brokers <= MAX_BROKERS_WITH_DOORS,
        // Somebody who has closed the terminal does not read this any more; the lab goes on.
        progress: Some(Arc::new(|line| drop(say(line)))),
        ..LabOptions::default()
    };
    // Ctrl-C during the start drops the start, which ends what it has started.
    let mut signal = std::pin::pin!(shutdown::requested());
    let lab = tokio::select! {
        lab = Lab::start(options) => lab?,
        signal = &mut signal => return signal.map(drop).context("cannot wait for signals"),
    };
    say(&summary(&lab, &args.state.state)).context("cannot write to standard output")?;
    say("ready").context("cannot write to standard output")?;
    tokio::select! {
        signal = &mut signal => drop(signal.context("cannot wait for signals")?),
        () = lab.asked_to_stop() => {}
    }
    Ok(lab.stop().await?)
}

/// A line that is there at once, also where standard output is a pipe.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// What there is now and what can be done with it.
fn summary(lab: &Lab, state: &Path) -> String {
    let port = lab.balancer().port();
    let config = lab.config();
    let mut text = format!("\n  clients     {}\n", lab.balancer());
    if let Some(address) = lab.balancer_websockets() {
        text += &format!("              ws://{address} (WebSockets)\n");
    }
    for broker in config.topology.brokers() {
        let here = lab.broker(&broker.id);
        let inside = if here == broker.address {
            String::new()
        } else {
            format!("  ({})", broker.address)
        };
        text += &format!("  {:<11} {here}{inside}\n", broker.id);
    }
    let first = config.topology.ids().next().map_or("broker1", BrokerId::as_str);
    let state_flag = if state == Path::new(DEFAULT_STATE) {
        String::new()
    } else {
        format!(" --state {}", quoted(state))
    };
    text.push('\n');
    if let Some(folder) = unknown_folder() {
        text += &format!("  first       export PATH={}:\"$PATH\"\n", quoted(&folder));
    }
    text += &format!(
        "  page        {page}/\n\
         \x20 status      {url}/v1/status, or `meshctl status{state_flag}`\n\
         \x20 logs        `meshctl logs -f{state_flag}`, e.g. `meshctl logs 'level>=warn'{state_flag}`\n\
         \n\
         \x20 subscribe   mosquitto_sub -p {port} -t 'hello/#' -v\n\
         \x20 publish     mosquitto_pub -p {port} -t hello/world -m hi\n\
         \x20 break       meshctl lab fault kill {first}{state_flag}\n\
         \x20 mend        meshctl lab fault restart {first}{state_flag}\n\
         \x20 end         Ctrl-C, or `meshctl lab down{state_flag}`\n",
        page = lab.dashboard_url(),
        url = lab.health_url(),
    );
    text
}

/// The folder of this program, where a shell does not find it by its name.
fn unknown_folder() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?.canonicalize().ok()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find_map(|folder| folder.join("meshctl").canonicalize().ok());
    (found.as_ref() != Some(&own)).then(|| own.parent().map(Path::to_owned))?
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::quoted;

    #[test]
    fn a_shell_takes_paths_as_they_are() {
        for (path, expected) in [
            ("/a/b-1.2", "/a/b-1.2"),
            ("/my lab", "'/my lab'"),
            ("it's", r"'it'\''s'"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
