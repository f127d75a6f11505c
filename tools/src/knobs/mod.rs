//! `tools knobs`: what a kernel setting gives and what it does not, on and off in turns in one run.
//!
//! It calls itself in a network namespace of its own, so that settings are changed where nobody else lives; those that a namespace has not are
//! left out. `trials` is the table of what is tried, `load` what is done under each setting.

mod load;
mod trials;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;

use crate::cli::Knobs;
use trials::{TRIALS, Trial};

/// What a load counted, by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// All trials of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    date: String,
    machine: String,
    /// Processes that ran or wanted to, before and after.
    load: [f64; 2],
    rounds: u32,
    trials: Vec<Outcome>,
}

/// One trial.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    about: &'static str,
    /// Why it couldn't be tried.
    left_out: Option<String>,
    /// In the order of the settings.
    cases: Vec<Case>,
}

/// A setting, and the median of what was counted under it.
#[derive(Debug, Serialize)]
struct Case {
    setting: &'static str,
    figures: BTreeMap<&'static str, f64>,
}

/// Why nothing was tried.
#[derive(Debug)]
pub(crate) enum KnobsError {
    Namespace(String),
    Io(io::Error),
    Unknown(String),
}

impl fmt::Display for KnobsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(what) => write!(
                f,
                "no network namespace: {what}; be root, and have unshare and ip (util-linux, iproute2)"
            ),
            Self::Io(error) => error.fmt(f),
            Self::Unknown(name) => {
                write!(f, "`{name}` is no trial; there are:")?;
                TRIALS
                    .iter()
                    .try_for_each(|trial| write!(f, " {}", trial.name))
            }
        }
    }
}

/// The text or JSON of a run.
pub(crate) fn run(args: &Knobs) -> Result<String, KnobsError> {
    if let Some(unknown) = args
        .only
        .iter()
        .find(|name| !TRIALS.iter().any(|trial| trial.name == **name))
    {
        return Err(KnobsError::Unknown(unknown.clone()));
    }
    if let Some(name) = &args.body {
        // A load by itself, for a trial that needs a process under its setting.
        let figures = load::body(name).map_err(KnobsError::Io)?;
        return serde_json::to_string(&figures).map_err(|error| KnobsError::Io(error.into()));
    }
    if !args.inside {
        return outside(args);
    }
    let before = loadgen::machine::load();
    // What is remembered of peers would make 127.0.0.1 one that is known to be no attacker.
    std::fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1").map_err(KnobsError::Io)?;
    let wanted =
        |trial: &&Trial| args.only.is_empty() || args.only.iter().any(|name| name == trial.name);
    let trials = TRIALS
        .iter()
        .filter(wanted)
        .map(|trial| tried(trial, args.rounds))
        .collect();
    let results = Results {
        date: loadgen::machine::today(),
        machine: loadgen::machine::describe(),
        load: [before, loadgen::machine::load()],
        rounds: args.rounds,
        trials,
    };
    if args.json {
        let json =
            serde_json::to_string_pretty(&results).map_err(|error| KnobsError::Io(error.into()))?;
        Ok(json + "\n")
    } else {
        Ok(results.to_string())
    }
}

/// This command again, in a namespace of its own.
fn outside(args: &Knobs) -> Result<String, KnobsError> {
    let mut arguments = vec![
        "knobs".to_owned(),
        "--inside".to_owned(),
        format!("--rounds={}", args.rounds),
    ];
    if args.json {
        arguments.push("--json".to_owned());
    }
    arguments.extend(args.only.iter().map(|name| format!("--only={name}")));
    let output = in_namespace(&arguments).map_err(KnobsError::Io)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(KnobsError::Namespace(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}

/// Runs this binary in a new network namespace whose loopback is up.
fn in_namespace(arguments: &[String]) -> io::Result<std::process::Output> {
    let own: PathBuf = std::env::current_exe()?;
    Command::new("unshare")
        .args([
            "--net",
            "--",
            "sh",
            "-c",
            "ip link set lo up && exec \"$0\" \"$@\"",
        ])
        .arg(own)
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .output()
}

/// All settings of a trial in turns, so that a slow minute of the machine meets each of them.
fn tried(trial: &'static Trial, rounds: u32) -> Outcome {
    let mut counted: Vec<Vec<Figures>> = vec![Vec::new(); trial.cases.len()];
    let mut left_out = None;
    let before = trials::as_they_are(trial);
    'all: for round in 0..rounds {
        for (at, case) in trial.cases.iter().enumerate() {
            eprintln!("knobs: {}, round {}: {}", trial.name, round + 1, case.name);
            match (trial.set)(case.values).and_then(|()| (trial.load)()) {
                Ok(figures) => counted[at].push(figures),
                Err(error) => {
                    left_out = Some(error.to_string());
                    break 'all;
                }
            }
        }
    }
    // The next trial begins with what this one found.
    for (path, value) in before {
        let _told_by_the_next = std::fs::write(path, value);
    }
    let cases = trial.cases.iter().zip(counted).map(|(case, counted)| Case {
        setting: case.name,
        figures: medians(&counted),
    });
    Outcome {
        name: trial.name,
        about: trial.about,
        cases: if left_out.is_some() {
            Vec::new()
        } else {
            cases.collect()
        },
        left_out,
    }
}

/// Of each figure the middle one.
fn medians(counted: &[Figures]) -> Figures {
    let mut all: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for figures in counted {
        for (&name, &value) in figures {
            all.entry(name).or_default().push(value);
        }
    }
    all.into_iter()
        .map(|(name, mut values)| {
            values.sort_unstable_by(f64::total_cmp);
            (name, values[values.len() / 2])
        })
        .collect()
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        writeln!(
            out,
            "{}, {}; load {:.1} before, {:.1} after; medians of {} rounds",
            self.date, self.machine, self.load[0], self.load[1], self.rounds
        )?;
        for trial in &self.trials {
            writeln!(out, "\n{}: {}", trial.name, trial.about)?;
            if let Some(why) = &trial.left_out {
                writeln!(out, "  left out: {why}")?;
            }
            for case in &trial.cases {
                write!(out, "  {:<44}", case.setting)?;
                for (name, value) in &case.figures {
                    write!(out, "  {name} {}", (value * 100.0).round() / 100.0)?;
                }
                out.push('\n');
            }
        }
        f.write_str(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_each_figure_is_told() {
        let rounds: Vec<Figures> = [3.0, 1.0, 2.0]
            .map(|value| Figures::from([("a", value)]))
            .into();
        assert_eq!(medians(&rounds), Figures::from([("a", 2.0)]));
        assert!(medians(&[]).is_empty());
    }

    #[test]
    fn trials_have_names_of_their_own_and_something_to_compare() {
        for (at, trial) in TRIALS.iter().enumerate() {
            assert!(trial.cases.len() > 1, "{}", trial.name);
            assert!(TRIALS[..at].iter().all(|other| other.name != trial.name));
        }
    }
}
