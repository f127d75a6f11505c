//! What the machine has and what of it is in use, read from /proc.

use std::fs;
use std::io;

/// Kilobytes as /proc writes them.
const KB: u64 = 1024;

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
}

fn missing(path: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} has no {name}"))
}

fn read_field(path: &str, name: &str) -> io::Result<u64> {
    field(&fs::read_to_string(path)?, name).ok_or_else(|| missing(path, name))
}

/// Numbers in a file of /proc/sys.
pub fn sysctl(path: &str) -> io::Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/sys/{path}"))?;
    text.split_whitespace()
        .map(|word| word.parse().map_err(|_| missing(path, "number")))
        .collect()
}

/// Bytes of memory that are free or can be freed.
pub fn available() -> io::Result<u64> {
    Ok(read_field("/proc/meminfo", "MemAvailable:")? * KB)
}

/// Bytes of memory in all.
pub fn installed() -> io::Result<u64> {
    Ok(read_field("/proc/meminfo", "MemTotal:")? * KB)
}

/// Bytes of kernel slab, of the whole machine.
pub fn slab() -> io::Result<u64> {
    Ok(read_field("/proc/meminfo", "Slab:")? * KB)
}

/// Bytes that TCP's buffers hold, of the whole machine.
pub fn tcp_buffers() -> io::Result<u64> {
    let path = "/proc/net/sockstat";
    let text = fs::read_to_string(path)?;
    let line = text
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .ok_or_else(|| missing(path, "TCP"))?;
    let mut words = line
        .split_whitespace()
        .skip_while(|&word| word != "mem")
        .skip(1);
    let pages: u64 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| missing(path, "mem"))?;
    Ok(pages * crate::sys::page_size())
}

/// Bytes of memory of a process in user space, shared pages in proportion (Pss).
pub fn pss(pid: u32) -> io::Result<u64> {
    Ok(read_field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")? * KB)
}

/// Bytes of memory of a process that no file backs: heap, stacks, and what it has written of its own data.
pub fn own_memory(pid: u32) -> io::Result<u64> {
    Ok(read_field(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:")? * KB)
}

/// Resident bytes of a process (RSS): shared pages count in full, but reading it is cheap.
pub fn rss(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/statm");
    let pages: u64 = fs::read_to_string(&path)?
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| missing(&path, "second number"))?;
    Ok(pages * crate::sys::page_size())
}

/// CPU time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// Nanoseconds on a CPU, of all its threads that live.
    pub nanos: u64,
    /// Clock ticks in user space; coarse, but good for a share.
    user_ticks: u64,
    /// Clock ticks in the kernel.
    system_ticks: u64,
}

impl CpuTime {
    /// Reads it. The total is exact to the microsecond (schedstat); how it splits comes from the kernel's tick (stat), so the split is
    /// the better the more time there is.
    pub fn of(pid: u32) -> io::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path)?;
        // The name in parentheses may hold spaces; after it, utime and stime are the 12th and 13th word.
        let after = text.rfind(')').map_or("", |at| &text[at + 1..]);
        let words: Vec<&str> = after.split_whitespace().collect();
        let tick = |at: usize| {
            words
                .get(at)
                .and_then(|word| word.parse().ok())
                .ok_or_else(|| missing(&path, "time"))
        };
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            nanos += first_number(&task?.path().join("schedstat"));
        }
        Ok(Self {
            nanos,
            user_ticks: tick(11)?,
            system_ticks: tick(12)?,
        })
    }

    /// Microseconds from `earlier` to here: in all, and in user space.
    pub fn micros_since(&self, earlier: &Self) -> (f64, f64) {
        let all = self.nanos.saturating_sub(earlier.nanos) as f64 / 1e3;
        let user = self.user_ticks.saturating_sub(earlier.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(earlier.system_ticks) as f64;
        let share = if user + system > 0.0 {
            user / (user + system)
        } else {
            0.0
        };
        (all, all * share)
    }
}

/// Nanoseconds of CPU that the kernel's own network threads (ksoftirqd) have used. When the cores are contended they do a part of what
/// a send on loopback costs, and the sender's account misses it.
pub fn softirq_nanos() -> io::Result<u64> {
    let mut nanos = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes come and go while we look.
        let Ok(name) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        if name.starts_with("ksoftirqd/") {
            nanos += first_number(&path.join("schedstat"));
        }
    }
    Ok(nanos)
}

/// The first number of a file; 0 if the file has gone.
fn first_number(path: &std::path::Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Processes that ran or wanted to, on average over the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0)
}

/// One line: cores, memory, kernel.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = installed().unwrap_or(0) as f64;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} cores, {}, Linux {}",
        crate::units::bytes(memory),
        kernel.trim()
    )
}

/// The moment so many seconds after 1970-01-01, UTC, as 2026-11-21 14:05:09.
pub fn date_time(seconds: u64) -> String {
    let of_day = seconds % 86_400;
    format!(
        "{} {:02}:{:02}:{:02}",
        date(seconds / 86_400),
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Nanoseconds since 1970-01-01.
pub fn unix_nanos() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// Today's date, UTC, as 2026-11-21.
pub fn today() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    date(seconds / 86_400)
}

/// The date so many days after 1970-01-01 (the proleptic Gregorian calendar, counted in eras of 400 years that begin in March).
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 {
        (year, month + 3)
    } else {
        (year + 1, month - 9)
    };
    format!("{}-{month:02}-{day:02}", era * 400 + year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(pss(pid).unwrap() > 100 * KB);
        assert!(slab().unwrap() > 0 && tcp_buffers().is_ok());
        assert!(available().unwrap() <= installed().unwrap());
        let before = CpuTime::of(pid).unwrap();
        let mut sum = 0u64;
        while CpuTime::of(pid).unwrap().micros_since(&before).0 < 2000.0 {
            sum = std::hint::black_box(sum + 1);
        }
    }

    #[test]
    fn days_make_dates() {
        let dates = [0, 58, 59, 19_782, 19_783, 20_778].map(date);
        assert_eq!(
            dates,
            [
                "1970-01-01",
                "1970-02-28",
                "1970-03-01",
                "2024-02-29",
                "2024-03-01",
                "2026-11-21"
            ]
        );
    }

    #[test]
    fn seconds_make_times() {
        assert_eq!(date_time(1_795_269_909), "2026-11-21 14:05:09");
    }

    #[test]
    fn user_share_is_by_ticks() {
        let before = CpuTime {
            nanos: 1_000_000,
            user_ticks: 10,
            system_ticks: 10,
        };
        let after = CpuTime {
            nanos: 5_000_000,
            user_ticks: 11,
            system_ticks: 13,
        };
        assert_eq!(after.micros_since(&before), (4000.0, 1000.0));
        assert_eq!(before.micros_since(&before), (0.0, 0.0));
    }
}
