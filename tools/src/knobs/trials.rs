//! The table of trials: a setting, its values, and the load that shows what it does.

use std::io;
use std::process::Command;

use super::{Figures, load};

/// One setting.
pub(super) struct Trial {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) cases: &'static [Case],
    /// Makes a case's values hold.
    pub(super) set: fn(&[(&str, &str)]) -> io::Result<()>,
    pub(super) load: fn() -> io::Result<Figures>,
}

/// One of its values.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) values: &'static [(&'static str, &'static str)],
}

const fn case(name: &'static str, values: &'static [(&'static str, &'static str)]) -> Case {
    Case { name, values }
}

fn path(sysctl: &str) -> String {
    format!("/proc/sys/{}", sysctl.replace('.', "/"))
}

/// The sysctls that a trial's cases set, and what they are.
pub(super) fn as_they_are(trial: &Trial) -> Vec<(String, String)> {
    let names = trial.cases.iter().flat_map(|case| case.values);
    let read = |(name, _): &(&str, &str)| {
        let path = path(name);
        std::fs::read_to_string(&path)
            .ok()
            .map(|value| (path, value))
    };
    names.filter_map(read).collect()
}

/// The namespace's own sysctls.
fn sysctls(values: &[(&str, &str)]) -> io::Result<()> {
    for (name, value) in values {
        let path = path(name);
        std::fs::write(&path, value)
            .map_err(|error| io::Error::other(format!("{name}: {error}")))?;
    }
    Ok(())
}

/// A rule that makes the kernel track connections, or none.
fn tracking(values: &[(&str, &str)]) -> io::Result<()> {
    let nft = |rules: &str| -> io::Result<bool> {
        Ok(Command::new("nft")
            .arg(rules)
            .output()
            .map_err(|error| io::Error::other(format!("nft (Debian: nftables): {error}")))?
            .status
            .success())
    };
    // There may be none to remove.
    nft("delete table ip stillwire")?;
    if values[0].1 == "on" {
        let rules = "add table ip stillwire; add chain ip stillwire in { type filter hook input priority 0; }; \
                     add rule ip stillwire in ct state new counter";
        if !nft(rules)? {
            return Err(io::Error::other("nft: the rule isn't taken"));
        }
    }
    Ok(())
}

/// What the load itself reads.
#[allow(clippy::unnecessary_wraps, reason = "as the other ways to set a case")]
fn choice(values: &[(&str, &str)]) -> io::Result<()> {
    load::choose(values[0].1);
    Ok(())
}

pub(super) const TRIALS: &[Trial] = &[
    Trial {
        name: "somaxconn",
        about: "12,000 connect at once to a server that begins to accept a second later, backlog 65,535",
        cases: &[
            case(
                "128 (default before Linux 5.4)",
                &[("net.core.somaxconn", "128")],
            ),
            case("4096 (default)", &[("net.core.somaxconn", "4096")]),
            case("65535", &[("net.core.somaxconn", "65535")]),
        ],
        set: sysctls,
        load: load::backlog,
    },
    Trial {
        name: "tcp_max_syn_backlog",
        about: "6,000 connect and say nothing, with deferred accept: they wait as half-open ones",
        cases: &[
            case(
                "256, syncookies on",
                &[
                    ("net.ipv4.tcp_max_syn_backlog", "256"),
                    ("net.ipv4.tcp_syncookies", "1"),
                    ("net.core.somaxconn", "65535"),
                ],
            ),
            case(
                "65536, syncookies on",
                &[
                    ("net.ipv4.tcp_max_syn_backlog", "65536"),
                    ("net.ipv4.tcp_syncookies", "1"),
                    ("net.core.somaxconn", "65535"),
                ],
            ),
            case(
                "256, syncookies off",
                &[
                    ("net.ipv4.tcp_max_syn_backlog", "256"),
                    ("net.ipv4.tcp_syncookies", "0"),
                    ("net.core.somaxconn", "65535"),
                ],
            ),
            case(
                "65536, syncookies off",
                &[
                    ("net.ipv4.tcp_max_syn_backlog", "65536"),
                    ("net.ipv4.tcp_syncookies", "0"),
                    ("net.core.somaxconn", "65535"),
                ],
            ),
            case(
                "65536, syncookies on, somaxconn 1024",
                &[
                    ("net.ipv4.tcp_max_syn_backlog", "65536"),
                    ("net.ipv4.tcp_syncookies", "1"),
                    ("net.core.somaxconn", "1024"),
                ],
            ),
            case(
                "65536, syncookies off, somaxconn 1024",
                &[
                    ("net.ipv4.tcp_max_syn_backlog", "65536"),
                    ("net.ipv4.tcp_syncookies", "0"),
                    ("net.core.somaxconn", "1024"),
                ],
            ),
        ],
        set: sysctls,
        load: load::half_open,
    },
    Trial {
        name: "tcp_mem",
        about: "one message of 64 bytes that 4,000 phones haven't read: pages of tcp_mem, of all that is pending",
        cases: &[
            case("nothing pending", &[("", "0")]),
            case("64 bytes pending", &[("", "64")]),
            case("1,400 bytes pending", &[("", "1400")]),
        ],
        set: choice,
        load: load::pending_pages,
    },
    Trial {
        name: "tcp_notsent_lowat",
        about: "200 phones that read nothing, messages of 1,000 bytes until the socket is full",
        cases: &[
            case(
                "4294967295 (default)",
                &[("net.ipv4.tcp_notsent_lowat", "4294967295")],
            ),
            case("131072", &[("net.ipv4.tcp_notsent_lowat", "131072")]),
            case("16384", &[("net.ipv4.tcp_notsent_lowat", "16384")]),
        ],
        set: sysctls,
        load: load::slow_readers,
    },
    Trial {
        name: "tcp_wmem",
        about: "the same with a smaller most for the send buffer instead",
        cases: &[
            case(
                "4 MB (default)",
                &[
                    ("net.ipv4.tcp_notsent_lowat", "4294967295"),
                    ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
                ],
            ),
            case("256 KB", &[("net.ipv4.tcp_wmem", "4096 16384 262144")]),
        ],
        set: sysctls,
        load: load::slow_readers,
    },
    Trial {
        name: "tcp_tw_reuse",
        about: "connects to one address for 4 s, closed by the caller, from 2,000 ports",
        cases: &[
            case(
                "0",
                &[
                    ("net.ipv4.tcp_tw_reuse", "0"),
                    ("net.ipv4.ip_local_port_range", "30000 31999"),
                ],
            ),
            case(
                "1",
                &[
                    ("net.ipv4.tcp_tw_reuse", "1"),
                    ("net.ipv4.ip_local_port_range", "30000 31999"),
                ],
            ),
            case(
                "2 (default: loopback only)",
                &[
                    ("net.ipv4.tcp_tw_reuse", "2"),
                    ("net.ipv4.ip_local_port_range", "30000 31999"),
                ],
            ),
        ],
        set: sysctls,
        load: load::ports,
    },
    Trial {
        name: "defer_accept",
        about: "6,000 phones connect and say hello; CPU of the server's thread for one of them",
        cases: &[
            case("off: accept, watch, wake, read", &[("", "off")]),
            case("on: accept and read", &[("", "on")]),
        ],
        set: choice,
        load: load::hello,
    },
    Trial {
        name: "conntrack",
        about: "the same with a rule that makes the kernel track connections; CPU of the whole process",
        cases: &[case("off", &[("", "off")]), case("on", &[("", "on")])],
        set: tracking,
        load: load::tracked,
    },
    Trial {
        name: "thash_entries",
        about: "8,000 connections in a kernel table of so many buckets; CPU of a message to one of them and back",
        cases: &[
            case(
                "256 (chains of 62)",
                &[("net.ipv4.tcp_child_ehash_entries", "256")],
            ),
            case(
                "4096 (chains of 4)",
                &[("net.ipv4.tcp_child_ehash_entries", "4096")],
            ),
            case("65536", &[("net.ipv4.tcp_child_ehash_entries", "65536")]),
        ],
        set: sysctls,
        load: load::in_small_table,
    },
    Trial {
        name: "open files",
        about: "sockets that a process gets before it is told that there are too many",
        cases: &[
            case("ulimit -n 1024 (default)", &[("", "1024")]),
            case("ulimit -n 16384", &[("", "16384")]),
        ],
        set: choice,
        load: load::files,
    },
];
