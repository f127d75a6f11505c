//! Many clients that speak at the same moment, in pieces: what one says never reaches the shard as another's.

use super::support::{Publish, Server, with_one_and_three_reactors};

with_one_and_three_reactors!(pieces_of_many_stay_apart);

const CLIENTS: usize = 24;
const ROUNDS: usize = 60;

/// Each round every client sends the rest of one packet and the beginning of the next, so that connections with something left over stand between
/// others that have nothing.
fn pieces_of_many_stay_apart(reactors: usize) {
    let server = Server::start(reactors);
    let mut listener = server.client(4, "listener");
    listener.subscribe("from/#", 0);
    let topics: Vec<_> = (0..CLIENTS).map(|n| format!("from/{n}")).collect();
    let mut clients: Vec<_> = topics.iter().map(|id| server.client(4, id)).collect();
    let packet = |client: usize, round: usize| {
        Publish {
            topic: &topics[client],
            payload: &vec![client as u8; 1 + (client * 7 + round * 3) % 90],
            ..Publish::default()
        }
        .encode(4)
    };
    // Every third client has always sent whole packets.
    let cut = |client: usize, round: usize, len: usize| match client % 3 {
        0 => len,
        _ => (client + round * 5) % len,
    };
    for round in 0..ROUNDS {
        for (n, client) in clients.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            if round > 0 {
                let last = packet(n, round - 1);
                bytes.extend_from_slice(&last[cut(n, round - 1, last.len())..]);
            }
            let next = packet(n, round);
            bytes.extend_from_slice(&next[..cut(n, round, next.len())]);
            client.send(&bytes);
        }
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let last = packet(n, ROUNDS - 1);
        client.send(&last[cut(n, ROUNDS - 1, last.len())..]);
    }
    let mut seen = [0; CLIENTS];
    for _ in 0..CLIENTS * ROUNDS {
        let message = listener.take();
        let n: usize = message.topic["from/".len()..].parse().expect("a number");
        let expected = vec![n as u8; 1 + (n * 7 + seen[n] * 3) % 90];
        assert_eq!(message.payload, expected, "message {} of {n}", seen[n]);
        seen[n] += 1;
    }
    for client in &mut clients {
        client.fence();
    }
}
