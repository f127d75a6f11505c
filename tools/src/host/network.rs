//! The network between two hosts, and what answers at the other end. The first byte of a connection says what it is for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::quantile;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) peer: String,
    /// 64 bytes there and back on a connection that stands.
    pub(crate) round_trip_p50_micros: f64,
    pub(crate) round_trip_p99_micros: f64,
    /// One after the other: each waits for its handshake.
    pub(crate) connects_per_second: f64,
    /// To the other host, over one connection.
    pub(crate) bytes_per_second: f64,
}

/// Sends back what comes.
pub(super) const ECHO: u8 = b'e';
/// Counts what comes, and says at the end of it that it has come.
const SINK: u8 = b's';

/// Bytes of a message.
pub(super) const MESSAGE: usize = 64;

/// Until it is killed.
pub(super) fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    eprintln!("host-eval: answering at {}", listener.local_addr()?);
    answer(&listener)
}

/// Answers on a listener until it fails.
pub(super) fn answer(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept()?;
        // A peer that breaks off is its own business.
        std::thread::spawn(move || attend(socket));
    }
}

fn attend(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    let mut kind = [0];
    if socket.read(&mut kind)? == 0 {
        return Ok(());
    }
    loop {
        let n = socket.read(&mut buffer)?;
        match (n, kind[0]) {
            (0, SINK) => return socket.write_all(&[SINK]),
            (0, _) => return Ok(()),
            (_, ECHO) => socket.write_all(&buffer[..n])?,
            _ => {}
        }
    }
}

/// Messages there and back, for a time: microseconds each, sorted.
pub(super) fn round_trips(peer: SocketAddr, time: Duration) -> io::Result<Vec<f64>> {
    let mut socket = TcpStream::connect(peer)?;
    socket.set_nodelay(true)?;
    socket.write_all(&[ECHO])?;
    let mut trips = Vec::new();
    let mut message = [7; MESSAGE];
    let began = Instant::now();
    while began.elapsed() < time {
        let sent = Instant::now();
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
        trips.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    trips.sort_unstable_by(f64::total_cmp);
    Ok(trips)
}

pub(super) fn measure(peer: SocketAddr) -> io::Result<Network> {
    let trips = round_trips(peer, Duration::from_secs(5))?;
    let began = Instant::now();
    let mut connects = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let socket = socket2::Socket::from(TcpStream::connect(peer)?);
        // No TIME_WAIT: there are 28,000 ports, and it may be fast.
        socket.set_linger(Some(Duration::ZERO))?;
        connects += 1;
    }
    let connects_per_second = f64::from(connects) / began.elapsed().as_secs_f64();
    let mut socket = TcpStream::connect(peer)?;
    socket.write_all(&[SINK])?;
    let chunk = vec![0; 256 << 10];
    let began = Instant::now();
    let mut bytes = 0;
    while began.elapsed() < Duration::from_secs(5) {
        socket.write_all(&chunk)?;
        bytes += chunk.len();
    }
    socket.shutdown(std::net::Shutdown::Write)?;
    socket.read_exact(&mut [0])?;
    Ok(Network {
        peer: peer.to_string(),
        round_trip_p50_micros: quantile(&trips, 0.5),
        round_trip_p99_micros: quantile(&trips, 0.99),
        connects_per_second,
        bytes_per_second: bytes as f64 / began.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_understand_each_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        std::thread::spawn(move || answer(&listener));
        let trips = round_trips(peer, Duration::from_millis(20)).unwrap();
        assert!(!trips.is_empty() && trips.is_sorted());
        let mut socket = TcpStream::connect(peer).unwrap();
        socket.write_all(&[SINK, 1, 2, 3]).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = Vec::new();
        socket.read_to_end(&mut said).unwrap();
        assert_eq!(said, [SINK]);
    }
}
