//! A million connections: the server's report, the load generator's preflight and the sums agree to the byte, the file and the page.

use loadgen::preflight::{Machine, Need, Shortage};
use loadgen::sources::Sources;
use stillwire::sizing::{Role, Sums};
use stillwire::sys::capacity::{self, Capacity};

const MILLION: u64 = 1_000_000;

/// A machine that has exactly what the sums say, for a server.
fn server(sums: &Sums) -> capacity::Machine {
    capacity::Machine {
        cores: sums.threads,
        open_files: sums.files_each,
        memory: sums.memory,
        tcp_pages: Some(sums.tcp_pages),
    }
}

#[test]
fn the_server_s_report_allows_a_million_on_what_the_sums_ask_and_not_on_less() {
    for reactors in [1, 2, 53] {
        let sums = Sums::of(MILLION, Role::Server, reactors);
        let machine = server(&sums);
        let enough = Capacity::of(&machine, reactors);
        assert_eq!((enough.memory, enough.tcp_mem), (MILLION, Some(MILLION)));
        // The tables are asked for as a whole file each, so a few more may fit.
        assert!(enough.connections() == MILLION, "{enough}");
        for less in [
            capacity::Machine {
                memory: machine.memory - 1,
                ..machine
            },
            capacity::Machine {
                open_files: machine.open_files - 1,
                ..machine
            },
            capacity::Machine {
                tcp_pages: Some(sums.tcp_pages - 1),
                ..machine
            },
        ] {
            let short = Capacity::of(&less, reactors).connections();
            assert!(short < MILLION && short > MILLION - 64, "{less:?}: {short}");
        }
    }
}

#[test]
fn the_preflight_lets_a_million_pass_on_what_the_sums_ask_and_not_on_less() {
    for (role, broker_here) in [(Role::Loadgen, false), (Role::Both, true)] {
        let threads = 51;
        let sums = Sums::of(MILLION, Role::Loadgen, threads);
        let memory = Sums::of(MILLION, role, threads).memory;
        let machine = Machine {
            open_files: sums.files_each,
            ports: 28_232,
            tcp_buffers: sums.tcp_pages * 4096,
            memory,
            cores: 2,
        };
        let need = Need {
            tickets: None,
            phones: MILLION as u32,
            threads,
            sources: Sources::Loopback,
            targets: 1,
            broker_here,
            broadcasts: true,
        };
        assert_eq!(machine.check(&need), []);
        let few_files = Machine {
            open_files: sums.files_each - 1,
            ..machine
        };
        assert_eq!(
            few_files.check(&need),
            [Shortage::Files {
                need: sums.files_each,
                have: sums.files_each - 1
            }]
        );
        let little_memory = Machine {
            memory: memory - 1,
            ..machine
        };
        assert!(
            matches!(little_memory.check(&need)[..], [Shortage::Memory { need, .. }] if need == memory)
        );
        let few_pages = Machine {
            tcp_buffers: machine.tcp_buffers - 1,
            ..machine
        };
        let [shortage] = &few_pages.check(&need)[..] else {
            panic!("one shortage")
        };
        let [low, pressure, most] = sums.tcp_mem;
        let command = format!("sysctl -w net.ipv4.tcp_mem='{low} {pressure} {most}'");
        assert!(shortage.to_string().contains(&command), "{shortage}");
    }
}
