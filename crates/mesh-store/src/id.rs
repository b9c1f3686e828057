//! Ids of rows: time first, so that the order of rows is the order of time.

/// The bits of an id that hold the source's number.
const SOURCE_BITS: u32 = 10;

/// The latest key that fits, in the year 2255.
const LAST_KEY: i64 = (1 << (62 - SOURCE_BITS)) - 1;

/// How far a source's clock may go back for its lines still to be kept in the order in which they were written. What
/// goes back further is a clock that was set.
const JITTER_US: i64 = 5_000_000;

/// The id of the row with this key, a time in microseconds since 1970, from this source.
pub const fn row_id(key: i64, source: i64) -> i64 {
    key << SOURCE_BITS | source & ((1 << SOURCE_BITS) - 1)
}

/// The key of the next line of a source, after one with the key `last`: its time in microseconds, or the next
/// microsecond after `last` where lines share a time or are slightly out of order.
pub fn next_key(last: i64, time_ns: i64) -> i64 {
    let time = (time_ns / 1000).clamp(0, LAST_KEY);
    let is_same_second = time / 1_000_000 == last / 1_000_000;
    if time <= last && (is_same_second || last - time <= JITTER_US) {
        (last + 1).min(LAST_KEY)
    } else {
        time
    }
}

/// The smallest id of a row at or after `time_ns`.
pub fn first_at(time_ns: i64) -> i64 {
    row_id((time_ns.saturating_add(999) / 1000).clamp(0, LAST_KEY), 0)
}

/// The time in the id, in nanoseconds since 1970.
pub const fn time_ns(id: i64) -> i64 {
    (id >> SOURCE_BITS) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_second_keep_their_order_and_a_clock_that_is_set_back_is_believed() {
        let second = 1_795_000_000_000_000_000;
        let first = next_key(0, second);
        assert_eq!(first, second / 1000);
        let next = next_key(first, second);
        assert_eq!(next, first + 1);
        assert_eq!(
            next_key(next, second - 1_000_000_000),
            next + 1,
            "a worker that was late"
        );
        let hour_ago = second - 3_600_000_000_000;
        assert_eq!(next_key(next, hour_ago), hour_ago / 1000);
        assert_eq!(next_key(next, i64::MIN), 0);
        assert!(row_id(next_key(0, i64::MAX), 1023) > 0);
    }

    #[test]
    fn ids_rise_with_time_and_tell_it() {
        assert!(row_id(5, 1023) < row_id(6, 0));
        assert_eq!(time_ns(row_id(7, 12)), 7000);
        assert_eq!(first_at(7001), row_id(8, 0));
    }
}
