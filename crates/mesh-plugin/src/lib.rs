//! The Mosquitto plugin of the mesh: it makes a full mesh of the broker's own bridges free of loops.
//!
//! Every broker opens one bridge *in* from every other one (a **link**). What this plugin guarantees, on the
//! broker that loads it as the first of its plugins:
//!
//! - **Split horizon.** What came over a link goes to no link. With every pair of brokers linked, each message
//!   therefore reaches each broker exactly once, over the one link from the broker where it entered.
//! - **Only who proved it is the mesh.** Links and mesh-health log in as users of their own, with a password.
//!   Nobody else may have those names, a client id that begins with `mesh.`, or publish below `$mesh/`. A link
//!   never publishes; mesh-health publishes below `$mesh/` only.
//! - **What a broker had sent when it died arrives.** Mosquitto drops what is unread in the socket of a link that
//!   breaks; on 2.0 and Linux this plugin takes it out first and publishes it ([`salvage`]).
//! - **Others are not its business.** Their logins and accesses are allowed or left to whoever comes next
//!   (`password_file`, `acl_file`, dynamic security), as the options say.
//! - **No storm.** If another plugin answers first, this one is not asked and could not keep the first
//!   promise. It notices that, says so, and takes the broker out of the mesh until it is restarted.
//! - **The broker lives.** A panic is caught at the callback, logged with its place, and answered safely.
//!   Nothing blocks once the broker runs; the disk is left to a thread ([`retained::journal`]).
//! - **It tells.** Each second it publishes its counters, retained, under `$SYS/broker/mesh/`.
//!
//! Why the pieces are as they are: [`policy`] holds every decision as plain values and is tested without a
//! broker; [`hooks`] translates; [`ffi`] is the only place with `unsafe`, and holds the functions
//! `mosquitto_plugin_version`, `mosquitto_plugin_init` and `mosquitto_plugin_cleanup` that the broker looks for.

pub mod counters;
pub mod ffi;
pub mod hooks;
pub mod memory;
pub mod message;
pub mod options;
pub mod policy;
pub mod presence;
pub mod replication;
pub mod retained;
pub mod salvage;
pub mod stamp;
pub mod standstill;
pub mod startup;
#[cfg(test)]
mod testing;
pub mod wills;
