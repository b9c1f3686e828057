//! The MQTT names that the mesh keeps for itself: users, client ids and topics.
//!
//! They are the contract between the rendered broker configuration, the plugin inside the broker and
//! mesh-health. The plugin decides from the user, which a password proves, and never from a client id, which
//! anyone can claim; client ids under [`CLIENT_ID_PREFIX`] are only *reserved* for the users below.

use crate::ids::BrokerId;
use crate::topology::Link;

/// The user that links log in with. What such a user sends came from another broker of the mesh.
pub const LINK_USER: &str = "mesh-link";

/// The user that mesh-health logs in with, for probes and canaries.
pub const HEALTH_USER: &str = "mesh-health";

/// Client ids with this prefix belong to the users above; nobody else may connect with one.
pub const CLIENT_ID_PREFIX: &str = "mesh.";

/// A client id of this prefix followed by a broker is that of its own plugin, which reads what the broker stores.
pub const READER_PREFIX: &str = "mesh.read.";

/// The user property in which a message carries its stamp through the mesh.
pub const STAMP_PROPERTY: &str = "mesh";

/// Topics with this prefix belong to the mesh; only the users above may write there.
pub const TOPIC_PREFIX: &str = "$mesh/";

/// A canary of broker `B` is published under this prefix followed by `B`.
pub const CANARY_PREFIX: &str = "$mesh/canary/";

/// The round trips of a probe of broker `B` are published under this prefix followed by `B`.
pub const PROBE_PREFIX: &str = "$mesh/probe/";

/// A test message that somebody sends to watch it arrive is published under this prefix followed by a nonce.
pub const FLOW_PREFIX: &str = "$mesh/flow/";

/// What broker `B` has seen of others' messages is told over links under this prefix followed by `B`. It and the two
/// below are between plugins: nobody else writes or sees them.
pub const SEEN_PREFIX: &str = "$mesh/seen/";

/// Retained state is compared and completed under this prefix followed by the broker that says something.
pub const SYNC_PREFIX: &str = "$mesh/sync/";

/// Which clients have connected to broker `B` is told under this prefix followed by `B`.
pub const PRESENCE_PREFIX: &str = "$mesh/presence/";

/// The plugin's own counters stand under this prefix, retained, beside the broker's.
pub const COUNTER_PREFIX: &str = "$SYS/broker/mesh/";

/// The client id under which the bridge of `link` logs in at `link.from`.
pub fn link_client_id(link: &Link) -> String {
    format!("{CLIENT_ID_PREFIX}link.{}.{}", link.from, link.to)
}

/// The client id that the bridge of `link` has inside `link.to`, the broker that runs it.
pub fn local_client_id(link: &Link) -> String {
    format!("{CLIENT_ID_PREFIX}local.{}.{}", link.from, link.to)
}

/// The client id with which the plugin of `broker` reads what that broker stores.
pub fn reader_client_id(broker: &BrokerId) -> String {
    format!("{READER_PREFIX}{broker}")
}

/// The link that a client id made by [`link_client_id`] or [`local_client_id`] belongs to.
pub fn parse_link_client_id(client_id: &str) -> Option<Link> {
    let rest = client_id.strip_prefix(CLIENT_ID_PREFIX)?;
    let pair = rest
        .strip_prefix("link.")
        .or_else(|| rest.strip_prefix("local."))?;
    let (from, to) = pair.split_once('.')?;
    Some(Link {
        from: from.parse().ok()?,
        to: to.parse().ok()?,
    })
}

/// The topic on which the canaries of `broker` are published.
pub fn canary_topic(broker: &BrokerId) -> String {
    format!("{CANARY_PREFIX}{broker}")
}

/// The topic on which a probe of `broker` publishes what it awaits itself. Links carry it to all brokers.
pub fn probe_topic(broker: &BrokerId) -> String {
    format!("{PROBE_PREFIX}{broker}")
}

/// Counters of a link at one broker, as the last part of [`link_counter_topic`].
pub mod link_counter {
    /// Messages that came over the link from the peer.
    pub const RECEIVED: &str = "received";
    /// Messages that went to the link which the peer fetches.
    pub const SENT: &str = "sent";
    /// Messages that were kept from that link because they had come over a link (split horizon).
    pub const HELD_BACK: &str = "held_back";
    /// Those of [`RECEIVED`] that were still unread when the link broke, and were taken out of its socket.
    pub const SALVAGED: &str = "salvaged";
    /// Messages that were sent to the peer again, or late, from what is kept for it.
    pub const REPLAYED: &str = "replayed";
    /// Those of [`RECEIVED`] that had been seen before, and went no further.
    pub const DUPLICATES_DROPPED: &str = "duplicates_dropped";
    /// Those of [`RECEIVED`] that were retained and older than what is retained here, and went no further.
    pub const STALE_DROPPED: &str = "stale_dropped";
    /// Messages that are kept for the peer no more and that it is not known to have. Falls when it tells that it has
    /// some of them.
    pub const LOST: &str = "lost";
    /// Messages from here that the peer has not yet told to have.
    pub const BACKLOG: &str = "backlog";
    /// 1 while what is kept for the peer nearly fills the bounds, else 0.
    pub const FILLING: &str = "filling";
}

/// The topic on which the plugin tells how many sessions of mesh users (links from peers, probes) its broker has.
pub const SESSIONS_TOPIC: &str = "$SYS/broker/mesh/sessions";

/// The topic on which the plugin tells how many of its broker's own bridges to peers are known to be connected.
/// The broker counts them among its clients, as it does the sessions of [`SESSIONS_TOPIC`].
pub const BRIDGES_TOPIC: &str = "$SYS/broker/mesh/bridges";

/// The topic on which the plugin tells how many clients are connected, without sessions of the mesh. What the broker
/// itself counts has those too, some of which last a few milliseconds, so nothing can be subtracted from it that was
/// counted at another instant.
pub const CLIENTS_TOPIC: &str = "$SYS/broker/mesh/clients";

/// The topic on which the plugin tells a number that no other start of its broker has. A broker that restarts faster
/// than its silence is noticed is known by it; nobody but the plugin can write it.
pub const BOOT_TOPIC: &str = "$SYS/broker/mesh/boot";

/// The topic on which the plugin tells about its broker's retained messages, as JSON: `count` and `digest` of those
/// that are stored, the latter equal on two brokers exactly when they hold the same, and `in_sync`, whether this
/// broker has compared itself with every peer that is there since it started or was alone; and `longest_us`, for how
/// many microseconds of processor time the plugin has held the broker up at most, since it started, in one turn of its
/// loop or one message of a peer in which something was done about that. `longest` is which that was: `tick`, or what
/// the peer's message was about.
pub const RETAINED_TOPIC: &str = "$SYS/broker/mesh/retained";

/// The topic of the counter `name` of the link from `peer`.
pub fn link_counter_topic(peer: &BrokerId, name: &str) -> String {
    format!("{COUNTER_PREFIX}link/{peer}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_again_in_its_client_ids() {
        let link = Link {
            from: "broker1".parse().unwrap(),
            to: "broker-2".parse().unwrap(),
        };
        assert_eq!(link_client_id(&link), "mesh.link.broker1.broker-2");
        assert_eq!(parse_link_client_id(&link_client_id(&link)), Some(link.clone()));
        assert_eq!(parse_link_client_id(&local_client_id(&link)), Some(link));
        for other in [
            "mesh.probe.broker1",
            "link.a.b",
            "mesh.link.a",
            "mesh.link..b",
            "mesh.link.a.B",
        ] {
            assert_eq!(parse_link_client_id(other), None, "{other}");
        }
    }
}
