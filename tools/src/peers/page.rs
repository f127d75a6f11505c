//! The comparison as Markdown, for people.

use std::fmt::Write;

use loadgen::units::{grouped, micros};

use super::{COMPARED, Compared, Line};

/// The whole page.
pub(super) fn markdown(compared: &Compared) -> String {
    let mut out = String::new();
    // Writing to a String can't fail.
    let _infallible = write(compared, &mut out);
    out
}

fn write(compared: &Compared, out: &mut String) -> std::fmt::Result {
    let load = compared.load;
    writeln!(
        out,
        "# Side by side\n\n{}, load generator on the same machine, {}. {} connections with two subscriptions each, {} connects/s, \
         {} messages/s of 64 bytes. CPU is the broker's process, in microseconds for one of each; in brackets the ratio to the floor, \
         a bare epoll server.\n",
        compared.machine,
        compared.date,
        grouped(u64::from(load.connections)),
        grouped(load.rate),
        grouped(load.message_rate),
    )?;
    let heads = COMPARED.map(|(name, _)| name).join(" | ");
    writeln!(
        out,
        "| broker | bytes per connection | {heads} | slowest of a broadcast |"
    )?;
    writeln!(out, "|---|--:|{}--:|", "--:|".repeat(COMPARED.len()))?;
    for line in &compared.brokers {
        row(compared, line, out)?;
    }
    writeln!(
        out,
        "\n![CPU as a ratio to the floor](peers.svg)\n\nMade by `tools/peers`."
    )?;
    let mut remarks = compared
        .brokers
        .iter()
        .filter(|line| !line.remarks.is_empty())
        .peekable();
    if remarks.peek().is_some() {
        writeln!(out, "\n\\* Not at the planned rates:\n")?;
    }
    for line in remarks {
        for remark in &line.remarks {
            writeln!(out, "- {}: {remark}", line.name)?;
        }
        if line.figures.is_some() {
            writeln!(
                out,
                "- {}: the figures are those of the slowest rates tried",
                line.name
            )?;
        }
    }
    if compared.load_before > crate::table::QUIET {
        writeln!(
            out,
            "\nThe machine wasn't quiet: load average {:.1} before the start.",
            compared.load_before
        )?;
    }
    Ok(())
}

fn row(compared: &Compared, line: &Line, out: &mut String) -> std::fmt::Result {
    let mark = if line.remarks.is_empty() { "" } else { "\\*" };
    write!(out, "| {} {}{mark} |", line.name, line.version)?;
    let Some(figures) = &line.figures else {
        return writeln!(out, " – |{} – |", " – |".repeat(COMPARED.len()));
    };
    write!(
        out,
        " {} |",
        grouped(figures.user_bytes.max(0.0).round() as u64)
    )?;
    for (_, of) in COMPARED {
        match compared.ratio(line, of) {
            Some(ratio) => write!(out, " {:.1} ({ratio:.2}) |", of(figures).all)?,
            None => write!(out, " – |")?,
        }
    }
    if figures.broadcasts.is_empty() {
        writeln!(out, " – |")
    } else {
        writeln!(out, " {} |", micros(figures.slowest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broker_has_a_row_and_what_it_could_not_do_is_said() {
        let text = markdown(&Compared::made_up());
        assert!(
            text.contains("| Stillwire 1 | 200 | 12.0 (1.20) |"),
            "{text}"
        );
        assert!(
            text.contains("| slow 1\\* | 200 | 80.0 (8.00) | 80.0 (8.00) | – | – |"),
            "{text}"
        );
        assert!(
            text.contains("| absent 1\\* | – | – | – | – | – | – |"),
            "{text}"
        );
        assert!(text.contains("- slow: too fast\n"), "{text}");
    }
}
