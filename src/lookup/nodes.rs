//! The table of nodes that tickets are given for: this one, and others.
//!
//! The others are read from a file; a registry of a cluster would fill the same table. Readers take a snapshot and are never blocked by more
//! than a swap of a pointer.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::endpoint::{self, Address};
use super::labels::{self, Labels};
use crate::limits;

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, unique in the table.
    pub name: Box<str>,
    /// Its size beside the others'.
    pub weight: u32,
    /// Where it is, and what else is said of it.
    pub labels: Labels,
    /// Where clients reach it.
    pub addresses: Vec<Address>,
    /// It is on its way out, and gets no tickets.
    pub draining: bool,
    /// What it does; none: it does not tell.
    pub load: Option<Load>,
}

impl AsRef<Node> for Node {
    fn as_ref(&self) -> &Node {
        self
    }
}

/// What a node does, and what it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections that it holds.
    pub online: u64,
    /// Connections that it may hold.
    pub capacity: u64,
    /// Connects a second, of late.
    pub connects: u64,
    /// Connects a second that it can take.
    pub rate: u64,
    /// How late its slowest loop is, in microseconds.
    pub lag_micros: u64,
}

/// The nodes at some moment; the first is this one.
pub type Snapshot = Arc<[Arc<Node>]>;

/// See the module.
#[derive(Debug)]
pub struct Table(Mutex<Snapshot>);

impl Table {
    /// This node, and others.
    pub fn new(me: Node, others: Vec<Node>) -> Self {
        Self(Mutex::new(snapshot(Arc::new(me), others)))
    }

    /// The nodes as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other nodes, in place of those that there were.
    pub fn set_others(&self, others: Vec<Node>) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *nodes = snapshot(Arc::clone(&nodes[0]), others);
    }

    /// What this node does.
    pub fn set_own(&self, load: Load, draining: bool) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let me = Node {
            load: Some(load),
            draining,
            ..Node::clone(&nodes[0])
        };
        *nodes = std::iter::once(Arc::new(me))
            .chain(nodes[1..].iter().cloned())
            .collect();
    }
}

/// A node of the file with this one's name is this one as others see it.
fn snapshot(me: Arc<Node>, others: Vec<Node>) -> Snapshot {
    let others = others.into_iter().filter(|node| node.name != me.name);
    let others: Vec<Arc<Node>> = others.map(Arc::new).collect();
    std::iter::once(me).chain(others).collect()
}

/// What stands in a file of nodes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Vec<toml::Spanned<Written>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default = "usual_weight")]
    weight: u32,
    #[serde(default)]
    labels: Vec<String>,
    endpoints: Vec<String>,
    #[serde(default)]
    draining: bool,
}

/// What a node weighs of which nothing is said.
pub const USUAL_WEIGHT: u32 = 100;

fn usual_weight() -> u32 {
    USUAL_WEIGHT
}

/// A file of nodes that can't be used. The operator's to mend.
#[derive(Debug)]
pub enum NodesError {
    /// It can't be read.
    Unreadable(PathBuf, io::Error),
    /// It is too large, not text, or says something wrong: where, and what.
    Wrong(PathBuf, usize, String),
}

impl fmt::Display for NodesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(
                f,
                "{}: cannot read the nodes: {error}; check lookup.nodes",
                path.display()
            ),
            Self::Wrong(path, line, what) => write!(f, "{}:{line}: {what}", path.display()),
        }
    }
}

impl std::error::Error for NodesError {}

/// Reads a file of nodes.
pub fn read(path: &Path) -> Result<Vec<Node>, NodesError> {
    let unreadable = |error| NodesError::Unreadable(path.to_owned(), error);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(limits::LOOKUP_NODES_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() as u64 <= limits::LOOKUP_NODES_FILE_BYTES)
        .ok_or_else(|| {
            let what = "not a text file of UTF-8 below 1 MiB".to_owned();
            NodesError::Wrong(path.to_owned(), 1, what)
        })?;
    parse(&text).map_err(|(line, what)| NodesError::Wrong(path.to_owned(), line, what))
}

/// The nodes of a file's text; an error with its line.
fn parse(text: &str) -> Result<Vec<Node>, (usize, String)> {
    let line = |at: usize| text.get(..at).unwrap_or(text).matches('\n').count() + 1;
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (line(at), error.message().replace('\n', " "))
    })?;
    if file.node.len() > limits::LOOKUP_NODES {
        return Err((1, format!("more than {} nodes", limits::LOOKUP_NODES)));
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(file.node.len());
    for written in file.node {
        let at = line(written.span().start);
        let node = check(written.into_inner()).map_err(|what| (at, what))?;
        if nodes.iter().any(|known| known.name == node.name) {
            return Err((at, format!("node {:?} stands twice", node.name)));
        }
        nodes.push(node);
    }
    Ok(nodes)
}

fn check(written: Written) -> Result<Node, String> {
    let name = written.name;
    if !is_name(&name) {
        return Err(format!("{name:?} is no name of a node; {NAME}"));
    }
    let labels = Labels::read(written.labels.iter().map(String::as_str))
        .map_err(|_| format!("node {name:?}: labels are {}", labels::WRITTEN))?;
    let addresses = written
        .endpoints
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|_| format!("node {name:?}: {text:?}: write {}", endpoint::WRITTEN))
        })
        .collect::<Result<Vec<Address>, String>>()?;
    if !(1..=limits::LOOKUP_ADDRESSES).contains(&addresses.len()) {
        return Err(format!(
            "node {name:?}: {} endpoints; write 1 to {}",
            addresses.len(),
            limits::LOOKUP_ADDRESSES
        ));
    }
    if !(1..=1_000_000).contains(&written.weight) {
        return Err(format!("node {name:?}: weight is 1 to 1000000"));
    }
    Ok(Node {
        name: name.into(),
        weight: written.weight,
        labels,
        addresses,
        draining: written.draining,
        load: None,
    })
}

/// What to write for the name of a node.
pub const NAME: &str = "use 1 to 64 letters, digits, '.', '_' or '-'";

/// Whether a text can be the name of a node.
pub fn is_name(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
[[node]]
name = "fra-1"
weight = 300
labels = ["place=fra"]
endpoints = ["mqtt://203.0.113.7:1883", "wss://203.0.113.7:443/mqtt fra-1.example.org"]

[[node]]
name = "ams-1"
endpoints = ["mqtt://203.0.113.9:1883"]
draining = true
"#;

    #[test]
    fn a_file_of_nodes_is_read() {
        let nodes = parse(TWO).unwrap();
        assert_eq!(nodes.len(), 2);
        assert_eq!((&*nodes[0].name, nodes[0].weight), ("fra-1", 300));
        assert_eq!(nodes[0].addresses.len(), 2);
        assert!(nodes[1].draining && nodes[1].weight == USUAL_WEIGHT);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn each_mistake_has_its_line_and_what_to_write() {
        let node = |text: &str| format!("\n[[node]]\nname = \"a\"\n{text}\n");
        let endpoints = "endpoints = [\"mqtt://203.0.113.7:1883\"]";
        for (text, line, what) in [
            (node(""), 2, "endpoints"),
            (node("endpoints = []"), 2, "0 endpoints; write 1 to 16"),
            (
                node("endpoints = [\"mqtt://a.example.org:1883\"]"),
                2,
                "SCHEME://IP:PORT",
            ),
            (node(&format!("{endpoints}\nweight = 0")), 2, "weight is 1"),
            (node(&format!("{endpoints}\nwait = 0")), 5, "wait"),
            (
                node(&format!("{endpoints}\nlabels = [\"fra\"]")),
                2,
                "name=value",
            ),
            (node(endpoints) + &node(endpoints), 6, "stands twice"),
            (
                format!("[[node]]\nname = \"a b\"\n{endpoints}"),
                1,
                "is no name",
            ),
            ("[[nodes]]".to_owned(), 1, "nodes"),
            ("node = 3".to_owned(), 1, ""),
        ] {
            let (at, message) = parse(&text).unwrap_err();
            assert!(
                at == line && message.contains(what) && !message.contains('\n'),
                "{text}: {at}: {message}"
            );
        }
    }

    #[test]
    fn a_file_that_is_none_is_said() {
        for path in ["/nonexistent/nodes.toml", "/dev/zero", "/"] {
            let error = read(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with(path), "{error}");
        }
    }

    #[test]
    fn the_table_keeps_this_node_first_and_takes_it_once() {
        let me = Node {
            name: "fra-1".into(),
            ..parse(TWO).unwrap().remove(1)
        };
        let table = Table::new(me, parse(TWO).unwrap());
        let names = |table: &Table| -> Vec<String> {
            table
                .snapshot()
                .iter()
                .map(|node| node.name.to_string())
                .collect()
        };
        assert_eq!(names(&table), ["fra-1", "ams-1"]);
        let load = Load {
            online: 3,
            capacity: 10,
            connects: 1,
            rate: 5,
            lag_micros: 0,
        };
        table.set_own(load, true);
        table.set_others(Vec::new());
        let now = table.snapshot();
        assert_eq!(
            (now.len(), now[0].load, now[0].draining),
            (1, Some(load), true)
        );
    }
}
