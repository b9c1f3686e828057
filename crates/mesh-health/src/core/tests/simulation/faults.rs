//! What is done to the world: faults, an operator, and restarts.

use super::*;

impl World {
    pub(super) fn find(&mut self) {
        let found = Found {
            running: self.nginx_up.then(|| self.running.clone()),
            on_disk: Some(self.on_disk.clone()),
            is_current: true,
        };
        self.input(Input::Found(found));
    }

    pub(super) fn fault(&mut self) {
        let n = self.random.below(self.brokers.len() as u64) as usize;
        match self.random.below(22) {
            0..=2 => self.turn(n, Real::Gone),
            3 | 4 => self.turn(n, Real::Hung),
            5 => self.turn(n, Real::Slow),
            6..=9 => self.turn(n, Real::Up),
            10 => (0..self.brokers.len()).for_each(|n| self.turn(n, Real::Hung)),
            11 => (0..self.brokers.len()).for_each(|n| self.turn(n, Real::Up)),
            12 => self.turn_nginx(!self.nginx_up),
            13 => {
                let asleep = self.random.ms(100, 5000);
                self.now = self.now + asleep;
                self.input(Input::Lagged(asleep));
            }
            14 => self.throw_probe_out(n),
            15 | 16 => {
                let wanted = AdminState::ALL[self.random.below(3) as usize];
                let force = self.random.below(4) == 0;
                self.ask(Request::Admin {
                    broker: id(n + 1),
                    wanted,
                    force,
                });
            }
            17 => self.ask(Request::Failback),
            // A reload that got lost, or a file that somebody put back and had read.
            18 => {
                self.run_plan(self.old.0.clone());
                self.excuse = true;
            }
            19 | 20 => self.restart_quickly(n),
            _ => self.restart_daemon(),
        }
    }

    pub(super) fn turn(&mut self, n: usize, real: Real) {
        let before = std::mem::replace(&mut self.brokers[n].real, real);
        self.brokers[n].next_answer = self.now + 10 * MS;
        if real == Real::Up && before != Real::Up {
            // What it missed while it was away is brought in.
            self.brokers[n].in_sync_at = self.now + self.random.ms(0, 6000);
            self.brokers[n].told = None;
        }
        self.tell(&(id(n + 1), real));
        if real == Real::Gone && before != Real::Gone {
            self.brokers[n].boot += 1;
            self.waiting += std::mem::take(&mut self.brokers[n].sessions);
            self.throw_probe_out(n);
        }
    }

    fn throw_probe_out(&mut self, n: usize) {
        self.brokers[n].heard = None;
        self.input(Input::Probe(id(n + 1), Sign::SessionEnded));
    }

    /// A broker is back before the probe was refused, but maybe not before a client was.
    fn restart_quickly(&mut self, n: usize) {
        self.turn(n, Real::Gone);
        if self.random.below(2) == 0 {
            self.connect_clients();
        }
        self.turn(n, Real::Up);
    }

    pub(super) fn turn_nginx(&mut self, up: bool) {
        if !up {
            for broker in &mut self.brokers {
                self.waiting += std::mem::take(&mut broker.sessions);
            }
        } else if !self.nginx_up {
            self.run_plan(self.on_disk.clone());
        }
        self.nginx_up = up;
        self.excuse = true;
    }

    pub(super) fn ask(&mut self, request: Request) {
        self.is_operator = true;
        self.tell(&request);
        let before = self.core.admin.clone();
        let result = self.core.request(request.clone(), self.now);
        match (request, result) {
            (Request::Admin { broker, wanted, .. }, Ok(_)) => {
                assert_eq!(self.core.admin[&broker], wanted);
                if wanted == AdminState::Enabled && before[&broker] != wanted {
                    // Who is still connected there may stay.
                    self.owing.remove(&broker);
                    if self.core.brokers[&broker].status() != HealthStatus::Dead {
                        self.demoted.remove(&broker);
                    }
                }
            }
            (Request::Failback, Ok(Granted::Failback { to, .. })) => self.asked = Some(to),
            _ => {}
        }
        self.obey();
        self.is_operator = false;
    }

    /// The daemon is killed, in the middle of whatever it does, and started again.
    fn restart_daemon(&mut self) {
        if let Some(Installation { plan, after, .. }) = self.installing.take()
            && self.random.below(2) == 0
        {
            self.write_memory(after);
            self.on_disk = plan.clone();
            if self.random.below(2) == 0 && self.nginx_up {
                self.reload(plan);
            }
        }
        self.moving.clear();
        self.now = self.now + self.random.ms(10, 3000);
        let count = self.brokers.len();
        self.writing.clear();
        let core = Core::new(topology(count), self.rules.clone(), first_plan(count), self.now);
        self.core = core.recalling(self.kept.clone());
        self.highest = self.running.generation.max(self.on_disk.generation);
        self.excuse = true;
        // What ended a demotion may not have been kept any more.
        let again = self.kept.demoted.intersection(&self.ever_demoted);
        self.demoted.extend(again.cloned());
        let highest = self.highest;
        self.automatic.retain(|(_, generation)| *generation <= highest);
        for broker in &mut self.brokers {
            broker.heard = None;
            broker.told = None;
        }
        let known = self.kept.brokers.get(&self.running.primary);
        if known.is_none_or(|past| past.boot.is_none()) {
            // Killed before it had heard its first number: nobody can know what happened meanwhile.
            self.avoids = false;
        }
        self.find();
    }

    /// What was to be kept up to this number is on the disk.
    pub(super) fn write_memory(&mut self, number: u64) {
        while let Some((_, memory, _)) = self.writing.pop_front_if(|(first, ..)| *first <= number) {
            self.kept = memory;
        }
    }
}
