//! Sixteen bytes compared at once.

/// Bit `i`: byte `i` is this one.
pub fn same_as(bytes: [u8; 16], byte: u8) -> u16 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE2, and nothing but registers is touched.
    unsafe {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
        let both = u128::from_le_bytes(bytes);
        let bytes = _mm_set_epi64x((both >> 64) as i64, both as i64);
        let same = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte.cast_signed()));
        _mm_movemask_epi8(same) as u16
    }
    #[cfg(not(target_arch = "x86_64"))]
    one_by_one(bytes, byte)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(bytes: [u8; 16], byte: u8) -> u16 {
    let bit = |at: usize| u16::from(bytes[at] == byte) << at;
    (0..16).fold(0, |bits, at| bits | bit(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_at_every_place() {
        for seed in 0..=255_u8 {
            let bytes = std::array::from_fn(|at| seed.wrapping_mul(at as u8 + 3) % 7 * 40);
            for byte in 0..=255 {
                let found = same_as(bytes, byte);
                assert_eq!(found, one_by_one(bytes, byte), "{byte} in {bytes:?}");
            }
        }
        assert_eq!(same_as([9; 16], 9), u16::MAX);
    }
}
