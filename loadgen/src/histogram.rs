//! A lean latency histogram: 128 classes an octave, so that a value is known to 0.8 %; and its packed form, which a report carries.
//!
//! Histograms are added, never averaged. Classes of a coarser histogram are unions of those of a finer one, so packing, adding and
//! unpacking in any order gives the same percentiles. It knows no units and no kinds.

use serde::{Deserialize, Serialize};

/// Bits of a class number within its octave: 2^7 classes an octave.
pub const FINE: u8 = 7;

/// What is beyond counts as that: ten minutes in microseconds.
pub const LONGEST: u64 = 600_000_000;

/// Counts of values by class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    precision: u8,
    /// All classes up to [`LONGEST`]; allocated with the first value, so that a kind nobody records costs nothing.
    counts: Vec<u64>,
    len: u64,
    max: u64,
    /// The first and last class that may hold something.
    used: (usize, usize),
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new(FINE)
    }
}

/// The class of a value.
fn class(value: u64, precision: u8) -> usize {
    let sub = 1u64 << precision;
    if value < 2 * sub {
        return value as usize;
    }
    let shift = u64::from(value.ilog2()) - u64::from(precision);
    (shift * sub + (value >> shift)) as usize
}

/// The highest value of a class.
fn upper(class: usize, precision: u8) -> u64 {
    let (class, sub) = (class as u64, 1u64 << precision);
    if class < 2 * sub {
        return class;
    }
    let shift = class / sub - 1;
    ((class - shift * sub + 1) << shift) - 1
}

/// The lowest value of a class.
fn lower(class: usize, precision: u8) -> u64 {
    class
        .checked_sub(1)
        .map_or(0, |below| upper(below, precision) + 1)
}

impl Histogram {
    /// An empty one with 2^`precision` classes an octave.
    pub fn new(precision: u8) -> Self {
        Self {
            precision: precision.min(FINE),
            counts: Vec::new(),
            len: 0,
            max: 0,
            used: (usize::MAX, 0),
        }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        let value = value.min(LONGEST);
        self.put(class(value, self.precision), 1);
        self.max = self.max.max(value);
    }

    fn put(&mut self, class_of: usize, n: u64) {
        if self.counts.is_empty() {
            self.counts = vec![0; class(LONGEST, self.precision) + 1];
        }
        self.counts[class_of] += n;
        self.len += n;
        self.used = (self.used.0.min(class_of), self.used.1.max(class_of));
    }

    /// Adds all of another, of the same precision or a finer one.
    pub fn add(&mut self, other: &Self) {
        debug_assert!(other.precision >= self.precision);
        for (high, n) in other.classes() {
            self.put(class(high, self.precision), n);
        }
        self.max = self.max.max(other.max);
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        if self.len > 0 {
            self.counts[self.used.0..=self.used.1].fill(0);
        }
        (self.len, self.max, self.used) = (0, 0, (usize::MAX, 0));
    }

    /// Nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many values.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The largest value, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The classes that hold something: highest value and count.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64)> {
        let range = if self.len == 0 {
            0..0
        } else {
            self.used.0..self.used.1 + 1
        };
        range
            .filter(|&at| self.counts[at] > 0)
            .map(|at| (upper(at, self.precision), self.counts[at]))
    }

    /// The value that `quantile` (0 to 1) of all don't exceed. Values of a class are taken to be spread evenly over it; the largest
    /// value is known exactly, and nothing is above it.
    pub fn at(&self, quantile: f64) -> u64 {
        let rank = ((quantile * self.len as f64).ceil() as u64).clamp(1, self.len.max(1));
        let mut seen = 0;
        for (high, n) in self.classes() {
            if seen + n >= rank {
                let low = lower(class(high, self.precision), self.precision);
                let share = (rank - seen) as f64 / n as f64;
                return (low + ((high - low) as f64 * share).round() as u64).min(self.max);
            }
            seen += n;
        }
        self.max
    }
}

/// From this precision on a packed histogram carries its percentiles; below it they would be as long as the histogram and less exact.
const TELLING: u8 = 4;

/// As serde asks for it.
fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A histogram as a report carries it, with the percentiles that everybody asks for, unless it is very coarse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// How many values.
    pub count: u64,
    /// Half were no slower. Microseconds, as all below.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub p50: u64,
    /// 90 %.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub p90: u64,
    /// 99 %.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub p99: u64,
    /// 99.9 %.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub p999: u64,
    /// The slowest.
    pub max: u64,
    /// 2^`precision` classes an octave: values below 2^(precision+1) have a class each, above them the classes double in width every
    /// octave.
    pub precision: u8,
    /// Counts class by class, from the class of 0; `-n` stands for `n` empty classes.
    pub classes: Vec<i64>,
}

impl Packed {
    /// `None` without a value. `precision` is that of the result, at most the histogram's.
    pub fn of(histogram: &Histogram, precision: u8) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let mut coarse = Histogram::new(precision.min(histogram.precision));
        coarse.add(histogram);
        let mut classes = Vec::new();
        let mut empty = 0;
        for &n in &coarse.counts[..=coarse.used.1] {
            if n == 0 {
                empty += 1;
                continue;
            }
            if empty > 0 {
                classes.push(-std::mem::take(&mut empty));
            }
            classes.push(n.cast_signed());
        }
        let at = |quantile| {
            if precision < TELLING {
                0
            } else {
                coarse.at(quantile)
            }
        };
        Some(Self {
            count: coarse.len,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: coarse.max,
            precision: coarse.precision,
            classes,
        })
    }

    /// The histogram again. What can't be in one (a file that somebody wrote by hand) is left out.
    pub fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::new(self.precision);
        let end = class(LONGEST, histogram.precision) as u64 + 1;
        let mut at = 0u64;
        for &n in &self.classes {
            if n <= 0 {
                at = at.saturating_add(n.unsigned_abs());
                continue;
            }
            if at < end {
                histogram.put(at as usize, n as u64);
            }
            at = at.saturating_add(1);
        }
        histogram.max = self.max.min(LONGEST);
        histogram
    }

    /// Both together, as precise as the coarser of the two.
    pub fn join(&self, other: &Self) -> Option<Self> {
        let precision = self.precision.min(other.precision);
        let mut sum = Histogram::new(precision);
        sum.add(&self.histogram());
        sum.add(&other.histogram());
        Self::of(&sum, precision)
    }
}

/// Joins two that may be absent.
pub fn join(a: &Option<Packed>, b: &Option<Packed>) -> Option<Packed> {
    match (a, b) {
        (Some(a), Some(b)) => a.join(b),
        (one, other) => one.as_ref().or(other.as_ref()).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_its_class() {
        for precision in [3, 6, FINE] {
            let mut last = 0;
            for value in (0..5000).chain((0..29).flat_map(|bit| [(1 << bit) - 1, 1 << bit])) {
                let high = upper(class(value, precision), precision);
                assert!(high >= value, "{value}");
                assert!(
                    high - value <= value >> precision,
                    "{value} is shown as {high}"
                );
                if value == last + 1 && value < 5000 {
                    assert!(class(value, precision) - class(last, precision) <= 1);
                }
                last = value;
            }
            assert_eq!(
                upper(class(1 << 20, precision) - 1, precision),
                (1 << 20) - 1
            );
        }
    }

    #[test]
    fn percentiles_count_values() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.at(0.5), histogram.max()), (0, 0));
        (1..=1000).for_each(|value| histogram.record(value));
        assert_eq!(histogram.at(0.0), 1);
        assert!((500..=504).contains(&histogram.at(0.5)));
        assert_eq!((histogram.at(1.0), histogram.max()), (1000, 1000));
        histogram.record(u64::MAX);
        assert_eq!(histogram.max(), LONGEST);
        histogram.clear();
        assert!(histogram.is_empty() && histogram.classes().next().is_none());
        assert_eq!(histogram, {
            let mut empty = Histogram::default();
            empty.record(1);
            empty.clear();
            empty
        });
    }

    #[test]
    fn joined_parts_equal_the_whole() {
        let mut rng = fastrand::Rng::with_seed(7);
        for precision in [3, 6, FINE] {
            let mut whole = Histogram::default();
            let mut parts = [Histogram::default(), Histogram::default()];
            for _ in 0..20_000 {
                let value = 1u64 << rng.u32(0..29);
                let value = value + rng.u64(0..value);
                whole.record(value);
                parts[rng.usize(0..2)].record(value);
            }
            let [a, b] = parts.map(|part| Packed::of(&part, precision).unwrap());
            let joined = a.join(&b).unwrap();
            assert_eq!(Some(&joined), Packed::of(&whole, precision).as_ref());
            assert_eq!(Packed::of(&joined.histogram(), precision), Some(joined));
        }
        assert_eq!(Packed::of(&Histogram::default(), 4), None);
    }

    #[test]
    fn what_cannot_be_is_left_out() {
        let odd = Packed {
            count: 1,
            p50: 0,
            p90: 0,
            p99: 0,
            p999: 0,
            max: u64::MAX,
            precision: 200,
            classes: vec![-5, 0, 3, i64::MIN, 9, i64::MIN, i64::MIN, 9],
        };
        assert_eq!(odd.histogram().len(), 3);
    }
}
