//! Connects and messages over loopback: what the kernel's TCP takes on this host, both ends together.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use loadgen::machine::CpuTime;
use serde::{Deserialize, Serialize};

use super::network::{self, MESSAGE};
use super::quantile;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tcp {
    pub(crate) connects_per_second: f64,
    /// Connect, accept, close.
    pub(crate) connect_cpu_micros: f64,
    /// 64 bytes each, in rows over one connection.
    pub(crate) messages_per_second: f64,
    /// Write and read of a message by itself, there or back.
    pub(crate) message_cpu_micros: f64,
    pub(crate) round_trip_p50_micros: f64,
    pub(crate) round_trip_p99_micros: f64,
}

const TIME: Duration = Duration::from_secs(4);

pub(super) fn measure() -> io::Result<Tcp> {
    measure_for(TIME)
}

fn measure_for(time: Duration) -> io::Result<Tcp> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let knocks = TcpListener::bind("127.0.0.1:0")?;
    let door = knocks.local_addr()?;
    // Both end with the process.
    std::thread::spawn(move || network::answer(&listener));
    std::thread::spawn(move || {
        while let Ok((socket, _)) = knocks.accept() {
            drop(socket);
        }
    });
    let pid = std::process::id();
    let cpu = CpuTime::of(pid)?;
    let began = Instant::now();
    let mut connects = 0u32;
    while began.elapsed() < time {
        let socket = socket2::Socket::from(TcpStream::connect(door)?);
        socket.set_linger(Some(Duration::ZERO))?;
        connects += 1;
    }
    let connects_per_second = f64::from(connects) / began.elapsed().as_secs_f64();
    let connect_cpu_micros = CpuTime::of(pid)?.micros_since(&cpu).0 / f64::from(connects.max(1));

    let cpu = CpuTime::of(pid)?;
    let trips = network::round_trips(address, time)?;
    let message_cpu_micros =
        CpuTime::of(pid)?.micros_since(&cpu).0 / (2 * trips.len().max(1)) as f64;
    Ok(Tcp {
        connects_per_second,
        connect_cpu_micros,
        messages_per_second: rows(address, time)?,
        message_cpu_micros,
        round_trip_p50_micros: quantile(&trips, 0.5),
        round_trip_p99_micros: quantile(&trips, 0.99),
    })
}

/// Messages a second when 16 are under way at a time.
fn rows(address: std::net::SocketAddr, time: Duration) -> io::Result<f64> {
    const ROW: usize = 16;
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.write_all(&[network::ECHO])?;
    let message = [7; MESSAGE];
    let mut back = [0; MESSAGE * ROW];
    let mut messages = 0;
    let began = Instant::now();
    while began.elapsed() < time {
        for _ in 0..ROW {
            socket.write_all(&message)?;
        }
        socket.read_exact(&mut back)?;
        messages += ROW;
    }
    Ok(messages as f64 / began.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_measured() {
        let tcp = measure_for(Duration::from_millis(30)).unwrap();
        assert!(
            tcp.connects_per_second > 0.0 && tcp.messages_per_second > 0.0,
            "{tcp:?}"
        );
        assert!(
            tcp.round_trip_p99_micros >= tcp.round_trip_p50_micros,
            "{tcp:?}"
        );
    }
}
