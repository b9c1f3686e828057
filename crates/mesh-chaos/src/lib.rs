//! Faults without end against a live mesh, a fleet of clients through them, and the account of what became of every
//! message.
//!
//! [`run`] puts the faults of a [`Schedule`] in place, one after the other, while a [`Fleet`] publishes and subscribes.
//! Everything that happens to a message is in a [`Ledger`], which says what was lost and what came twice, and why. The
//! run ends with its time or at the first broken promise, with everything needed to understand it in one folder.
//! `meshctl chaos` and the scenario `failure` are both this.

mod book;
mod evidence;
mod fleet;
mod ledger;
mod machines;
mod network;
mod percentiles;
mod plot;
mod report;
mod retained;
mod run;
mod schedule;

pub use book::{Book, Felt};
pub use fleet::{Fleet, FleetOptions, topic};
pub use ledger::{Cause, Ledger, Tally};
pub use machines::{Machines, Reach};
pub use network::Network;
pub use percentiles::Percentiles;
pub use report::{KindReport, Report};
pub use retained::check as retained_differs;
pub use run::{Options, Progress, Watcher, run};
pub use schedule::{Kind, Schedule, Step, Victim};

/// User name and password of clients; none: they come without a name.
pub type Login = Option<(String, String)>;
