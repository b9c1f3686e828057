//! The scenarios, one a file. Each starts a network of its own, does to it what it is about, and says what it found.

mod client_failover;
mod conformance;
mod crowd;
mod failure;
mod ground;
mod network_recovery;
mod replication;
mod retained;
mod session_state;

use std::time::Duration;

use clap::ValueEnum;
use mesh_chaos::Network;
use mesh_lab::{Lab, LabOptions, Net};

use crate::story::Story;

/// How the scenarios run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where a network of their own lives.
    pub net: Net,
    /// The network that is deployed, if they take place in that.
    pub deployed: Option<Network>,
    /// The large counts.
    pub long: bool,
    /// Of `failure`: between two faults.
    pub every: Option<Duration>,
    /// Of `failure`: for how long.
    pub lasts: Option<Duration>,
}

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Each broker to all five, each QoS: none missing, none twice, in order
    Replication,
    /// What is set, changed and cleared is so on every broker, also on one that was away
    Retained,
    /// Brokers fail in turn under hundreds of clients: nothing that was acknowledged is lost
    Failure,
    /// Clients of four libraries come back by themselves when primaries die
    ClientFailover,
    /// The network between brokers fails in all its ways, and afterwards everyone has everything (with --netns)
    NetworkRecovery,
    /// What of a session survives a restart, kill -9 with each way to save, and a failover
    SessionState,
    /// What clients see of MQTT: a stock broker, and the mesh through Nginx, with every difference
    Conformance,
    /// 5,000 idle clients through Nginx on a primary that dies: all come back, and nothing runs out
    Crowd,
}

impl Scenario {
    /// Why it cannot run there, if it cannot.
    pub fn hindrance(self, settings: &Settings) -> Option<&'static str> {
        match self {
            Self::NetworkRecovery if settings.deployed.is_none() && settings.net != Net::Namespaces => {
                Some("brokers on loopback cannot be cut off from each other; it needs --netns or --vm")
            }
            Self::Crowd if settings.deployed.is_some() => Some(
                "5,000 clients of one machine need its ports and files for themselves; it needs --lab or --netns",
            ),
            Self::Replication | Self::Conformance => None,
            _ if settings
                .deployed
                .as_ref()
                .is_some_and(|network| !network.can_break()) =>
            {
                Some("it breaks brokers, whose machines are not to be reached (--hands-off)")
            }
            _ => None,
        }
    }

    /// Runs it and returns its story.
    pub async fn run(self, settings: Settings) -> Story {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        let about = help.map(ToString::to_string).unwrap_or_default();
        let mut story = Story::begin(value.as_ref().map_or("", |value| value.get_name()), &about);
        let result = match self {
            Self::Replication => replication::run(&mut story, settings).await,
            Self::Retained => retained::run(&mut story, settings).await,
            Self::Failure => failure::run(&mut story, settings).await,
            Self::NetworkRecovery => network_recovery::run(&mut story, settings).await,
            Self::SessionState => session_state::run(&mut story, settings).await,
            Self::Conformance => conformance::run(&mut story, settings).await,
            Self::Crowd => crowd::run(&mut story, settings).await,
            Self::ClientFailover => client_failover::run(&mut story, settings).await,
        };
        story.end(result);
        story
    }
}

/// For what must happen; it is only used up where something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Five brokers with everything.
async fn network(story: &mut Story, settings: &Settings) -> anyhow::Result<Lab> {
    story.say("starting five brokers, Nginx and mesh-health");
    let options = LabOptions {
        net: settings.net,
        ..LabOptions::default()
    };
    Ok(Lab::start(options).await?)
}
