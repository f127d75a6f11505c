//! The wire cases: each broke a broker somewhere. The peer gets the error of the standard, nobody else notices, memory stays.

use std::path::Path;
use std::time::Duration;

use super::cases::{self, Case, Expect};
use super::support::{
    Broker, Client, Connect, Event, PATIENCE, Packet, Server, packet, with_one_and_three_reactors,
};

with_one_and_three_reactors!(every_case_of_the_files);

/// How far the server's memory may go above where it was before the first case.
const GROWTH: u64 = 24 << 20;

fn every_case_of_the_files(reactors: usize) {
    let server = Server::with(reactors, &[("sys_interval", 0)]);
    let mut control = Control::new(&server, reactors);
    let before = server.pss();
    let mut wrong = Vec::new();
    let mut ran = 0;
    let cases = cases::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"));
    for case in &cases {
        for &version in &case.versions {
            let bytes = case.bytes(version);
            let whole = [bytes.as_slice()];
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let deliveries: &[&[&[u8]]] = if bytes.len() <= 120 {
                &[&whole, &single]
            } else {
                &[&whole]
            };
            for pieces in deliveries {
                ran += 1;
                if let Err(what) = run(&server, case, version, pieces) {
                    let how = if pieces.len() > 1 {
                        "byte by byte"
                    } else {
                        "whole"
                    };
                    wrong.push(format!("MQTT {version}, {}, {how}: {what}", case.name));
                }
            }
        }
        control.round(&case.name);
        let grown = server.pss().saturating_sub(before);
        if grown > GROWTH {
            wrong.push(format!(
                "{}: the server's memory grew by {grown} bytes",
                case.name
            ));
            break;
        }
    }
    println!("{ran} runs of {} cases, {} wrong", cases.len(), wrong.len());
    if Broker::under_test() == Broker::Mosquitto {
        // mosquitto decides many of these otherwise; the list is for the eye.
        wrong.iter().for_each(|line| println!("  {line}"));
        return;
    }
    assert!(
        wrong.is_empty(),
        "{} of {ran}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Two clients that have nothing to do with the cases and must keep getting what they send each other.
struct Control {
    topic: String,
    publisher: Client,
    subscriber: Client,
    sent: u32,
}

impl Control {
    fn new(server: &Server, reactors: usize) -> Self {
        let topic = format!("control/r{reactors}");
        let mut subscriber = server.client(5, "control subscriber");
        subscriber.subscribe(&topic, 1);
        Self {
            topic,
            publisher: server.client(4, "control publisher"),
            subscriber,
            sent: 0,
        }
    }

    fn round(&mut self, after: &str) {
        self.sent += 1;
        let payload = self.sent.to_string();
        assert_eq!(
            self.publisher.publish(&self.topic, payload.as_bytes(), 1),
            0
        );
        let message = self.subscriber.take();
        assert_eq!(
            (message.topic.as_str(), message.text()),
            (self.topic.as_str(), payload.as_str()),
            "after {after}"
        );
    }
}

/// What came of a case.
#[derive(Debug)]
struct Outcome {
    closed: bool,
    code: Option<u8>,
    packets: Vec<Packet>,
}

fn run(server: &Server, case: &Case, version: u8, pieces: &[&[u8]]) -> Result<(), String> {
    let mut client = server.open(version);
    if case.connected {
        client.connect(&Connect::new(version, &format!("case {version}")));
    }
    for piece in pieces {
        client.send(piece);
    }
    if case.cut {
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
    } else {
        client.send(&packet::PINGREQ);
    }
    let outcome = outcome(&mut client, case.cut)?;
    let expects = case.expects(version);
    if !expects.iter().any(|expect| fits(*expect, &outcome)) {
        return Err(format!("expected {expects:02x?}, got {}", outcome.brief()));
    }
    if let Some(answer) = case.answer(version) {
        let mut due = Vec::new();
        let mut rest = answer.as_slice();
        while let Some((packet, len)) = packet::split(rest, version) {
            due.push(packet);
            rest = &rest[len..];
        }
        if !answered(&outcome.packets, &due) {
            return Err(format!("the answer is {:?}, not {due:?}", outcome.packets));
        }
    }
    Ok(())
}

/// CONNACK and SUBACK may carry properties that a case doesn't name.
fn answered(have: &[Packet], due: &[Packet]) -> bool {
    have.len() == due.len()
        && have.iter().zip(due).all(|(have, due)| match (have, due) {
            (
                Packet::Connack {
                    present: a,
                    code: b,
                    ..
                },
                Packet::Connack {
                    present: c,
                    code: d,
                    ..
                },
            ) => (a, b) == (c, d),
            (
                Packet::Ack {
                    kind: a,
                    id: b,
                    code: c,
                    ..
                },
                Packet::Ack {
                    kind: d,
                    id: e,
                    code: f,
                    ..
                },
            ) => (a, b, c) == (d, e, f),
            (
                Packet::Suback {
                    id: a, codes: b, ..
                },
                Packet::Suback {
                    id: c, codes: d, ..
                },
            )
            | (
                Packet::Unsuback {
                    id: a, codes: b, ..
                },
                Packet::Unsuback {
                    id: c, codes: d, ..
                },
            ) => (a, b) == (c, d),
            _ => have == due,
        })
}

/// Reads until the answer to PINGREQ, or the end.
fn outcome(client: &mut Client, cut: bool) -> Result<Outcome, String> {
    let mut outcome = Outcome {
        closed: false,
        code: None,
        packets: Vec::new(),
    };
    loop {
        match client.event(PATIENCE) {
            Event::Packet(Packet::Pingresp) if !cut => {
                // A server that answers and closes afterwards all the same is caught by what comes next.
                if let Event::Nothing = client.event(Duration::from_millis(1)) {
                    return Ok(outcome);
                }
                outcome.packets.push(Packet::Pingresp);
                return follow(client, outcome);
            }
            Event::Packet(packet) => outcome.take(packet),
            Event::Closed => {
                outcome.closed = true;
                return if client.leftover().is_empty() {
                    Ok(outcome)
                } else {
                    Err(format!(
                        "half a packet at the end: {:02x?}",
                        client.leftover()
                    ))
                };
            }
            Event::Nothing => {
                return Err(format!(
                    "neither answer nor end; so far {}",
                    outcome.brief()
                ));
            }
        }
    }
}

/// More than one PINGREQ was in the case, or the end came after the answer.
fn follow(client: &mut Client, mut outcome: Outcome) -> Result<Outcome, String> {
    loop {
        match client.event(Duration::from_millis(50)) {
            Event::Packet(packet) => outcome.take(packet),
            Event::Nothing => return Ok(outcome),
            Event::Closed => {
                outcome.closed = true;
                return Ok(outcome);
            }
        }
    }
}

impl Outcome {
    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::Disconnect { code, .. } => self.code = Some(code),
            Packet::Connack { code, .. } if code != 0 => self.code = Some(code),
            packet => self.packets.push(packet),
        }
    }

    fn brief(&self) -> String {
        let first: Vec<_> = self.packets.iter().take(4).collect();
        let end = if self.closed { "closed" } else { "open" };
        format!(
            "{end}, code {:02x?}, {} packets {first:?}",
            self.code,
            self.packets.len()
        )
    }
}

fn fits(expect: Expect, outcome: &Outcome) -> bool {
    match expect {
        Expect::Open => !outcome.closed,
        Expect::Close => outcome.closed && outcome.code.is_none(),
        Expect::Code(code) => outcome.closed && outcome.code == Some(code),
        Expect::Ack(code) => {
            !outcome.closed
                && outcome
                    .packets
                    .iter()
                    .any(|packet| matches!(packet, Packet::Ack { code: have, .. } if *have == code))
        }
        Expect::Sub(code) => !outcome.closed
            && outcome.packets.iter().any(
                |packet| matches!(packet, Packet::Suback { codes, .. } if codes.contains(&code)),
            ),
    }
}
