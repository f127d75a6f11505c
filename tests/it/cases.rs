//! The wire cases of `tests/cases/*.toml`, read and checked. The fuzz crate takes its seeds from here too.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::bytes::bytes;

/// One case as it is written; `tests/cases/README.md` says what the keys mean.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// For the reader: which broker it broke, or which rule it breaks.
    #[serde(rename = "origin")]
    _origin: String,
    #[serde(default = "both")]
    pub versions: Vec<u8>,
    #[serde(default = "yes")]
    pub connected: bool,
    #[serde(default)]
    pub cut: bool,
    send: String,
    send5: Option<String>,
    #[serde(default)]
    expect: String,
    expect5: Option<String>,
    answer: Option<String>,
    answer5: Option<String>,
}

/// One thing that may come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Open,
    Close,
    Code(u8),
    Ack(u8),
    Sub(u8),
}

#[derive(Deserialize)]
struct File {
    case: Vec<Case>,
}

fn both() -> Vec<u8> {
    vec![4, 5]
}

fn yes() -> bool {
    true
}

impl Case {
    /// What goes over the wire for this version.
    pub fn bytes(&self, version: u8) -> Vec<u8> {
        let text = if version == 5 {
            self.send5.as_ref().unwrap_or(&self.send)
        } else {
            &self.send
        };
        bytes(&text.replace("{p}", if version == 5 { "00" } else { "" }))
    }

    /// What may come of it.
    pub fn expects(&self, version: u8) -> Vec<Expect> {
        let text = if version == 5 {
            self.expect5.as_ref().unwrap_or(&self.expect)
        } else {
            &self.expect
        };
        text.split('|')
            .map(|word| {
                parse(word.trim())
                    .unwrap_or_else(|| panic!("{}: no such expectation: '{word}'", self.name))
            })
            .collect()
    }

    /// The packets that must have come, where the case says so.
    pub fn answer(&self, version: u8) -> Option<Vec<u8>> {
        let text = if version == 5 {
            self.answer5.as_ref()
        } else {
            self.answer.as_ref()
        };
        text.map(|text| bytes(text))
    }
}

fn parse(word: &str) -> Option<Expect> {
    let hex = |text: &str| u8::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
    match word {
        "open" => Some(Expect::Open),
        "close" => Some(Expect::Close),
        _ => match word.split_once(' ') {
            Some(("ack", code)) => hex(code).map(Expect::Ack),
            Some(("sub", code)) => hex(code).map(Expect::Sub),
            _ => hex(word).map(Expect::Code),
        },
    }
}

/// Every case of the folder, in the order of the files' names.
pub fn read(folder: &Path) -> Vec<Case> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry of the folder").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "toml"));
    paths.sort();
    let mut out = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a case file");
        let file: File =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        out.extend(file.case);
    }
    out
}

/// Seeds for the fuzz targets, written where `STILLWIRE_SEEDS` says (`tests/fuzz/run` asks for them); without it, only made.
#[test]
fn seeds() {
    let cases = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"));
    let out = std::env::var_os("STILLWIRE_SEEDS").map(std::path::PathBuf::from);
    let write = |target: &str, name: usize, seed: &[u8]| {
        if let Some(out) = &out {
            fs::create_dir_all(out.join(target)).expect("a folder for seeds");
            fs::write(out.join(target).join(name.to_string()), seed).expect("a seed");
        }
    };
    let runs = cases
        .iter()
        .flat_map(|case| case.versions.iter().map(move |version| (case, *version)));
    let mut count = 0;
    for (case, version) in runs {
        let bytes = case.bytes(version);
        if bytes.len() > 2000 {
            continue;
        }
        // The version, a split point, the stream.
        write(
            "wire",
            count,
            &[&[version - 3, 5], bytes.as_slice()].concat(),
        );
        // Connect client 0 with that version, deliver mail, then hand it the bytes.
        let part = &bytes[..bytes.len().min(255)];
        write(
            "shard",
            count,
            &[
                &[0, 0, 2 * (version - 3), 7, 9, 9, 0, part.len() as u8],
                part,
            ]
            .concat(),
        );
        count += 1;
    }
    assert!(count > 200, "{count} seeds");
    let lines = "+a/b\n+a/+\n+#\n+$share/g/a/#\n+$SYS/#\na/b\n$SYS/x\n-a/b\n!\n+/+/\n//\n+a/+/c/#\na/x/c\na/é/c/d";
    write("topic", 0, lines.as_bytes());
}
