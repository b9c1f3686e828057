//! What is observed of a broker, what the operator wants of it, and what follows for the mesh.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Gives an enum its one spelling, used in JSON, in tables and in log lines alike.
macro_rules! spelled {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The spelling used on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                let words = Self::ALL.iter().map(|value| value.as_str());
                let kind = utoipa::openapi::schema::Type::String;
                let object = utoipa::openapi::ObjectBuilder::new().schema_type(kind);
                object.enum_values(Some(words)).into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(crate) use spelled;

spelled! {
    /// What is observed of a broker.
    HealthStatus {
        /// Never answered since the observer started.
        Unknown = "unknown",
        /// Answers in time.
        Healthy = "healthy",
        /// Silent for longer than usual; nothing is done yet.
        Suspect = "suspect",
        /// Refuses connections, or silent beyond the deadline.
        Dead = "dead",
        /// Answers again, but has not yet proved itself.
        Recovering = "recovering",
    }
}

spelled! {
    /// What the operator wants of a broker; independent of what is observed.
    AdminState {
        /// May serve clients.
        Enabled = "enabled",
        /// Takes no new clients and hands over those it has.
        Draining = "draining",
        /// Serves no clients.
        Disabled = "disabled",
    }
}

spelled! {
    /// The part that a broker plays for clients.
    Role {
        /// Clients are sent here.
        Primary = "primary",
        /// The next in order.
        Backup = "backup",
        /// One of the others.
        Standby = "standby",
    }
}

spelled! {
    /// The state of the whole mesh, as far as clients are concerned.
    MeshState {
        /// An eligible primary serves and the balancer confirmed it.
        Ok = "ok",
        /// A primary serves that is not eligible, or the balancer does not do as it is told.
        Degraded = "degraded",
        /// The primary is being replaced.
        FailingOver = "failing_over",
        /// No broker answers.
        NoEligibleBroker = "no_eligible_broker",
        /// Optional switches were stopped because there were too many.
        Pinned = "pinned",
    }
}

spelled! {
    /// The state of one direction between two brokers.
    LinkState {
        /// No evidence yet, or an end of the link is not healthy.
        Unknown = "unknown",
        /// Messages pass.
        Up = "up",
        /// Both ends are healthy and messages do not pass.
        Down = "down",
    }
}
