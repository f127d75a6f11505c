//! What came of it, as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use loadgen::units::grouped;

use super::fault::Kind;
use super::world::{Ended, Outcome};

/// Faults of a server that are told one by one.
const TOLD: usize = 12;

/// The outcome of all servers.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) seed: u64,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) took: Duration,
    pub(super) dir: PathBuf,
}

/// A line of the table.
#[derive(Default)]
struct Line {
    name: String,
    ended: Ended,
    acknowledged: [u64; 2],
    delivered: u64,
    repeated: u64,
    retained: u64,
    lost: usize,
    twice: usize,
    others: usize,
    restarts: Vec<Duration>,
}

impl Line {
    fn of(number: usize, outcome: &Outcome) -> Self {
        let count = |kind| {
            let faults = outcome.faults.iter();
            faults.filter(|fault| fault.kind == kind).count()
        };
        let (lost, twice) = (count(Kind::Lost), count(Kind::Twice));
        Self {
            name: format!("{number}, {}", outcome.plan.launch.durability),
            ended: outcome.ended,
            acknowledged: outcome.counts.acknowledged,
            delivered: outcome.counts.delivered,
            repeated: outcome.counts.repeated,
            retained: outcome.counts.retained,
            lost,
            twice,
            others: outcome.faults.len() - lost - twice,
            restarts: outcome.restarts.clone(),
        }
    }

    fn add(mut self, other: &Self) -> Self {
        self.ended.running += other.ended.running;
        self.ended.starting += other.ended.starting;
        self.ended.idle += other.ended.idle;
        self.ended.asked += other.ended.asked;
        for (sum, more) in self.acknowledged.iter_mut().zip(other.acknowledged) {
            *sum += more;
        }
        self.delivered += other.delivered;
        self.repeated += other.repeated;
        self.retained += other.retained;
        self.lost += other.lost;
        self.twice += other.twice;
        self.others += other.others;
        self.restarts.extend(&other.restarts);
        self
    }

    fn cells(&self) -> [String; COLUMNS.len()] {
        let Ended {
            running,
            starting,
            idle,
            asked,
        } = self.ended;
        let mut restarts: Vec<u128> = self.restarts.iter().map(Duration::as_millis).collect();
        restarts.sort_unstable();
        let restart = match &restarts[..] {
            [] => String::new(),
            [first, .., last] => format!("{first}/{}/{last}", restarts[restarts.len() / 2]),
            [one] => one.to_string(),
        };
        let count = |count: u64| grouped(count);
        [
            self.name.clone(),
            count(u64::from(running + starting + idle)),
            count(u64::from(starting)),
            count(u64::from(asked)),
            count(self.acknowledged[0]),
            count(self.acknowledged[1]),
            count(self.delivered),
            count(self.repeated),
            count(self.retained),
            count(self.lost as u64),
            count(self.twice as u64),
            count(self.others as u64),
            restart,
        ]
    }
}

const COLUMNS: [&str; 13] = [
    "server",
    "kills",
    "at start",
    "SIGTERM",
    "acked QoS 1",
    "acked QoS 2",
    "delivered",
    "QoS 1 again",
    "retained",
    "lost",
    "twice at QoS 2",
    "other faults",
    "restart, ms: min/median/max",
];

impl Report {
    pub(crate) fn is_valid(&self) -> bool {
        self.outcomes
            .iter()
            .all(|outcome| outcome.faults.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<Line> = self
            .outcomes
            .iter()
            .enumerate()
            .map(|(number, outcome)| Line::of(number, outcome))
            .collect();
        let all = Line {
            name: "all".into(),
            ..Line::default()
        };
        let all = lines.iter().fold(all, Line::add);
        let rows: Vec<_> = lines.iter().chain([&all]).map(Line::cells).collect();
        let widths: Vec<usize> = (0..COLUMNS.len())
            .map(|at| {
                rows.iter()
                    .map(|row| row[at].len())
                    .chain([COLUMNS[at].len()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        writeln!(f, "\nseed {}, {} s\n", self.seed, self.took.as_secs())?;
        let header = COLUMNS.map(str::to_owned);
        for (number, row) in [&header].into_iter().chain(&rows).enumerate() {
            write!(f, "|")?;
            for (at, cell) in row.iter().enumerate() {
                if at == 0 {
                    write!(f, " {cell:<width$} |", width = widths[at])?;
                } else {
                    write!(f, " {cell:>width$} |", width = widths[at])?;
                }
            }
            writeln!(f)?;
            if number == 0 {
                write!(f, "|")?;
                for (at, width) in widths.iter().enumerate() {
                    let end = if at == 0 { '-' } else { ':' };
                    write!(f, "{:-<width$}{end}|", "", width = width + 1)?;
                }
                writeln!(f)?;
            }
        }
        self.faults(f)
    }
}

impl Report {
    fn faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, outcome) in self.outcomes.iter().enumerate() {
            if outcome.faults.is_empty() {
                continue;
            }
            let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
            for fault in &outcome.faults {
                *kinds.entry(fault.kind).or_default() += 1;
            }
            let kinds: Vec<String> = kinds
                .iter()
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            writeln!(f, "\nserver {number}: {}", kinds.join(", "))?;
            for fault in outcome.faults.iter().take(TOLD) {
                writeln!(f, "  {fault}")?;
            }
            let more = outcome.faults.len().saturating_sub(TOLD);
            if more > 0 {
                writeln!(f, "  and {more} more")?;
            }
        }
        if self.is_valid() {
            return Ok(());
        }
        writeln!(
            f,
            "\nseed {}; what the servers kept is in {}",
            self.seed,
            self.dir.display()
        )
    }
}
