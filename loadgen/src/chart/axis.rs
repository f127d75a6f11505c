//! Axes: which range a chart covers, where its ticks stand and how they read. Knows no SVG.

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Microseconds.
    Micros,
    /// Bytes.
    Bytes,
    /// Per cent.
    Percent,
    /// So many times as much.
    Ratio,
}

impl Unit {
    /// Sizes that have a name of their own, the largest first.
    fn sizes(self) -> &'static [(f64, &'static str)] {
        const KB: f64 = 1024.0;
        match self {
            Self::Count => &[(1e6, "m"), (1e3, "k"), (1.0, "")],
            Self::Micros => &[(1e6, " s"), (1e3, " ms"), (1.0, " µs")],
            Self::Bytes => &[
                (KB * KB * KB, " GB"),
                (KB * KB, " MB"),
                (KB, " KB"),
                (1.0, " B"),
            ],
            Self::Percent => &[(1.0, " %")],
            Self::Ratio => &[(1.0, "×")],
        }
    }

    /// The size to write a value in.
    fn size(self, value: f64) -> (f64, &'static str) {
        let sizes = self.sizes();
        // Up to 10,000 things are counted in full.
        let plain = self == Self::Count && value < 1e4;
        let fitting = sizes.iter().find(|&&(size, _)| value >= size);
        match fitting {
            Some(&size) if !plain => size,
            _ => sizes[sizes.len() - 1],
        }
    }

    /// A value as a reader wants it: three digits and a unit.
    pub fn show(self, value: f64) -> String {
        let (size, name) = self.size(value);
        format!("{}{name}", digits(value / size))
    }
}

/// Three digits, and none after the point that say nothing.
fn digits(value: f64) -> String {
    let places = if value.abs() >= 99.95 || (value - value.round()).abs() < 1e-9 {
        0
    } else if value.abs() >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{value:.places$}");
    if places > 0 {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// How values are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0, evenly.
    Linear,
    /// By powers of ten.
    Log,
}

/// An axis that covers some values.
#[derive(Clone, Debug)]
pub struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    unit: Unit,
    /// Where the ticks are.
    pub ticks: Vec<f64>,
}

/// 1, 2 or 5 times a power of ten, at least `value`.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= value * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

impl Axis {
    /// Covers the values with about `count` ticks. Values that aren't finite are passed over.
    pub fn covering(
        values: impl IntoIterator<Item = f64>,
        scale: Scale,
        unit: Unit,
        count: usize,
    ) -> Self {
        let (low, high) = values
            .into_iter()
            .filter(|value| value.is_finite() && (scale == Scale::Linear || *value > 0.0))
            .fold((f64::INFINITY, 0.0f64), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        match scale {
            Scale::Linear => Self::linear(high, unit, count),
            Scale::Log if high > 0.0 => Self::log(low, high, unit, count),
            Scale::Log => Self::log(1.0, 1.0, unit, count),
        }
    }

    fn linear(high: f64, unit: Unit, count: usize) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let rough = high / count.max(1) as f64;
        let step = match unit {
            // Round in the unit that the highest tick is written in.
            Unit::Bytes => {
                let (size, _) = unit.size(high);
                nice(rough / size) * size
            }
            // Half a phone isn't one.
            Unit::Count => nice(rough).max(1.0),
            _ => nice(rough),
        };
        let steps = (high / step - 1e-9).ceil().max(1.0) as usize;
        Self {
            scale: Scale::Linear,
            low: 0.0,
            high: step * steps as f64,
            unit,
            ticks: (0..=steps).map(|n| n as f64 * step).collect(),
        }
    }

    fn log(low: f64, high: f64, unit: Unit, count: usize) -> Self {
        let steps: Vec<f64> = (-3..12)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)))
            .collect();
        let below = steps.iter().rposition(|&step| step <= low).unwrap_or(0);
        let above = steps
            .iter()
            .position(|&step| step >= high)
            .unwrap_or(steps.len() - 1)
            .max(below + 1);
        let all = &steps[below..=above];
        let decades: Vec<f64> = all
            .iter()
            .copied()
            .filter(|step| {
                let power = step.log10();
                (power - power.round()).abs() < 1e-9
            })
            .collect();
        // Powers of ten alone where the finer steps would crowd, and an end that is far from one.
        let ticks = if all.len() > count + 2 && decades.len() > 1 {
            let ends = [all[0], all[all.len() - 1]];
            let far = |end: &f64| decades.iter().all(|d| (d / end).log10().abs() > 0.6);
            let mut ticks: Vec<f64> = ends.into_iter().filter(far).collect();
            ticks.extend(&decades);
            ticks.sort_by(f64::total_cmp);
            ticks
        } else {
            all.to_vec()
        };
        Self {
            scale: Scale::Log,
            low: all[0],
            high: all[all.len() - 1],
            unit,
            ticks,
        }
    }

    /// How a tick reads: on an even axis all in the unit of the highest.
    pub fn label(&self, tick: f64) -> String {
        match self.scale {
            Scale::Log => self.unit.show(tick),
            Scale::Linear if tick == 0.0 => "0".into(),
            Scale::Linear => {
                let (size, name) = self.unit.size(self.high);
                format!("{}{name}", digits(tick / size))
            }
        }
    }

    /// Where a value is, from 0 to 1.
    pub fn at(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log if value <= 0.0 => 0.0,
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        share.clamp(0.0, 1.0)
    }
}

/// Seconds between the ticks of a time axis that is `length` seconds long.
pub fn time_step(length: f64, count: usize) -> f64 {
    const STEPS: [f64; 18] = [
        0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
        7200.0, 14_400.0, 43_200.0, 86_400.0,
    ];
    STEPS
        .into_iter()
        .find(|step| length / step <= count as f64)
        .unwrap_or(length)
}

/// A moment on a time axis: `5 s`, `1:30`, `1:02:00`.
pub fn time(seconds: f64, length: f64) -> String {
    if length < 120.0 {
        return format!("{} s", (seconds * 10.0).round() / 10.0);
    }
    let whole = seconds.round() as u64;
    if length < 3600.0 {
        format!("{}:{:02}", whole / 60, whole % 60)
    } else {
        format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
    }
}

/// How long something took: `42.5 s`, `12 min 5 s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 120.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole / 60 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], scale: Scale, unit: Unit) -> Vec<String> {
        let axis = Axis::covering(values.iter().copied(), scale, unit, 5);
        axis.ticks.iter().map(|&tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round() {
        let (linear, log) = (Scale::Linear, Scale::Log);
        assert_eq!(
            labels(&[3.0, 9400.0], linear, Unit::Count),
            ["0", "2k", "4k", "6k", "8k", "10k"]
        );
        assert_eq!(labels(&[], linear, Unit::Count), ["0", "1"]);
        assert_eq!(labels(&[1.0], linear, Unit::Count), ["0", "1"]);
        assert_eq!(
            labels(&[700.0 * 1024.0 * 1024.0], linear, Unit::Bytes),
            ["0", "200 MB", "400 MB", "600 MB", "800 MB"]
        );
        assert_eq!(
            labels(&[4500.0 * 1024.0 * 1024.0], linear, Unit::Bytes)
                .last()
                .unwrap(),
            "5 GB"
        );
        assert_eq!(
            labels(&[90.0, 1_500_000.0], log, Unit::Micros),
            ["100 µs", "1 ms", "10 ms", "100 ms", "1 s"]
        );
        assert_eq!(
            labels(&[90.0, 3_500_000.0], log, Unit::Micros)
                .last()
                .unwrap(),
            "5 s"
        );
        assert_eq!(
            labels(&[120.0, 900.0], log, Unit::Micros),
            ["100 µs", "200 µs", "500 µs", "1 ms"]
        );
        assert_eq!(labels(&[], log, Unit::Micros).len(), 2);
        assert_eq!(labels(&[0.0, f64::NAN, 1.0], log, Unit::Ratio).len(), 2);
    }

    #[test]
    fn values_have_three_digits_and_a_unit() {
        assert_eq!(Unit::Count.show(9999.0), "9999");
        assert_eq!(Unit::Count.show(12_345.0), "12.3k");
        assert_eq!(Unit::Micros.show(1234.0), "1.23 ms");
        assert_eq!(Unit::Bytes.show(1.5 * 1024.0), "1.5 KB");
        assert_eq!(
            [Unit::Percent.show(12.0), Unit::Ratio.show(1.05)],
            ["12 %", "1.05×"]
        );
        let high = [1.3 * 1024.0 * 1024.0 * 1024.0];
        assert_eq!(
            labels(&high, Scale::Linear, Unit::Bytes),
            ["0", "0.5 GB", "1 GB", "1.5 GB"]
        );
    }

    #[test]
    fn every_value_is_on_the_axis() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let values: Vec<f64> = (0..3).map(|_| 10f64.powf(rng.f64() * 9.0 - 1.0)).collect();
            for scale in [Scale::Linear, Scale::Log] {
                for unit in [Unit::Count, Unit::Bytes, Unit::Micros] {
                    let axis = Axis::covering(values.iter().copied(), scale, unit, 5);
                    assert!((2..=11).contains(&axis.ticks.len()), "{values:?} {axis:?}");
                    assert!(
                        values.iter().all(|&v| v <= axis.high * 1.000_001),
                        "{values:?}"
                    );
                    assert!(axis.at(axis.low) < 1e-9 && axis.at(axis.high) > 1.0 - 1e-9);
                }
            }
        }
    }

    #[test]
    fn times_are_read_by_people() {
        assert!((time_step(30.0, 6) - 5.0).abs() < 1e-9);
        assert!((time_step(1200.0, 6) - 300.0).abs() < 1e-9);
        assert_eq!(
            [time(5.0, 30.0), time(90.0, 600.0), time(3720.0, 7200.0)],
            ["5 s", "1:30", "1:02:00"]
        );
    }
}
