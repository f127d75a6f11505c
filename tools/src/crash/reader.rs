//! A client that comes for the retained messages alone, and says whether they are the right ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::model::Model;
use crate::packet::{self, Connect, PINGREQ, Packet};

/// Of all retained topics.
pub(super) const PREFIX: &str = "r/";

/// How long it waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Subscribes to all retained topics. What is wrong with a message is told to the model; an error says that one didn't come.
pub(super) fn check(addr: SocketAddr, version: u8, model: &mut Model) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("its connection failed: {error}");
    let mut stream = TcpStream::connect(addr).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut out = Vec::new();
    let connect = Connect {
        version,
        id: "reader",
        clean: true,
        expiry: 0,
        receive_maximum: 100,
    };
    connect.write(&mut out);
    let floor = model.retained_floor();
    packet::subscription(version, 1, &format!("{PREFIX}+"), Some(0), &mut out);
    stream.write_all(&out).map_err(failed)?;
    let mut missing: Vec<usize> = (0..floor.len())
        .filter(|&topic| model.is_retained(topic, floor[topic]))
        .collect();
    let mut input = Vec::new();
    // What must not come would come before the answer to the ping, which is asked for when all that must is there.
    let (mut granted, mut asked, mut answered) = (false, false, false);
    while !answered {
        if granted && missing.is_empty() && !asked {
            stream.write_all(&PINGREQ).map_err(failed)?;
            asked = true;
        }
        let mut chunk = [0; 16 << 10];
        let count = match stream.read(&mut chunk) {
            Ok(0) => return Err("its connection was closed".into()),
            Ok(count) => count,
            Err(_) => {
                let names: Vec<&str> = missing.iter().map(|&topic| model.topic(topic)).collect();
                return Err(format!("nothing came for {}", names.join(", ")));
            }
        };
        input.extend_from_slice(&chunk[..count]);
        let mut at = 0;
        while let Some((packet, len)) = packet::split(&input[at..], version)? {
            at += len;
            match packet {
                Packet::Suback { code, .. } => granted = code == 0,
                Packet::Pingresp => answered = true,
                Packet::Publish(publish) if publish.retain => {
                    let topic = model.retained("a reader", &floor, publish.topic, publish.payload);
                    missing.retain(|&of| Some(of) != topic);
                }
                _ => {}
            }
        }
        input.drain(..at);
    }
    Ok(())
}
