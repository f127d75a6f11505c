//! Joins the reports of processes that shared one scenario: counts and histograms are added, moments laid over each other by the clock.

use std::collections::BTreeSet;
use std::fmt;

use super::course::{Moment, Phase, Storm, pool, thousandths};
use super::{Connections, Memory, Messages, Report, SCHEMA};

/// Why reports can't be joined. The operator's mistake, each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeError {
    /// None given.
    Nothing,
    /// Written by another version.
    Schema(String),
    /// Of different scenarios.
    Scenarios(String, String),
    /// Of different runs.
    Runs(u32, u32),
    /// Two have the same phones: perhaps the same file twice.
    Phones(u32),
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no report to join"),
            Self::Schema(schema) => write!(
                f,
                "a report has the schema `{schema}`, this loadgen joins {SCHEMA}; use one version for all processes"
            ),
            Self::Scenarios(a, b) => write!(
                f,
                "`{a}` and `{b}` are different scenarios; only parts of one can be joined"
            ),
            Self::Runs(a, b) => write!(
                f,
                "the reports are of different runs ({a} and {b}); give all processes the same run number"
            ),
            Self::Phones(phone) => write!(
                f,
                "two reports have phone {phone}; give each process its own range (or is one file named twice?)"
            ),
        }
    }
}

impl std::error::Error for MergeError {}

/// Joins them. What was expected of the first is expected of all, and judged anew.
pub fn merge(mut reports: Vec<Report>) -> Result<Report, MergeError> {
    if let Some(other) = reports.iter().find(|report| report.schema != SCHEMA) {
        return Err(MergeError::Schema(other.schema.clone()));
    }
    let first = reports.first().ok_or(MergeError::Nothing)?;
    for other in &reports {
        if other.scenario != first.scenario {
            return Err(MergeError::Scenarios(
                first.scenario.clone(),
                other.scenario.clone(),
            ));
        }
        if other.run != first.run {
            return Err(MergeError::Runs(first.run, other.run));
        }
    }
    let expected = first.expectations.clone();
    reports.sort_by_key(|report| report.ranges.first().copied());
    distinct(&reports)?;

    let began = reports.iter().map(|report| report.began).min();
    let began = began.unwrap_or(0);
    let interval = reports.iter().map(|report| report.interval).max();
    let interval = interval.unwrap_or(1).max(1);
    for report in &mut reports {
        shift(report, began);
        pool(&mut report.course, interval);
    }
    let mut servers = BTreeSet::new();
    let mut parts = reports.into_iter();
    let mut sum = parts.next().ok_or(MergeError::Nothing)?;
    servers.extend(sum.server_pid);
    sum.interval = interval;
    for part in parts {
        // A process that several watched counts once; two servers are added.
        let same_server = part.server_pid.is_none_or(|pid| !servers.insert(pid));
        add(&mut sum, part, same_server);
    }
    sum.connections.peak = sum
        .course
        .iter()
        .map(|moment| moment.ready.most)
        .max()
        .unwrap_or(0)
        .max(sum.connections.ready)
        .min(sum.connections.planned);
    sum.judge(&expected);
    Ok(sum)
}

/// No phone is in two of them.
fn distinct(reports: &[Report]) -> Result<(), MergeError> {
    let mut ranges: Vec<(u32, u32)> = reports.iter().flat_map(|r| r.ranges.clone()).collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        let ((first, count), (next, _)) = (pair[0], pair[1]);
        if u64::from(first) + u64::from(count) > u64::from(next) {
            return Err(MergeError::Phones(next));
        }
    }
    Ok(())
}

/// Counts a report's times from another beginning, which isn't later than its own.
fn shift(report: &mut Report, began: u64) {
    let later = report.began.saturating_sub(began) as f64 / 1000.0;
    report.seconds = thousandths(report.seconds + later);
    for phase in &mut report.phases {
        phase.begin = thousandths(phase.begin + later);
        phase.end = thousandths(phase.end + later);
    }
    for storm in &mut report.storms {
        storm.at = thousandths(storm.at + later);
    }
    if report.began > began {
        report.began = began;
        report.date = crate::machine::date_time(began / 1000);
    }
}

fn add(sum: &mut Report, part: Report, same_server: bool) {
    sum.seconds = sum.seconds.max(part.seconds);
    sum.interrupted |= part.interrupted;
    if sum.machine != part.machine {
        sum.machine = format!("{}; {}", sum.machine, part.machine);
    }
    sum.settings
        .retain(|name, value| part.settings.get(name) == Some(value));
    sum.ranges.extend(part.ranges);
    sum.server_pid = sum.server_pid.or(part.server_pid);
    let phones = (sum.connections.peak, part.connections.peak);
    sum.memory = memory(
        sum.memory.zip(Some(phones.0)),
        part.memory.zip(Some(phones.1)),
    );
    connections(&mut sum.connections, &part.connections);
    sum.messages = match (sum.messages.take(), part.messages) {
        (Some(a), Some(b)) => Some(messages(&a, &b)),
        (one, other) => one.or(other),
    };
    if let Some(tickets) = &part.tickets {
        sum.tickets.get_or_insert_default().add(tickets);
    }
    for (kind, n) in part.failures {
        *sum.failures.entry(kind).or_default() += n;
    }
    sum.latency.join(&part.latency);
    storms(&mut sum.storms, part.storms);
    sum.broadcasts.extend(part.broadcasts);
    phases(&mut sum.phases, part.phases);
    course(&mut sum.course, part.course, same_server);
}

fn connections(sum: &mut Connections, part: &Connections) {
    sum.planned += part.planned;
    sum.peak += part.peak;
    sum.ready += part.ready;
    sum.attempts += part.attempts;
    // All were ready when the last process's were.
    let readied = sum.per_second * sum.seconds + part.per_second * part.seconds;
    sum.seconds = sum.seconds.max(part.seconds);
    sum.per_second = super::tenths(readied / sum.seconds.max(1e-3));
    sum.planned_per_second += part.planned_per_second;
    sum.reconnects += part.reconnects;
    sum.pings += part.pings;
    sum.pings_unanswered += part.pings_unanswered;
}

/// The server's growth is the same whoever saw it, and was divided by the phones of one process each; so per phone of all it is the
/// mean of what they saw in bytes, over all phones.
fn memory(a: Option<(Memory, u64)>, b: Option<(Memory, u64)>) -> Option<Memory> {
    let (Some((a, of_a)), Some((b, of_b))) = (a, b) else {
        return a.or(b).map(|(memory, _)| memory);
    };
    let all = (of_a + of_b).max(1) as f64;
    let grown = |a: f64, b: f64| (a * of_a as f64).max(b * of_b as f64) / all;
    Some(Memory {
        user_bytes: super::tenths(grown(a.user_bytes, b.user_bytes)),
        slab_bytes: super::tenths(grown(a.slab_bytes, b.slab_bytes)),
        same_process: a.same_process || b.same_process,
    })
}

fn messages(a: &Messages, b: &Messages) -> Messages {
    Messages {
        published_unicast0: a.published_unicast0 + b.published_unicast0,
        published_unicast1: a.published_unicast1 + b.published_unicast1,
        published_broadcast: a.published_broadcast + b.published_broadcast,
        acknowledged: a.acknowledged + b.acknowledged,
        refused: a.refused + b.refused,
        received: a.received + b.received,
        missing: a.missing + b.missing,
        duplicates: a.duplicates + b.duplicates,
        reordered: a.reordered + b.reordered,
        late: a.late + b.late,
        redelivered: a.redelivered + b.redelivered,
        excused: a.excused + b.excused,
        damaged: a.damaged + b.damaged,
        foreign: a.foreign + b.foreign,
        sessions_lost: a.sessions_lost + b.sessions_lost,
    }
}

/// The processes had the same storms in the same order.
fn storms(sum: &mut Vec<Storm>, part: Vec<Storm>) {
    for (index, storm) in part.into_iter().enumerate() {
        match sum.get_mut(index) {
            Some(mine) => {
                mine.at = mine.at.min(storm.at);
                mine.dropped += storm.dropped;
                mine.refused += storm.refused;
                mine.back_after = mine.back_after.zip(storm.back_after).map(|(a, b)| a.max(b));
            }
            None => sum.push(storm),
        }
    }
}

/// Phases of one name are one, in the order in which they began; of several with one name, the first goes with the first.
fn phases(sum: &mut Vec<Phase>, part: Vec<Phase>) {
    let mut taken = vec![false; sum.len()];
    for phase in part {
        let same = (0..taken.len()).find(|&at| !taken[at] && sum[at].name == phase.name);
        match same {
            Some(at) => {
                taken[at] = true;
                let mine = &mut sum[at];
                mine.begin = mine.begin.min(phase.begin);
                mine.end = mine.end.max(phase.end);
                mine.counts.add(&phase.counts);
                mine.latency.join(&phase.latency);
            }
            None => sum.push(phase),
        }
    }
    sum.sort_by(|a, b| a.begin.total_cmp(&b.begin));
}

fn course(sum: &mut Vec<Moment>, part: Vec<Moment>, same_server: bool) {
    for moment in part {
        match sum.binary_search_by_key(&moment.at, |mine| mine.at) {
            Ok(at) => sum[at].beside(&moment, same_server),
            Err(at) => sum.insert(at, moment),
        }
    }
}

#[cfg(test)]
mod tests;
