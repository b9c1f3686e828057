//! What brokers answer: probes, whether they have what their peers have, the number of their start.

use super::*;

impl World {
    pub(super) fn answer(&mut self, n: usize) {
        let late = match self.brokers[n].real {
            Real::Slow => self.random.ms(300, 950),
            _ => self.random.ms(180, 220),
        };
        self.brokers[n].next_answer = self.now + late;
        match self.brokers[n].real {
            Real::Up | Real::Slow => {
                self.hear_boot(n);
                self.input(Input::Probe(id(n + 1), Sign::Answer { rtt: MS }));
                self.hear_boot(n);
                self.hear_sync(n);
                if self.random.below(4) == 0 {
                    self.input(Input::Probe(id(n + 1), Sign::RoundTrip));
                }
            }
            Real::Gone => self.input(Input::Probe(id(n + 1), Sign::Refused("refused".to_owned()))),
            Real::Hung => {}
        }
    }

    fn hear_sync(&mut self, n: usize) {
        let in_sync = self.now >= self.brokers[n].in_sync_at;
        if self.brokers[n].tells {
            self.brokers[n].told = Some(in_sync);
            let retained = Retained {
                count: 1,
                digest: None,
                in_sync,
            };
            self.input(Input::Reading {
                broker: id(n + 1),
                reading: Reading::Retained(retained),
                kept: false,
            });
        }
    }

    /// Whether the broker has told that it lacks something, or that it does not.
    pub(super) fn has_all(&self, id: &BrokerId) -> Option<bool> {
        let n = self.core.topology.priority(id).unwrap();
        self.brokers[n].told
    }

    /// The number of a start comes before the first answer, after it, or a little later.
    fn hear_boot(&mut self, n: usize) {
        let boot = self.brokers[n].boot;
        if self.brokers[n].heard != Some(boot) && self.random.below(3) == 0 {
            self.brokers[n].heard = Some(boot);
            // Nginx may have come to avoid a broker that was started again.
            self.excuse |= self.core.brokers[&id(n + 1)].past().boot != Some(boot);
            self.input(Input::Probe(id(n + 1), Sign::Boot(boot)));
        }
    }
}
