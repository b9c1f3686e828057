//! Every metric: its name, its type, its labels and its meaning. The table in `docs/METRICS.md` is made of this.

pub use mesh_runtime::metrics::Family;

pub(super) const BUILD: Family = Family::gauge(
    "mesh_build_info",
    &["version"],
    "Always 1; the version of mesh-health.",
);
pub(super) const STATE: Family = Family::gauge(
    "mesh_state",
    &["state"],
    "1 for the state of the mesh, 0 for the others.",
);
pub(super) const WANTED: Family = Family::gauge(
    "mesh_plan_generation",
    &[],
    "Generation of the plan that the balancer shall run.",
);
pub(super) const CONFIRMED: Family = Family::gauge(
    "mesh_balancer_confirmed",
    &[],
    "1 if the balancer runs the wanted plan, else 0.",
);
pub(super) const REJECTED: Family = Family::gauge(
    "mesh_balancer_error",
    &[],
    "1 while the balancer refuses a plan, cannot be told of one or does not answer, else 0.",
);
pub(super) const RUNNING: Family = Family::gauge(
    "mesh_balancer_generation",
    &[],
    "Generation that the balancer answered last.",
);
pub(super) const OLD_WORKERS: Family = Family::gauge(
    "mesh_balancer_old_workers",
    &[],
    "Workers of earlier generations that still hold sessions.",
);
pub(super) const CAN_MOVE: Family = Family::gauge(
    "mesh_balancer_can_move_sessions",
    &[],
    "1 if the balancer's sessions to a broker that no longer serves can be closed, else 0.",
);
pub(super) const HEALTH: Family = Family::gauge(
    "mesh_broker_health",
    &["broker", "health"],
    "1 for the broker's health, 0 for the others.",
);
pub(super) const ADMIN: Family = Family::gauge(
    "mesh_broker_admin",
    &["broker", "admin"],
    "1 for what the operator wants of the broker, 0 for the others.",
);
pub(super) const PRIMARY: Family = Family::gauge(
    "mesh_broker_primary",
    &["broker"],
    "1 if clients are sent to this broker, else 0.",
);
pub(super) const RTT: Family = Family::gauge(
    "mesh_broker_rtt_seconds",
    &["broker"],
    "Time from the last PINGREQ to its PINGRESP.",
);
pub(super) const CLIENTS: Family = Family::gauge(
    "mesh_broker_clients",
    &["broker"],
    "Connected clients, without sessions of the mesh itself.",
);
pub(super) const SESSIONS_LEFT: Family = Family::gauge(
    "mesh_broker_sessions_left",
    &["broker"],
    "Sessions of the balancer that are still to be moved off this broker.",
);
pub(super) const PUBLISH: Family = Family::gauge(
    "mesh_broker_publish_per_second",
    &["broker", "direction"],
    "PUBLISH packets per second, received (in) and sent (out) by the broker.",
);
pub(super) const RETAINED: Family = Family::gauge(
    "mesh_broker_retained",
    &["broker"],
    "Retained messages, without those of $SYS.",
);
pub(super) const IN_SYNC: Family = Family::gauge(
    "mesh_broker_in_sync",
    &["broker"],
    "1 if the broker has what its peers retain, 0 if not; clients are sent elsewhere then.",
);
pub(super) const LINK_UP: Family = Family::gauge(
    "mesh_link_up",
    &["from", "to"],
    "1 if canaries pass, 0 if they do not though both ends are healthy.",
);
pub(super) const LINK_LATENCY: Family = Family::gauge(
    "mesh_link_latency_seconds",
    &["from", "to"],
    "Time from publishing the last canary to its arrival.",
);
pub(super) const LINK_RECEIVED: Family = Family::counter(
    "mesh_link_received_total",
    &["from", "to"],
    "Messages over this link since its receiver started.",
);
pub(super) const LINK_BACKLOG: Family = Family::gauge(
    "mesh_link_backlog",
    &["from", "to"],
    "Messages at the link's sender that its receiver has not yet told to have.",
);
pub(super) const LINK_LOST: Family = Family::gauge(
    "mesh_link_lost",
    &["from", "to"],
    "Messages that the link's sender keeps no longer and that its receiver is not known to have.",
);
pub(super) const EVENTS: Family = Family::counter("mesh_events_total", &["event"], "Events by name.");
pub(super) const INSTALLS: Family =
    Family::counter("mesh_installs_total", &[], "Plans handed to the balancer.");
pub(super) const ANNOUNCEMENTS: Family = Family::counter(
    "mesh_announcements_total",
    &["outcome"],
    "What became of announcements by command and webhook; failed counts attempts.",
);
pub(super) const LAG: Family = Family::gauge(
    "mesh_loop_lag_max_seconds",
    &[],
    "The most that the daemon's own loop was ever late.",
);

/// Every metric, in the order in which they are told.
pub const FAMILIES: &[Family] = &[
    BUILD,
    STATE,
    WANTED,
    CONFIRMED,
    REJECTED,
    RUNNING,
    OLD_WORKERS,
    CAN_MOVE,
    HEALTH,
    ADMIN,
    PRIMARY,
    RTT,
    CLIENTS,
    SESSIONS_LEFT,
    PUBLISH,
    RETAINED,
    IN_SYNC,
    LINK_UP,
    LINK_LATENCY,
    LINK_RECEIVED,
    LINK_BACKLOG,
    LINK_LOST,
    EVENTS,
    INSTALLS,
    ANNOUNCEMENTS,
    LAG,
];
