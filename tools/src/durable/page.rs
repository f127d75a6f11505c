//! The figures as a table: a column for each run.

use std::fmt;

use loadgen::units::grouped;

use super::{Figures, Runs};

/// What it should be at most or at least, as the budgets of durable sessions have it.
struct Row {
    what: &'static str,
    budget: &'static str,
    of: fn(&Figures) -> String,
}

fn row(what: &'static str, budget: &'static str, of: fn(&Figures) -> String) -> Row {
    Row { what, budget, of }
}

fn micros(value: f64) -> String {
    format!("{value:.2}")
}

fn seconds(value: f64) -> String {
    if value < 1.0 {
        format!("{:.1} ms", value * 1e3)
    } else {
        format!("{value:.2} s")
    }
}

fn whole(value: f64) -> String {
    if value.is_finite() && value >= 0.0 {
        grouped(value.round() as u64)
    } else {
        format!("{value:.0}")
    }
}

/// So many a second of one core.
fn a_core(micros: f64) -> String {
    whole(1e6 / micros)
}

fn rows() -> Vec<Row> {
    vec![
        row("sessions", "", |of| grouped(u64::from(of.sessions))),
        row("messages queued for each", "", |of| of.each.to_string()),
        row("connect + subscribe + leave, CPU us", "", |of| {
            micros(of.enroll_cpu)
        }),
        row("memory a session, bytes", "<= 400", |of| {
            whole(of.session_memory)
        }),
        row("disk a session, bytes", "", |of| whole(of.session_disk)),
        row("enqueue, CPU us a message", "", |of| micros(of.enqueue_cpu)),
        row("  messages/s a core", ">= 400,000", |of| {
            a_core(of.enqueue_cpu)
        }),
        row("  messages/s acknowledged", "", |of| whole(of.enqueue_rate)),
        row("memory a queued message, bytes", "8", |of| {
            format!("{:.1}", of.message_memory)
        }),
        row("disk a queued message, bytes", "", |of| {
            whole(of.message_disk)
        }),
        row("broadcast to all, slowest", "", |of| {
            seconds(of.broadcast_seconds)
        }),
        row("  CPU us a session", "", |of| micros(of.broadcast_cpu)),
        row("  disk a session, bytes", "", |of| {
            format!("{:.1}", of.broadcast_disk)
        }),
        row("  longest ping meanwhile", "", |of| {
            seconds(of.ping_seconds)
        }),
        row("  longest ping before", "", |of| {
            seconds(of.quiet_ping_seconds)
        }),
        row("log at the restart, MB", "", |of| {
            whole(of.log_bytes as f64 / 1e6)
        }),
        row("restart: listening after", "", |of| {
            seconds(of.listening_seconds)
        }),
        row("  first connection accepted", "< 2 s", |of| {
            seconds(of.first_connack_seconds)
        }),
        row("  first message acknowledged", "< 30 s", |of| {
            seconds(of.first_puback_seconds)
        }),
        row("  memory then, MB", "", |of| {
            whole(of.restarted_memory as f64 / 1e6)
        }),
        row("replay, CPU us a message", "", |of| micros(of.replay_cpu)),
        row("  messages/s a core", ">= 200,000", |of| {
            a_core(of.replay_cpu)
        }),
        row("  messages/s received", "", |of| whole(of.replay_rate)),
        row("  until all have all", "", |of| seconds(of.replay_seconds)),
        row("  a phone's wait, p50", "", |of| seconds(of.wait_p50)),
        row("  a phone's wait, p99", "", |of| seconds(of.wait_p99)),
        row("  a phone's wait, longest", "", |of| seconds(of.wait_max)),
        row("messages received", "", |of| grouped(of.received)),
        row("  missing", "0", |of| grouped(of.missing)),
        row("  twice", "0", |of| grouped(of.twice)),
        row("  out of order", "0", |of| grouped(of.disordered)),
        row("sessions lost", "0", |of| grouped(of.sessions_lost)),
    ]
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = if self.own_topics { "own" } else { "common" };
        writeln!(
            f,
            "\n{} subscriptions a session, to {topics} topics; QoS {}; {}; {}\n",
            self.subscriptions, self.qos, self.machine, self.date
        )?;
        let rows = rows();
        let first = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
        let width = |run: &Figures| run.broker.len().max(12);
        write!(f, "| {:<first$} | {:>10} |", "", "budget")?;
        for run in &self.figures {
            write!(f, " {:>width$} |", run.broker, width = width(run))?;
        }
        write!(f, "\n|{:-<width$}|{:->11}:|", "", "", width = first + 2)?;
        for run in &self.figures {
            write!(f, "{:->width$}:|", "", width = width(run) + 1)?;
        }
        writeln!(f)?;
        for row in rows {
            write!(f, "| {:<first$} | {:>10} |", row.what, row.budget)?;
            for run in &self.figures {
                write!(f, " {:>width$} |", (row.of)(run), width = width(run))?;
            }
            writeln!(f)?;
        }
        for run in &self.figures {
            if let Some(stopped) = &run.stopped {
                writeln!(
                    f,
                    "\nNOT VALID: {}, {} sessions: {stopped}",
                    run.broker,
                    grouped(u64::from(run.sessions))
                )?;
            } else if !run.is_valid() {
                writeln!(
                    f,
                    "\nNOT VALID: {}: messages or sessions are missing, doubled or out of order",
                    run.broker
                )?;
            }
        }
        Ok(())
    }
}
