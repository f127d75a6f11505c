//! The name of a shared subscription (MQTT 5 section 4.8.2).

/// The name of a shared subscription: `$share/{group}/{path}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// The share name.
    pub group: Box<str>,
    /// The filter behind it.
    pub path: Box<str>,
}
