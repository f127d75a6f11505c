//! Topics: their rules, who subscribes to what in one shard, and what shards know of each other's interest.
//!
//! - [`name`] and [`filter`]: the rules of MQTT 5 section 4.7 and 4.8.2, and the plain matcher that the others are tested against.
//! - [`scope`]: whose a name is.
//! - [`hash`]: the one seeded hash of a topic, shared by all reactors.
//! - [`arena`]: text, compactly. [`table`]: from hash to number. `pool`: records by number.
//! - `list`: who subscribes to a filter. `holdings`: what each session subscribes to.
//! - [`trie`]: wildcard filters. [`index`]: the subscriptions of one shard, in terms of [`subscription`].
//! - [`interest`]: which reactors may have a subscriber to an exact topic. [`routes`]: wildcard filters and shared groups of all reactors.
//!
//! Nothing here does I/O, reads a clock or knows a connection.

pub mod arena;
pub mod filter;
#[cfg(test)]
mod generate;
pub mod group;
pub mod hash;
mod holdings;
pub mod index;
pub mod interest;
mod list;
pub mod marks;
pub mod name;
pub(crate) mod pool;
pub mod routes;
pub mod scope;
pub mod subscription;
pub mod table;
pub mod trie;

pub use filter::{Filter, matches};
pub use group::GroupKey;
pub use hash::{TopicHash, TopicHasher};
pub use index::Index;
pub use interest::{Masks, Own, ReactorSet};
pub use marks::Marks;
pub use name::{TopicError, validate_name};
pub use routes::{GroupRef, Routes};
pub use scope::Scope;
pub use subscription::{Ended, Entry, FilterId, Memory, SubOptions, Subscribed, Unsubscribed};
