//! Durations as Mesos writes them into an executor's environment: `5secs`, `1.5mins`. Pure.

use std::time::Duration;

/// The units of Mesos' stout library, the largest first, in nanoseconds.
const UNITS: [(&str, f64); 8] = [
    ("weeks", 604_800e9),
    ("days", 86_400e9),
    ("hrs", 3_600e9),
    ("mins", 60e9),
    ("secs", 1e9),
    ("ms", 1e6),
    ("us", 1e3),
    ("ns", 1.0),
];

/// Writes a duration in the largest unit of which it holds at least one.
#[allow(
    clippy::cast_precision_loss,
    reason = "a double is what Mesos prints too"
)]
pub fn text(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    for (unit, size) in UNITS {
        if nanos >= size {
            return format!("{}{unit}", nanos / size);
        }
    }
    "0ns".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_recorded() {
        assert_eq!(text(Duration::from_secs(5)), "5secs");
        assert_eq!(text(Duration::from_secs(120)), "2mins");
        assert_eq!(text(Duration::from_secs(90)), "1.5mins");
        assert_eq!(text(Duration::from_millis(500)), "500ms");
        assert_eq!(text(Duration::ZERO), "0ns");
    }
}
