//! Logs: text or JSON lines on standard error. Set up once; what is logged is the business of each module.

use std::io::IsTerminal as _;

use stillwire::config::resolved::{Log, LogFormat};

/// Starts logging for the whole process.
pub(crate) fn start(log: &Log) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(log.level)
        .with_writer(std::io::stderr)
        // A line that can't be written (the pipe's reader is gone) is lost; complaining on the same pipe would not help.
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init(),
    }
}
