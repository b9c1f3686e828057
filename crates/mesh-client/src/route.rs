//! Where to connect next, and after which pause. Pure: time and chance are given.

use std::time::Duration;

/// A connection that lasted so long was a good one; a shorter one counts as a failed attempt.
pub(crate) const SETTLED: Duration = Duration::from_secs(10);

/// Upper bound of the first pause; doubled with each round of failures.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Addresses in order of preference, and how far down the list we are.
#[derive(Debug)]
pub(crate) struct Route {
    addresses: Vec<(String, u16)>,
    longest_pause: Duration,
    place: usize,
    /// Rounds through all addresses without a good connection.
    failures: u32,
}

impl Route {
    pub(crate) fn new(addresses: Vec<(String, u16)>, longest_pause: Duration) -> Self {
        Self {
            addresses,
            longest_pause,
            place: 0,
            failures: 0,
        }
    }

    /// Where to connect now.
    pub(crate) fn address(&self) -> &(String, u16) {
        &self.addresses[self.place]
    }

    /// A connection ended that lasted for `lasted`, or an attempt failed. Returns the pause before the next attempt.
    ///
    /// After a good connection everything begins at the most preferred address; after another one the next has its
    /// turn, without a pause. `chance`, from 0 to below 1, is the share of the longest pause that is waited (full
    /// jitter): all clients of a dead broker are cut in the same millisecond, and shall not come back in the same.
    pub(crate) fn lost(&mut self, lasted: Duration, chance: f64) -> Duration {
        let was_good = lasted >= SETTLED;
        if was_good {
            (self.place, self.failures) = (0, 0);
        } else {
            self.place = (self.place + 1) % self.addresses.len();
            if self.place > 0 {
                return Duration::ZERO;
            }
        }
        let most = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        most.min(self.longest_pause).mul_f64(chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: f64 = 1.0;

    fn route(addresses: usize) -> Route {
        let addresses = (1..=addresses).map(|n| (format!("broker{n}"), 1883)).collect();
        Route::new(addresses, Duration::from_secs(5))
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_chance_spreads_them() {
        let mut route = route(1);
        let pauses: Vec<_> = (0..40)
            .map(|_| route.lost(Duration::ZERO, ALL).as_millis())
            .collect();
        assert_eq!(pauses[..6], [200, 400, 800, 1600, 3200, 5000]);
        assert!(pauses[6..].iter().all(|pause| *pause == 5000), "{pauses:?}");
        assert_eq!(route.lost(Duration::ZERO, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_list_is_tried_in_order_without_pauses_inside() {
        let mut route = route(3);
        let mut tried = Vec::new();
        for _ in 0..6 {
            let place = route.address().0.clone();
            tried.push((place, route.lost(Duration::ZERO, ALL).as_millis()));
        }
        let expected = [
            ("broker1", 0),
            ("broker2", 0),
            ("broker3", 200),
            ("broker1", 0),
            ("broker2", 0),
            ("broker3", 400),
        ];
        let tried: Vec<_> = tried
            .iter()
            .map(|(place, pause)| (place.as_str(), *pause))
            .collect();
        assert_eq!(tried, expected);
    }

    #[test]
    fn only_a_connection_that_lasted_makes_up_for_failures() {
        let mut route = route(2);
        for _ in 0..5 {
            route.lost(Duration::ZERO, ALL);
        }
        assert_eq!(route.address().0, "broker2");
        assert_eq!(route.lost(SETTLED / 2, ALL).as_millis(), 800);
        route.lost(Duration::ZERO, ALL);
        assert_eq!(route.lost(SETTLED, ALL).as_millis(), 200);
        assert_eq!(route.address().0, "broker1");
    }
}
