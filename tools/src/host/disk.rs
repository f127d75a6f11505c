//! The disk, by fio: what the store and its fdatasync meet.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::HostEval;

/// What fio measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// Past the page cache; a file system such as tmpfs doesn't know how.
    pub(crate) direct: bool,
    /// 4 KB, 32 at a time.
    pub(crate) random_read: Stream,
    /// 4 KB, 32 at a time.
    pub(crate) random_write: Stream,
    /// 1 MB at a time.
    pub(crate) stream_read: Stream,
    /// 1 MB at a time.
    pub(crate) stream_write: Stream,
    /// 4 KB written to a log, then fdatasync: the wait of `durability = "disk"`.
    pub(crate) sync_p50_micros: f64,
    pub(crate) sync_p99_micros: f64,
    pub(crate) syncs_per_second: f64,
}

/// One direction of a job.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub(crate) per_second: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
}

/// Why the disk isn't measured.
#[derive(Debug)]
pub(crate) enum DiskError {
    Missing,
    Fio(String),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "fio isn't here; `apt-get install fio`, or --install-fio does that (Debian), or --no-disk leaves the disk out",
            ),
            Self::Fio(what) => write!(f, "fio: {what}"),
        }
    }
}

pub(super) fn measure(args: &HostEval) -> Result<Disk, DiskError> {
    if !there() {
        if args.install_fio {
            // Its own messages say what went wrong.
            let _told = Command::new("apt-get")
                .args(["install", "-y", "--no-install-recommends", "fio"])
                .env("DEBIAN_FRONTEND", "noninteractive")
                .status();
        }
        if !there() {
            return Err(DiskError::Missing);
        }
    }
    let dir = args.dir.join(format!("host-eval-{}", std::process::id()));
    std::fs::create_dir_all(&dir)
        .map_err(|error| DiskError::Fio(format!("{}: {error}", dir.display())))?;
    let result = jobs(&dir);
    // What is left of it is small, and named after what it was.
    let _gone = std::fs::remove_dir_all(&dir);
    result
}

fn there() -> bool {
    Command::new("fio").arg("--version").output().is_ok()
}

fn jobs(dir: &Path) -> Result<Disk, DiskError> {
    let random = ["--bs=4k", "--iodepth=32", "--ioengine=libaio"];
    let direct = fio(dir, true, "randread", &random).is_ok();
    let job = |kind, flags: &[&str]| fio(dir, direct, kind, flags);
    let stream = ["--bs=1m", "--iodepth=4", "--ioengine=libaio"];
    let log = fio(
        dir,
        false,
        "write",
        &["--bs=4k", "--ioengine=psync", "--fdatasync=1"],
    )?;
    Ok(Disk {
        direct,
        random_read: Stream::of(&job("randread", &random)?, "read"),
        random_write: Stream::of(&job("randwrite", &random)?, "write"),
        stream_read: Stream::of(&job("read", &stream)?, "read"),
        stream_write: Stream::of(&job("write", &stream)?, "write"),
        sync_p50_micros: number(&log["sync"]["lat_ns"]["percentile"]["50.000000"]) / 1e3,
        sync_p99_micros: number(&log["sync"]["lat_ns"]["percentile"]["99.000000"]) / 1e3,
        syncs_per_second: number(&log["write"]["iops"]),
    })
}

/// One job of eight seconds; its part of fio's report.
fn fio(dir: &Path, direct: bool, kind: &str, flags: &[&str]) -> Result<Value, DiskError> {
    let failed = |what: String| DiskError::Fio(format!("{kind}: {what}"));
    let output = Command::new("fio")
        .arg("--name=host-eval")
        .arg(format!("--directory={}", dir.display()))
        .arg(format!("--rw={kind}"))
        .arg(format!("--direct={}", u8::from(direct)))
        .args([
            "--size=256m",
            "--time_based",
            "--runtime=8",
            "--ramp_time=1",
            "--output-format=json",
        ])
        .args(flags)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    job_of(&output.stdout).ok_or_else(|| failed("its report can't be read".to_owned()))
}

/// fio writes warnings before its JSON.
fn job_of(output: &[u8]) -> Option<Value> {
    let start = output.iter().position(|&byte| byte == b'{')?;
    let report: Value = serde_json::from_slice(&output[start..]).ok()?;
    report.get("jobs")?.get(0).cloned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

impl Stream {
    fn of(job: &Value, way: &str) -> Self {
        let at = &job[way];
        let percentile = |name| number(&at["clat_ns"]["percentile"][name]) / 1e3;
        Self {
            per_second: number(&at["iops"]),
            bytes_per_second: number(&at["bw_bytes"]),
            p50_micros: percentile("50.000000"),
            p99_micros: percentile("99.000000"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_s_report_is_read_behind_its_warnings() {
        let text = br#"note: something
{"jobs":[{"read":{"iops":1000.5,"bw_bytes":4096000,"clat_ns":{"percentile":{"50.000000":2000,"99.000000":9000}}}}]}"#;
        let stream = Stream::of(&job_of(text).unwrap(), "read");
        assert!(
            (stream.per_second - 1000.5).abs() < 1e-9 && (stream.p99_micros - 9.0).abs() < 1e-9
        );
        assert!(job_of(b"no such engine").is_none());
    }
}
