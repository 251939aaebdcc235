//! Rounds and medians.

use std::time::Duration;

/// The median; of an even number the upper one.
pub fn median(times: &[Duration]) -> Duration {
    quantile(times, 0.5)
}

/// The time that this share of all is not above. Zero of none.
pub fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The contestants in this round's order, so that none is always the first.
pub fn alternate<T: Copy, const N: usize>(contestants: [T; N], round: usize) -> [T; N] {
    let mut order = contestants;
    order.rotate_left(round % N);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_shrugs_off_one_outlier() {
        let times = [3, 900, 2].map(Duration::from_millis);
        assert_eq!(median(&times), Duration::from_millis(3));
        assert_eq!(quantile(&times, 0.99), Duration::from_millis(900));
        assert_eq!(median(&[]), Duration::ZERO);
    }

    #[test]
    fn each_contestant_is_first_once() {
        assert_eq!(alternate(["a", "b"], 0), ["a", "b"]);
        assert_eq!(alternate(["a", "b"], 1), ["b", "a"]);
    }
}
