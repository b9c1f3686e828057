//! What the operator asks for, and what is refused.

use mesh_model::{AdminState, BrokerId, EventName, HealthStatus};

use super::switch::Kind;
use super::{Core, Moment, Occurrence};

/// Something that the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A broker shall serve, hand over its clients, or serve nobody.
    Admin {
        /// The broker.
        broker: BrokerId,
        /// What it shall do.
        wanted: AdminState,
        /// Also if nobody else can serve.
        force: bool,
    },
    /// Clients shall go back to the most preferred broker.
    Failback,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    /// The broker has this state now, or had it before.
    Admin {
        /// The broker.
        broker: BrokerId,
        /// Its state.
        admin: AdminState,
    },
    /// A plan that sends clients back was made.
    Failback {
        /// Where they come from.
        from: BrokerId,
        /// Where they go.
        to: BrokerId,
        /// The plan's generation.
        generation: u64,
    },
}

/// Why nothing was done, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such broker.
    #[error("There is no broker {0}.")]
    UnknownBroker(BrokerId),
    /// Nobody else could serve.
    #[error("No other broker could serve if {0} did not; it can be forced.")]
    LastEligible(BrokerId),
    /// Clients are where they belong.
    #[error("No broker that is preferred to {0}, which serves, is healthy and enabled.")]
    NobodyPreferred(BrokerId),
    /// The daemon has just started.
    #[error("It is not known yet what Nginx runs; try again in a moment.")]
    NotAdopted,
}

impl Core {
    /// Does what the operator asks for, or says why not.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing has changed then.
    pub fn request(&mut self, request: Request, now: Moment) -> Result<Granted, Refusal> {
        let result = self.grant(request, now);
        self.remember();
        result
    }

    fn grant(&mut self, request: Request, now: Moment) -> Result<Granted, Refusal> {
        match request {
            Request::Admin {
                broker,
                wanted,
                force,
            } => self.set_admin(broker, wanted, force, now),
            Request::Failback => self.fail_back(now),
        }
    }

    fn set_admin(
        &mut self,
        broker: BrokerId,
        wanted: AdminState,
        force: bool,
        now: Moment,
    ) -> Result<Granted, Refusal> {
        let Some(admin) = self.admin.get(&broker).copied() else {
            return Err(Refusal::UnknownBroker(broker));
        };
        let granted = Granted::Admin {
            broker: broker.clone(),
            admin: wanted,
        };
        if admin == wanted {
            return Ok(granted);
        }
        if wanted != AdminState::Enabled && !force && self.is_last_resort(&broker) {
            return Err(Refusal::LastEligible(broker));
        }
        self.admin.insert(broker.clone(), wanted);
        self.unsaved = true;
        let mut occurrence = Occurrence::new(match wanted {
            AdminState::Enabled => EventName::BrokerEnabled,
            AdminState::Draining => EventName::BrokerDraining,
            AdminState::Disabled => EventName::BrokerDisabled,
        });
        occurrence.broker = Some(broker.clone());
        self.emit(occurrence);
        if wanted == AdminState::Enabled && self.brokers[&broker].status() != HealthStatus::Dead {
            // What is still connected there may stay.
            self.demoted.remove(&broker);
        }
        self.settle(now);
        Ok(granted)
    }

    /// Whether `broker` serves or could, and no other can without reserve.
    fn is_last_resort(&self, broker: &BrokerId) -> bool {
        let candidates = self.candidates();
        let own = &candidates[broker];
        let others = candidates.iter().filter(|(id, _)| *id != broker);
        own.is_enabled() && own.answers() && !others.into_iter().any(|(_, other)| other.is_eligible())
    }

    fn fail_back(&mut self, now: Moment) -> Result<Granted, Refusal> {
        if !self.rollout.is_adopted() {
            return Err(Refusal::NotAdopted);
        }
        let candidates = self.candidates();
        let from = self.rollout.wanted().primary.clone();
        let Some(to) = self.failback_target(&candidates) else {
            return Err(Refusal::NobodyPreferred(from));
        };
        let reason = "the operator asked for it".to_owned();
        let generation = self.switch_to(to.clone(), Kind::Failback, reason, &candidates, now);
        self.failback_to = Some(to.clone());
        self.settle(now);
        Ok(Granted::Failback { from, to, generation })
    }
}
