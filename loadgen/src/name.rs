//! The names that follow from a phone's number: its client id and its topic. Nothing is stored.

/// The topic that every phone subscribes to.
pub const SHARED_TOPIC: &str = "all";

/// A client id is `ph` and ten digits.
const ID: usize = 12;

const PREFIX: &[u8; 5] = b"push/";

/// The names of one phone, written on the stack.
#[derive(Clone, Copy, Debug)]
pub struct Name([u8; PREFIX.len() + ID]);

impl Name {
    /// The names of phone `number`.
    pub fn of(number: u32) -> Self {
        let mut text = [b'0'; PREFIX.len() + ID];
        text[..PREFIX.len()].copy_from_slice(PREFIX);
        text[PREFIX.len()..PREFIX.len() + 2].copy_from_slice(b"ph");
        let mut rest = number;
        for digit in text.iter_mut().rev().take(ID - 2) {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        Self(text)
    }

    /// `push/` and the client id.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_else(|_| unreachable!("letters and digits"))
    }

    /// The client id.
    pub fn client_id(&self) -> &str {
        &self.topic()[PREFIX.len()..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_a_phone() {
        assert_eq!(Name::of(0).client_id(), "ph0000000000");
        assert_eq!(Name::of(123_456).topic(), "push/ph0000123456");
        assert_eq!(Name::of(u32::MAX).client_id(), "ph4294967295");
    }
}
