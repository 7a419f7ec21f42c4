//! Several measurements of the same thing.

use std::time::Duration;

/// Durations, sorted.
pub struct Figures(Vec<Duration>);

impl Figures {
    /// Measures `times` times.
    pub fn of(times: usize, mut measure: impl FnMut() -> Duration) -> Self {
        (0..times).map(|_| measure()).collect()
    }

    /// The one in the middle; of an even number, the later of the two there.
    pub fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    /// The longest.
    pub fn worst(&self) -> Duration {
        self.0[self.0.len() - 1]
    }

    /// Median and extremes in seconds.
    pub fn seconds(&self) -> String {
        let [best, median, worst] = self.three().map(|figure| figure.as_secs_f64());
        format!("{median:.2} s ({best:.2} to {worst:.2})")
    }

    /// Median and extremes in milliseconds.
    pub fn millis(&self) -> String {
        let [best, median, worst] = self.three().map(|figure| figure.as_secs_f64() * 1e3);
        format!("{median:.1} ms ({best:.1} to {worst:.1})")
    }

    /// Median, 99th percentile and worst in milliseconds.
    pub fn percentiles(&self) -> String {
        let p99 = self.0[(self.0.len() * 99 / 100).min(self.0.len() - 1)];
        let [p50, p99, worst] =
            [self.median(), p99, self.worst()].map(|figure| figure.as_secs_f64() * 1e3);
        format!("{p50:.0} / {p99:.0} / {worst:.0} ms")
    }

    fn three(&self) -> [Duration; 3] {
        [self.0[0], self.median(), self.worst()]
    }
}

impl FromIterator<Duration> for Figures {
    fn from_iter<T: IntoIterator<Item = Duration>>(figures: T) -> Self {
        let mut figures: Vec<Duration> = figures.into_iter().collect();
        figures.sort();
        assert!(!figures.is_empty(), "nothing was measured");
        Self(figures)
    }
}

/// One line of the result.
pub fn line(what: &str, figure: &str, remark: &str) {
    println!("  {what:<46} {figure:<32} {remark}");
}
