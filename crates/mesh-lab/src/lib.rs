//! A real mesh on this machine, with faults to inject: the one harness for tests, benches and `meshctl lab`.
//!
//! [`Lab::start`] runs stock Mosquitto brokers with the mesh-plugin, Nginx in front and mesh-health beside, as
//! child processes, and returns when every one of them answers and every link carries messages. It guarantees
//! that nothing is left behind: [`Lab::stop`] ends everything in order, dropping a [`Lab`] ends everything at
//! once, and if this process itself is killed, its [`keeper`] does.

mod control;
mod error;
mod faults;
pub mod fleet;
mod keeper;
mod lab;
mod layout;
pub mod load;
pub mod metrics;
mod net;
mod options;
pub mod ports;
mod process;
mod processes;
mod programs;
mod ready;
mod setup;
mod shared;
mod state;
mod wait;

pub use control::{Request, ask, wait_until_down};
pub use error::LabError;
pub use faults::Fault;
pub use lab::Lab;
pub use layout::{Door, MAX_BROKERS_WITH_DOORS, Ports};
pub use net::{Net, brokers_of};
pub use options::{BrokerConf, ExtraFiles, ExtraProcess, LabOptions, MAX_BROKERS, MAX_EXTRA, Progress};
pub use programs::{mosquitto as mosquitto_program, own as own_program, system as system_program};
pub use ready::links_carry;
pub use wait::{TimedOut, wait_until};
