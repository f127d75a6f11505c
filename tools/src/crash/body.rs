//! What stands in a message: who sent it as which, and bytes that follow from that, so that an altered one is known.

/// Bytes before the filling.
pub(super) const HEAD: usize = 32;

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// One publisher, one topic, one QoS.
    pub(super) stream: u32,
    /// Counts from 0 in its stream.
    pub(super) seq: u32,
}

/// The whole payload, of `len` bytes but never less than the head.
pub(super) fn write(run: u64, identity: Identity, len: usize) -> Vec<u8> {
    let len = len.max(HEAD);
    let mut out = Vec::with_capacity(len + 8);
    out.extend_from_slice(&run.to_le_bytes());
    out.extend_from_slice(&identity.stream.to_le_bytes());
    out.extend_from_slice(&identity.seq.to_le_bytes());
    out.extend_from_slice(&(len as u64).to_le_bytes());
    // The generator's first word covers the head, which may be all there is.
    let mut random = fastrand::Rng::with_seed(seed(run, identity) ^ len as u64);
    while out.len() < len {
        out.extend_from_slice(&random.u64(..).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Which message a payload is, if every byte is as it was written.
pub(super) fn read(run: u64, payload: &[u8]) -> Option<Identity> {
    let number = |at: usize| -> Option<[u8; 4]> { payload.get(at..at + 4)?.try_into().ok() };
    let identity = Identity {
        stream: u32::from_le_bytes(number(8)?),
        seq: u32::from_le_bytes(number(12)?),
    };
    (payload == write(run, identity, payload.len())).then_some(identity)
}

fn seed(run: u64, identity: Identity) -> u64 {
    let own = u64::from(identity.stream) << 32 | u64::from(identity.seq);
    (run ^ own).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_altered_byte_is_seen() {
        let identity = Identity { stream: 3, seq: 9 };
        for len in [0, 32, 37, 100] {
            let payload = write(1, identity, len);
            assert_eq!(read(1, &payload), Some(identity));
            assert_eq!(read(2, &payload), None, "of another run");
            assert_eq!(read(1, &payload[..payload.len() - 1]), None, "cut");
            for at in 0..payload.len() {
                let mut bad = payload.clone();
                bad[at] ^= 0x10;
                assert_eq!(read(1, &bad), None, "byte {at}");
            }
        }
    }
}
