//! The middle of what several rounds have shown, and how sure it is.

use std::fmt;

use serde::Serialize;

/// It is missed on either side with this probability at most.
const DOUBT: f64 = 0.025;

/// The median of some rounds, and between what the median of very many rounds lies with 95 % certainty.
///
/// The bounds are two of the values themselves, whatever their distribution: of `n` values, so many lie below the true
/// median as heads come in `n` throws of a coin (the sign test's confidence interval; W. J. Conover, Practical
/// Nonparametric Statistics, section 3.2). Less than six values are not enough for such bounds: then they are the
/// least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Middle {
    /// The middle value, or the mean of the two middle values; NaN if there is none.
    pub median: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

impl Middle {
    /// Of these values.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: Option<usize>| place.and_then(|at| values.get(at)).copied().unwrap_or(f64::NAN);
        let count = values.len();
        let outside = outside(count);
        Self {
            median: f64::midpoint(at(Some(count / 2)), at(count.checked_sub(count / 2 + 1))),
            low: at(Some(outside)),
            high: at(count.checked_sub(outside + 1)),
        }
    }

    /// If every value is known.
    pub fn of_known(values: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let values: Option<Vec<f64>> = values.collect();
        values.map(|values| Self::of(values.into_iter()))
    }
}

impl fmt::Display for Middle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, low, high } = self;
        f.pad(&format!("{median:.2} ({low:.2}-{high:.2})"))
    }
}

/// So many of `count` sorted values lie outside of the bounds, at either end.
fn outside(count: usize) -> usize {
    // Of all throws of so many coins, the share with a given number of heads, beginning with none.
    let mut share = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let (mut sum, mut heads) = (0.0, 0);
    while heads < count && sum + share <= DOUBT {
        sum += share;
        share *= (count - heads) as f64 / (heads + 1) as f64;
        heads += 1;
    }
    heads.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::{Middle, outside};

    #[test]
    fn bounds_are_those_of_the_tables() {
        // Conover's table A3 for p = 0.5: the ranks of the bounds, from 1, are one more than these.
        for (count, expected) in [(1, 0), (5, 0), (6, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7)] {
            assert_eq!(outside(count), expected, "{count} values");
        }
        let middle = Middle::of((1..=15).rev().map(f64::from));
        assert_eq!((middle.low, middle.median, middle.high), (4.0, 8.0, 12.0));
        assert_eq!(middle.to_string(), "8.00 (4.00-12.00)");
        assert_eq!(Middle::of([1.0, 2.0, 4.0, 8.0].into_iter()).median, 3.0);
        assert!(Middle::of(std::iter::empty()).median.is_nan());
        assert_eq!(Middle::of_known([Some(1.0), None].into_iter()), None);
    }
}
