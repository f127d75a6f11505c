//! Topic aliases of one connection, each way (MQTT 5 section 3.3.2.3.4).

/// Aliases that the client has set. Allocated on the first.
#[derive(Debug, Default)]
pub struct Inbound {
    topics: Vec<Option<Box<str>>>,
}

impl Inbound {
    /// Sets an alias; `alias` is within the announced maximum.
    pub fn set(&mut self, alias: u16, topic: &str) {
        let at = usize::from(alias);
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        if self.topics[at].as_deref() != Some(topic) {
            self.topics[at] = Some(topic.into());
        }
    }

    /// True if none is set.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The topic of an alias.
    pub fn get(&self, alias: u16) -> Option<&str> {
        self.topics.get(usize::from(alias))?.as_deref()
    }
}

/// Aliases that we have set towards the client: the first topics it got have one, until its maximum is used up.
#[derive(Debug)]
pub struct Outbound {
    topics: Vec<Box<str>>,
    maximum: u16,
}

/// How to name a topic towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By its name alone.
    Name,
    /// By its name, and set this alias.
    Introduce(u16),
    /// By this alias alone.
    Alias(u16),
}

impl Outbound {
    /// `maximum` is the lower of the client's Topic Alias Maximum and our own.
    pub fn new(maximum: u16) -> Self {
        Self {
            topics: Vec::new(),
            maximum,
        }
    }

    /// How to name this topic in the next packet. Nothing is remembered yet, for the packet may turn out too large to be sent.
    pub fn naming(&self, topic: &str) -> Naming {
        match self.topics.iter().position(|known| &**known == topic) {
            Some(at) => Naming::Alias(at as u16 + 1),
            None if self.topics.len() < usize::from(self.maximum) => {
                Naming::Introduce(self.topics.len() as u16 + 1)
            }
            None => Naming::Name,
        }
    }

    /// The packet that introduces the next alias has been queued.
    pub fn introduced(&mut self, topic: &str) {
        debug_assert!(self.topics.len() < usize::from(self.maximum));
        self.topics.push(topic.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbound_aliases_are_set_and_replaced() {
        let mut aliases = Inbound::default();
        assert_eq!(aliases.get(3), None);
        aliases.set(3, "a/b");
        assert_eq!(aliases.get(3), Some("a/b"));
        assert_eq!(aliases.get(2), None);
        aliases.set(3, "c");
        assert_eq!(aliases.get(3), Some("c"));
    }

    #[test]
    fn outbound_aliases_stop_at_the_maximum() {
        let mut aliases = Outbound::new(1);
        assert_eq!(aliases.naming("a"), Naming::Introduce(1));
        aliases.introduced("a");
        assert_eq!(aliases.naming("a"), Naming::Alias(1));
        assert_eq!(aliases.naming("b"), Naming::Name);
    }
}
