//! A message encoded once for each kind of receiver: version, QoS and RETAIN flag. A fan-out copies and patches; it does not encode.

use std::sync::Arc;

use crate::clock::Millis;
use crate::session::message::Message;
use crate::topic::scope::bare;
use crate::wire::publish::{self, PublishOut};
use crate::wire::{Qos, Version};

/// Two formats, three QoS, RETAIN or not.
const KINDS: usize = 12;

/// One PUBLISH packet, ready but for its packet identifier.
#[derive(Debug, Default)]
struct Frame {
    bytes: Vec<u8>,
    /// Where the identifier goes.
    id_at: Option<usize>,
    /// The message it is of, by [`Frames::serial`].
    of: u64,
}

/// The packets of the message that is being delivered.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Holds the message, so that no other one can come to stand at its address. Its expiry interval is that of the moment.
    current: Option<(Arc<Message>, Millis)>,
    /// Counts the messages; a packet of an earlier one is stale.
    serial: u64,
    kinds: [Frame; KINDS],
}

impl Frames {
    /// The packet for one kind of receiver, and where its packet identifier goes.
    pub(super) fn get(
        &mut self,
        message: &Arc<Message>,
        now: Millis,
        version: Version,
        qos: Qos,
        retain: bool,
    ) -> (&mut [u8], Option<usize>) {
        let same = self
            .current
            .as_ref()
            .is_some_and(|(current, at)| Arc::ptr_eq(current, message) && *at == now);
        if !same {
            self.serial += 1;
            self.current = Some((Arc::clone(message), now));
        }
        let kind = usize::from(version == Version::V5) * 6 + qos as usize * 2 + usize::from(retain);
        let frame = &mut self.kinds[kind];
        if frame.of != self.serial {
            frame.bytes.clear();
            let out = PublishOut {
                topic: bare(message.topic()),
                payload: message.payload(),
                forward: message.forward(),
                message_expiry: message.expiry_left(now),
                topic_alias: None,
                subscription_ids: &[],
                qos,
                retain,
                dup: false,
            };
            frame.id_at = publish::encode(&mut frame.bytes, version, &out, None);
            frame.of = self.serial;
        }
        (&mut frame.bytes, frame.id_at)
    }

    /// Lets go of the message, and of buffers that a large one has left.
    pub(super) fn forget(&mut self) {
        self.current = None;
        for frame in &mut self.kinds {
            if frame.bytes.capacity() > KEEP {
                frame.bytes = Vec::new();
            }
        }
    }
}

/// Buffers up to this size are kept between messages.
const KEEP: usize = 64 << 10;
