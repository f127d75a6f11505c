//! What a message carries: who it is for, its place in the sequence, and when it was planned to leave.
//!
//! Layout, little endian: `"SW"`, kind, filler byte, run (u32), phone (u32), sequence (u32), planned (u64), then filler up to the
//! size that was asked for. The filler is checked, so that a mix-up of bytes is seen.

/// Bytes of the fields; no payload is shorter.
pub const HEADER: usize = 24;

const MAGIC: [u8; 2] = *b"SW";

/// What sort of push a message belongs to. Each has its own sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To one phone, QoS 0.
    Unicast0,
    /// To one phone, QoS 1.
    Unicast1,
    /// To all phones, QoS 0.
    Broadcast,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Unicast0, Self::Unicast1, Self::Broadcast];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// The fields of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Tells the messages of this run from what an earlier one left in a broker's queues.
    pub run: u32,
    /// The sort of push.
    pub kind: Kind,
    /// The phone it is for; 0 for all.
    pub phone: u32,
    /// Counts from 1 in each kind, and for unicasts in each phone.
    pub sequence: u32,
    /// When it should have left, by [`crate::clock::now`].
    pub planned: u64,
}

impl Payload {
    /// Writes the payload, `size` bytes long ([`HEADER`] at least), over `out`.
    pub fn write(&self, size: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&MAGIC);
        out.push(self.kind as u8);
        out.push(self.filler());
        out.extend_from_slice(&self.run.to_le_bytes());
        out.extend_from_slice(&self.phone.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.planned.to_le_bytes());
        out.resize(size.max(HEADER), self.filler());
    }

    /// Reads a payload; `None` if it isn't one of ours, or was damaged.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        if header[..2] != MAGIC {
            return None;
        }
        let u32_at = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let payload = Self {
            kind: Kind::from_byte(header[2])?,
            run: u32_at(4),
            phone: u32_at(8),
            sequence: u32_at(12),
            planned: u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32,
        };
        let filler = payload.filler();
        (header[3] == filler && rest.iter().all(|&byte| byte == filler)).then_some(payload)
    }

    fn filler(&self) -> u8 {
        (self.sequence ^ self.phone)
            .to_le_bytes()
            .iter()
            .fold(0x5A, |sum, &byte| sum ^ byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_seen() {
        let payload = Payload {
            run: 7,
            kind: Kind::Unicast1,
            phone: 12_345,
            sequence: 99,
            planned: 1 << 40,
        };
        let mut bytes = Vec::new();
        payload.write(64, &mut bytes);
        assert_eq!(bytes.len(), 64);
        assert_eq!(Payload::read(&bytes), Some(payload));
        for at in [0, 2, 3, 40, 63] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(Payload::read(&damaged), None, "byte {at}");
        }
        assert_eq!(Payload::read(&bytes[..20]), None);
        payload.write(0, &mut bytes);
        assert_eq!(bytes.len(), HEADER);
    }
}
