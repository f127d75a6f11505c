//! How late a sleeper wakes on each core, and what the hypervisor took meanwhile: a neighbour's noise shows here first.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stillwire::sys::affinity;

use super::quantile;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Jitter {
    pub(crate) seconds: f64,
    /// Of all cores' time.
    pub(crate) steal_percent: f64,
    /// Microseconds that a sleep of one millisecond took beyond it.
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
    pub(crate) most_micros: f64,
    /// How many came more than a millisecond late.
    pub(crate) over_a_milli: u64,
}

const NAP: Duration = Duration::from_millis(1);

pub(super) fn measure(time: Duration) -> io::Result<Jitter> {
    let (stolen, all) = steal()?;
    let began = Instant::now();
    let sleepers: Vec<_> = affinity::cores()?
        .into_iter()
        .map(|core| thread::spawn(move || affinity::pin(core).map(|()| naps(time))))
        .collect();
    let mut late = Vec::new();
    for sleeper in sleepers {
        late.extend(
            sleeper
                .join()
                .map_err(|_| io::Error::other("a thread panicked"))??,
        );
    }
    late.sort_unstable_by(f64::total_cmp);
    let (stolen_after, all_after) = steal()?;
    Ok(Jitter {
        seconds: began.elapsed().as_secs_f64(),
        steal_percent: 100.0 * (stolen_after - stolen) as f64 / (all_after - all).max(1) as f64,
        p50_micros: quantile(&late, 0.5),
        p99_micros: quantile(&late, 0.99),
        most_micros: quantile(&late, 1.0),
        over_a_milli: late.iter().filter(|&&micros| micros > 1e3).count() as u64,
    })
}

fn naps(time: Duration) -> Vec<f64> {
    let began = Instant::now();
    let mut late = Vec::with_capacity(time.as_millis() as usize);
    while began.elapsed() < time {
        let lain_down = Instant::now();
        thread::sleep(NAP);
        late.push((lain_down.elapsed().saturating_sub(NAP)).as_secs_f64() * 1e6);
    }
    late
}

/// Ticks stolen, and all ticks, since the start.
fn steal() -> io::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    parsed(&text).ok_or_else(|| io::Error::other("/proc/stat: not understood"))
}

/// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; the guests' time is in user and nice already.
fn parsed(stat: &str) -> Option<(u64, u64)> {
    let mut words = stat.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<u64> = words
        .by_ref()
        .take(8)
        .map_while(|word| word.parse().ok())
        .collect();
    (ticks.len() == 8).then(|| (ticks[7], ticks.iter().sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_ticks_are_read() {
        assert_eq!(parsed("cpu  10 0 5 80 1 0 2 2 9 0\ncpu0 1"), Some((2, 100)));
        assert_eq!(parsed("cpu 1 2"), None);
    }

    #[test]
    fn a_short_look_has_naps_of_each_core() {
        let jitter = measure(Duration::from_millis(20)).unwrap();
        assert!(jitter.most_micros >= jitter.p99_micros && jitter.p99_micros >= jitter.p50_micros);
        assert!(jitter.most_micros > 0.0);
    }
}
