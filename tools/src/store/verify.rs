//! `tools store verify`: every checksum, every reference, everything that a restart would read.

use std::io::Write;
use std::path::Path;

use loadgen::units;
use stillwire::session::durable::{self, Body, Meta};
use stillwire::store::recovery::Recovered;
use stillwire::store::{Queue, State, Store};

use super::StoreError;

/// Writes each finding on a line, and a summary; true: there was none.
pub(super) fn run(dir: &Path, out: &mut impl Write) -> Result<bool, StoreError> {
    let logs = super::open(dir)?;
    let (mut records, mut findings, mut count) = (0, 0_u64, 0_u64);
    for opened in logs.logs {
        let reactor = opened.log.reactor();
        let recovered = Recovered::read(opened, 0);
        records += recovered.records;
        count += 1;
        for damage in &recovered.damage {
            findings += 1;
            writeln!(out, "{damage}")?;
        }
        let mut report = |what: String| -> Result<(), StoreError> {
            findings += 1;
            Ok(writeln!(out, "reactor {reactor}: {what}")?)
        };
        if recovered.orphans > 0 {
            let orphans = units::grouped(recovered.orphans);
            report(format!(
                "{orphans} records speak of sessions or bodies that are not there"
            ))?;
        }
        contents(&recovered.store, &mut report)?;
    }
    let (records, count) = (units::grouped(records), units::grouped(count));
    if findings == 0 {
        writeln!(out, "{records} records in {count} logs, all well")?;
    } else {
        let findings = units::grouped(findings);
        writeln!(
            out,
            "{records} records in {count} logs, {findings} findings"
        )?;
    }
    Ok(findings == 0)
}

/// What the records say, as a restart would read it.
fn contents(
    store: &Store,
    report: &mut impl FnMut(String) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for session in store.sessions() {
        let number = session.idx.0;
        let readable = store.state(session.idx).is_some_and(|(state, notes)| {
            durable::read_core(state, &notes).is_ok()
                && durable::read_subscriptions(state, &notes).is_ok()
        });
        if !readable {
            report(format!("session {number}: its state can't be read"))?;
        }
        let Some(queue) = store.queue(session.idx) else {
            continue;
        };
        let mut seq = queue.head();
        while seq != queue.tail() {
            if queue.state(seq) == State::Waiting {
                let item = store.item(session.idx, seq);
                let readable = item.is_some_and(|item| {
                    Body::read(item.body).is_ok()
                        && (item.tag.is_some() || Meta::read(item.meta).is_ok())
                });
                if !readable {
                    report(format!(
                        "session {number}: message {seq} of its queue can't be read"
                    ))?;
                }
            }
            seq = Queue::after(seq);
        }
    }
    for (key, value) in store.values() {
        if Body::read(value).is_err() {
            let topic = String::from_utf8_lossy(key);
            report(format!("the retained message of {topic:?} can't be read"))?;
        }
    }
    Ok(())
}
