//! Who may publish and receive what: the rules of a file, and the rights that a token carries.
//!
//! ```text
//! allow|deny  publish|subscribe|all  [app KEY] [user NAME] [client ID]  FILTER
//! ```
//!
//! A deny that matches wins, wherever it stands; without an allow that matches, nothing is allowed. What a token allows takes the place of the
//! file's allow rules; the file's deny rules hold all the same.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::pattern::{Names, Pattern};
use super::{AccessError, Action, Who, files};
use crate::limits;

/// What a token allows. What is in neither list, it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Where it may publish.
    pub(super) publish: Box<[Pattern]>,
    /// What it may subscribe to and receive.
    pub(super) subscribe: Box<[Pattern]>,
}

/// Rights as they stand in a token or in the hook's answer. A list that is not there is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightsClaim {
    /// Filters that may be published to.
    #[serde(default, rename = "pub")]
    pub publish: Vec<String>,
    /// Filters that may be subscribed to.
    #[serde(default, rename = "sub")]
    pub subscribe: Vec<String>,
}

impl Rights {
    /// Rights of so many patterns. None: one is no filter, or there are more than [`limits::RIGHTS_FILTERS`].
    pub fn new<'a>(
        publish: impl Iterator<Item = &'a str>,
        subscribe: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        fn list<'a>(filters: impl Iterator<Item = &'a str>) -> Option<Box<[Pattern]>> {
            let list: Option<Box<[Pattern]>> = filters
                .take(limits::RIGHTS_FILTERS + 1)
                .map(|filter| Pattern::parse(filter).ok())
                .collect();
            list.filter(|list| list.len() <= limits::RIGHTS_FILTERS)
        }
        Some(Self {
            publish: list(publish)?,
            subscribe: list(subscribe)?,
        })
    }

    /// Those of a claim; None as above.
    pub fn from_claim(claim: &RightsClaim) -> Option<Self> {
        Self::new(
            claim.publish.iter().map(String::as_str),
            claim.subscribe.iter().map(String::as_str),
        )
    }

    fn of(&self, action: Action) -> &[Pattern] {
        match action {
            Action::Publish => &self.publish,
            Action::Receive => &self.subscribe,
        }
    }
}

/// The rules of a file.
#[derive(Debug, Default)]
pub(super) struct Acl {
    deny: Rules,
    allow: Rules,
}

/// Rules by what they ask for first, so that a rule for one phone costs the others nothing.
#[derive(Debug, Default)]
struct Rules {
    clients: HashMap<Box<str>, Vec<Rule>>,
    users: HashMap<Box<str>, Vec<Rule>>,
    apps: HashMap<Box<str>, Vec<Rule>>,
    all: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    publish: bool,
    subscribe: bool,
    whose: Whose,
    pattern: Pattern,
}

/// What a rule asks of a client, beside what it was found by.
#[derive(Clone, Debug, Default)]
struct Whose {
    app: Option<Box<str>>,
    user: Option<Box<str>>,
    client: Option<Box<str>>,
}

impl Acl {
    /// Reads the rules; a file without any allows nothing.
    pub(super) fn read(path: &Path) -> Result<Self, AccessError> {
        Self::parse(path, &files::text(path)?)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, AccessError> {
        let mut acl = Self::default();
        for (number, line) in files::lines(text) {
            let (is_allow, rule) = parse_rule(line)
                .map_err(|what| AccessError::broken(path, number, format!("{what}; {FORM}")))?;
            let rules = if is_allow {
                &mut acl.allow
            } else {
                &mut acl.deny
            };
            rules.add(rule);
        }
        Ok(acl)
    }

    /// Whether an action on a filter, or on a name, is allowed.
    pub(super) fn allows(&self, who: &Who<'_>, action: Action, filter: &str) -> bool {
        let names = who.names();
        let denied = self.deny.of(who, action).any(|p| p.overlaps(filter, names));
        if denied {
            return false;
        }
        match who.rights {
            Some(rights) => covers(rights.of(action).iter(), filter, names),
            None => covers(self.allow.of(who, action), filter, names),
        }
    }
}

/// The same where no file is.
pub(super) fn rights_allow(rights: &Rights, who: &Who<'_>, action: Action, filter: &str) -> bool {
    covers(rights.of(action).iter(), filter, who.names())
}

fn covers<'a>(
    mut patterns: impl Iterator<Item = &'a Pattern>,
    filter: &str,
    names: Names<'_>,
) -> bool {
    patterns.any(|pattern| pattern.covers(filter, names))
}

impl Rules {
    fn add(&mut self, rule: Rule) {
        let whose = &rule.whose;
        let list = if let Some(client) = &whose.client {
            self.clients.entry(client.clone()).or_default()
        } else if let Some(user) = &whose.user {
            self.users.entry(user.clone()).or_default()
        } else if let Some(app) = &whose.app {
            self.apps.entry(app.clone()).or_default()
        } else {
            &mut self.all
        };
        list.push(rule);
    }

    /// The patterns of the rules that are about this client and this action.
    fn of<'a>(&'a self, who: &'a Who<'_>, action: Action) -> impl Iterator<Item = &'a Pattern> {
        let user = who.user.and_then(|user| self.users.get(user));
        [
            self.clients.get(who.client_id),
            user,
            self.apps.get(who.tenant),
            Some(&self.all),
        ]
        .into_iter()
        .flatten()
        .flatten()
        .filter(move |rule| {
            let whose = &rule.whose;
            let is = |wanted: &Option<Box<str>>, is: Option<&str>| {
                wanted.as_deref().is_none_or(|wanted| Some(wanted) == is)
            };
            let action = match action {
                Action::Publish => rule.publish,
                Action::Receive => rule.subscribe,
            };
            action
                && is(&whose.app, Some(who.tenant))
                && is(&whose.user, who.user)
                && is(&whose.client, Some(who.client_id))
        })
        .map(|rule| &rule.pattern)
    }
}

const FORM: &str =
    "write `allow|deny publish|subscribe|all [app KEY] [user NAME] [client ID] FILTER`";

/// Whether it allows, and the rule.
fn parse_rule(line: &str) -> Result<(bool, Rule), String> {
    let words =
        files::words(line).ok_or("a double quote without its other, or inside of a word")?;
    let [effect, action, whose @ .., filter] = words.as_slice() else {
        return Err("a rule has at least three words".to_owned());
    };
    let is_allow = match *effect {
        "allow" => true,
        "deny" => false,
        other => return Err(format!("{other:?} is neither allow nor deny")),
    };
    let (publish, subscribe) = match *action {
        "publish" => (true, false),
        "subscribe" => (false, true),
        "all" => (true, true),
        other => return Err(format!("{other:?} is no action")),
    };
    let mut of = Whose::default();
    let (pairs, rest) = whose.as_chunks::<2>();
    if let [odd] = rest {
        return Err(format!(
            "{odd:?} has no other half (a filter or a name with a space stands in double quotes)"
        ));
    }
    for &[key, value] in pairs {
        let place = match key {
            "app" => &mut of.app,
            "user" => &mut of.user,
            "client" => &mut of.client,
            other => return Err(format!("{other:?} is neither app nor user nor client")),
        };
        let value = match (key, value) {
            ("app", "-") => "",
            ("app", app) if !super::is_tenant(app) => {
                return Err(format!("{app:?} is no app key"));
            }
            (_, value) => value,
        };
        if place.replace(value.into()).is_some() {
            return Err(format!("{key} stands twice"));
        }
    }
    let pattern = Pattern::parse(filter).map_err(|error| format!("{filter:?}: {error}"))?;
    let rule = Rule {
        publish,
        subscribe,
        whose: of,
        pattern,
    };
    Ok((is_allow, rule))
}
