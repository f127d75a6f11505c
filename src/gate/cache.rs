//! What the hook has said lately. No password is kept: the key is a keyed hash of the whole question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::access::{Hooked, Question};
use crate::limits;

/// What the hook says of a client.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// Come in.
    Yes(Arc<Hooked>),
    /// Stay out.
    No,
}

/// A question, known by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// Two generations: new answers go into the young one, which becomes the old one when it is full. What was in the old one then is forgotten, so
/// that room costs no search.
#[derive(Debug)]
pub(super) struct Cache {
    secret: [u8; 32],
    life: Duration,
    young: HashMap<Key, (Instant, Said)>,
    old: HashMap<Key, (Instant, Said)>,
}

impl Cache {
    /// Keeps answers for so long.
    pub(super) fn new(secret: [u8; 32], life: Duration) -> Self {
        Self {
            secret,
            life,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// The key of a question.
    pub(super) fn key(&self, question: &Question) -> Key {
        let mut hash = Sha256::new_with_prefix(self.secret);
        // Each part with its length, so that no two questions are one text.
        let mut add = |part: Option<&[u8]>| {
            hash.update(
                part.map_or(u64::MAX, |part| part.len() as u64)
                    .to_be_bytes(),
            );
            hash.update(part.unwrap_or_default());
        };
        add(Some(question.client_id.as_bytes()));
        add(question.user.as_deref().map(str::as_bytes));
        add(question.password.as_deref());
        add(Some(question.address.to_string().as_bytes()));
        Key(hash.finalize().into())
    }

    /// What was said, if it still holds.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Said> {
        let (end, said) = self.young.get(key).or_else(|| self.old.get(key))?;
        (now < *end).then(|| said.clone())
    }

    /// Keeps what was said.
    pub(super) fn put(&mut self, key: Key, said: Said, now: Instant) {
        if self.life.is_zero() {
            return;
        }
        if self.young.len() >= limits::HOOK_CACHE / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (now + self.life, said));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, Credentials, Decision, UnixSeconds};
    use crate::config::resolved::{self, Method};

    fn question(client_id: &str, user: Option<&str>, password: Option<&[u8]>) -> Question {
        let access = Access::load(&resolved::Access::default(), &[Method::Http]).unwrap();
        let credentials = Credentials {
            client_id,
            user,
            password,
            address: [127, 0, 0, 1].into(),
        };
        match access.authenticate(&credentials, UnixSeconds(0)) {
            Decision::Ask(question) => question,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_differs_has_another_key() {
        let cache = Cache::new([1; 32], Duration::from_secs(1));
        let questions = [
            question("a", None, None),
            question("a", Some(""), None),
            question("a", None, Some(b"")),
            question("a", Some("b"), Some(b"c")),
            question("ab", Some(""), Some(b"c")),
            question("a", Some("bc"), Some(b"")),
            question("", Some("ab"), Some(b"c")),
        ];
        let keys: std::collections::HashSet<Key> = questions
            .iter()
            .map(|question| cache.key(question))
            .collect();
        assert_eq!(keys.len(), questions.len());
        let other = Cache::new([2; 32], Duration::from_secs(1));
        assert!(
            questions
                .iter()
                .all(|question| !keys.contains(&other.key(question)))
        );
    }

    #[test]
    fn it_forgets_with_time_and_is_bounded() {
        let mut cache = Cache::new([1; 32], Duration::from_secs(10));
        let start = Instant::now();
        let key = |n: u64| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            Key(key)
        };
        cache.put(key(0), Said::No, start);
        let just_before = start + Duration::from_millis(9_999);
        assert!(matches!(cache.get(&key(0), just_before), Some(Said::No)));
        assert!(
            cache
                .get(&key(0), start + Duration::from_secs(10))
                .is_none()
        );
        let many = 3 * limits::HOOK_CACHE as u64;
        for n in 0..many {
            cache.put(key(n), Said::No, start);
            assert!(cache.young.len() + cache.old.len() <= limits::HOOK_CACHE);
        }
        // The newer half is there whatever came.
        assert!(
            (many - limits::HOOK_CACHE as u64 / 2..many)
                .all(|n| cache.get(&key(n), start).is_some())
        );
        assert!(cache.get(&key(0), start).is_none());
        let mut off = Cache::new([1; 32], Duration::ZERO);
        off.put(key(0), Said::No, start);
        assert!(off.get(&key(0), start).is_none());
    }
}
