//! An HTTP client that sends whatever it is told to, byte for byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::schema;
use crate::support::PATIENCE;

/// A connection.
pub struct Http {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Http {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("the lookup listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("it is sent");
    }

    /// GET, and its answer, which is as the document says.
    pub fn get(&mut self, target: &str, headers: &str) -> Response {
        self.send(format!(
            "GET {target} HTTP/1.1\r\nhost: lookup\r\n{headers}\r\n"
        ));
        self.checked("GET", target)
    }

    /// POST of JSON, and its answer, which is as the document says.
    pub fn post(&mut self, body: &str, headers: &str) -> Response {
        self.send(format!(
            "POST /v1/ticket HTTP/1.1\r\nhost: lookup\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        ));
        self.checked("POST", "/v1/ticket")
    }

    /// The next answer, to a request that was sent.
    pub fn checked(&mut self, method: &str, target: &str) -> Response {
        let response = self.response().expect("an answer");
        let path = target.split('?').next().unwrap();
        schema::check(
            method,
            path,
            response.status,
            |name| response.header(name),
            &response.body,
        );
        response
    }

    /// The next answer; none: the connection ends before it begins.
    pub fn response(&mut self) -> Option<Response> {
        let head = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.unread.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !self.read() {
                assert!(self.unread.is_empty(), "half a head: {:?}", self.unread);
                return None;
            }
        };
        let head = String::from_utf8(head).expect("a head of text");
        let mut lines = head.lines();
        let first = lines.next().expect("a status line");
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut response = Response {
            status: status.unwrap_or_else(|| panic!("no status: {first}")),
            headers,
            body: Vec::new(),
        };
        let length = response
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap());
        while self.unread.len() < length {
            assert!(self.read(), "half a body");
        }
        response.body = self.unread.drain(..length).collect();
        Some(response)
    }

    /// Waits for the end of the connection, whatever comes before it.
    pub fn ends(&mut self) {
        while self.read() {}
    }

    fn read(&mut self) -> bool {
        let mut part = [0; 8192];
        match self.stream.read(&mut part) {
            Ok(0) => false,
            Ok(n) => {
                self.unread.extend_from_slice(&part[..n]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the lookup neither answers nor closes: {error}"),
        }
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        let found = self.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// One GET on a connection of its own.
pub fn get(addr: SocketAddr, target: &str) -> Response {
    Http::connect(addr).get(target, "")
}

/// Long enough for a deadline of the lookup to pass.
pub const DEADLINE: Duration = Duration::from_secs(30);
