//! Whose a name is: topics, filters and client identifiers of a tenant carry its name before them, inside the server alone.
//!
//! `\0{tenant}/{name}`: no MQTT string has a NUL, so no client can write such a name, no filter of one tenant matches a topic of another, and
//! index, interest, groups, inboxes, homes and logs are apart without a word about tenants. The default tenant's names have nothing before
//! them, and cost nothing. A prefix is put before a name when it comes from a client and taken off when it goes to one; never anywhere else.

use std::borrow::Cow;

use crate::limits::{MAX_TOPIC_BYTES, TENANT_NAME_BYTES};

/// What stands before the names of one tenant; empty for the default tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope<'a>(&'a str);

impl<'a> Scope<'a> {
    /// The default tenant's.
    pub const DEFAULT: Self = Self("");

    /// The scope that a scoped name is in.
    pub fn of(name: &'a str) -> Self {
        Self(&name[..prefix_len(name.as_bytes())])
    }

    /// The tenant's name; empty for the default one.
    pub fn tenant(self) -> &'a str {
        if self.0.is_empty() {
            ""
        } else {
            &self.0[1..self.0.len() - 1]
        }
    }

    /// Whether it is the default tenant's.
    pub fn is_default(self) -> bool {
        self.0.is_empty()
    }

    /// A name of this tenant, as the server has it. None: with the prefix it is longer than a string may be.
    pub fn name(self, bare: &str) -> Option<Cow<'_, str>> {
        if self.0.is_empty() {
            return Some(Cow::Borrowed(bare));
        }
        (self.0.len() + bare.len() <= MAX_TOPIC_BYTES).then(|| Cow::Owned([self.0, bare].concat()))
    }
}

/// What stands before the names of a tenant; for the empty name nothing.
pub fn prefix(tenant: &str) -> String {
    if tenant.is_empty() {
        String::new()
    } else {
        format!("\0{tenant}/")
    }
}

/// A name as its client knows it.
pub fn bare(name: &str) -> &str {
    &name[prefix_len(name.as_bytes())..]
}

/// Whether this may be a tenant's name: 1 to 32 letters, digits, `_` and `-`.
pub fn is_tenant(name: &str) -> bool {
    (1..=TENANT_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Bytes of the prefix of a scoped name. The first level of its bare name begins behind them.
pub(super) fn prefix_len(name: &[u8]) -> usize {
    if name.first() != Some(&0) {
        return 0;
    }
    // A tenant's name is short and has no slash.
    name.iter()
        .take(TENANT_NAME_BYTES + 2)
        .position(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_in_and_comes_out() {
        for tenant in ["", "a", "shop-1"] {
            let prefix = prefix(tenant);
            let scope = Scope::of(&prefix);
            assert_eq!(scope.tenant(), tenant);
            for name in ["", "a/b", "/", "$SYS/x", "#", "\u{e9}"] {
                let scoped = scope.name(name).unwrap();
                assert_eq!(bare(&scoped), name);
                assert_eq!(Scope::of(&scoped), scope);
            }
        }
    }

    #[test]
    fn what_becomes_too_long_is_none() {
        let prefix = prefix("t");
        let scope = Scope::of(&prefix);
        assert!(scope.name(&"x".repeat(MAX_TOPIC_BYTES - 3)).is_some());
        assert!(scope.name(&"x".repeat(MAX_TOPIC_BYTES - 2)).is_none());
        let longest = "x".repeat(MAX_TOPIC_BYTES);
        assert!(Scope::DEFAULT.name(&longest).is_some());
    }

    #[test]
    fn names_of_tenants_are_plain() {
        assert!(is_tenant("a") && is_tenant(&"z".repeat(32)) && is_tenant("A_b-9"));
        for name in ["", "a/b", "a b", "\0", "+", "#", "\u{e9}", "a.b"] {
            assert!(!is_tenant(name), "{name:?}");
        }
        assert!(!is_tenant(&"z".repeat(33)));
    }

    #[test]
    fn bytes_that_look_like_a_prefix_are_none() {
        for odd in ["\0", "\0abc", &format!("\0{}/x", "y".repeat(40))] {
            assert_eq!(bare(odd), odd);
        }
    }
}
