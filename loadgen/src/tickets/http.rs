//! As much of HTTP/1.1 as asking a lookup takes: a GET out, a response in. Bytes only, no I/O.
//!
//! A lookup may be overloaded, broken or somebody else: what it sends is bounded before memory is taken for it.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Url;

/// The longest head of a response.
const LONGEST_HEAD: usize = 8 << 10;

/// The longest body. A ticket is under a kilobyte; this leaves room for a list of many endpoints.
const LONGEST_BODY: usize = 64 << 10;

/// What a response is at most.
pub const LONGEST: usize = LONGEST_HEAD + 2 * LONGEST_BODY;

/// What is the same in every request.
#[derive(Clone, Debug)]
pub struct Request {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Request {
    /// To that lookup, as that app; an empty key is none.
    pub fn new(url: &Url, app: &str, secret: &str) -> Self {
        let authorization = if app.is_empty() {
            String::new()
        } else {
            let basic = STANDARD.encode(format!("{app}:{secret}"));
            format!("Authorization: Basic {basic}\r\n")
        };
        Self {
            before: format!("GET {}?client_id=", url.path).into_bytes(),
            after: format!(
                " HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n{authorization}\r\n",
                url.authority
            )
            .into_bytes(),
        }
    }

    /// A request for that client, whose id needs no escape in a URL.
    pub fn write(&self, client_id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        out.extend_from_slice(client_id.as_bytes());
        out.extend_from_slice(&self.after);
    }
}

/// A whole response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response<'b> {
    /// 200 and so on.
    pub status: u16,
    /// Seconds of the Retry-After header.
    pub retry_after: Option<u32>,
    /// The connection ends with it.
    pub close: bool,
    /// What it says.
    pub body: Cow<'b, [u8]>,
    /// Bytes of it, head and body.
    pub len: usize,
}

/// The peer sent something that isn't a response, or too much of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what answers there doesn't speak HTTP/1.1")
    }
}

impl std::error::Error for Broken {}

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Bytes(usize),
    Chunked,
    /// Neither was said: a client that keeps connections can't use it.
    Unsaid,
}

/// The first response in `bytes`, once it is all there.
pub fn response(bytes: &[u8]) -> Result<Option<Response<'_>>, Broken> {
    let Some(end) = find(&bytes[..bytes.len().min(LONGEST_HEAD)], b"\r\n\r\n") else {
        return if bytes.len() >= LONGEST_HEAD || !b"HTTP/1.".iter().zip(bytes).all(|(a, b)| a == b)
        {
            Err(Broken)
        } else {
            Ok(None)
        };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| Broken)?;
    let mut lines = head.split("\r\n");
    let (status, mut close) = status(lines.next().unwrap_or_default())?;
    let (mut body, mut retry_after) = (Body::Unsaid, None);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Broken)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = Body::Bytes(value.parse().map_err(|_| Broken)?);
            if body != Body::Unsaid && body != length {
                return Err(Broken);
            }
            body = length;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if body != Body::Unsaid || !value.eq_ignore_ascii_case("chunked") {
                return Err(Broken);
            }
            body = Body::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            close |= value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("retry-after") {
            // A date is for caches; whoever sends one is treated as if it had said nothing.
            retry_after = value.parse().ok();
        }
    }
    let from = end + 4;
    let rest = &bytes[from..];
    let (body, used) = match body {
        Body::Bytes(n) if n > LONGEST_BODY => return Err(Broken),
        Body::Bytes(n) if n > rest.len() => return Ok(None),
        Body::Bytes(n) => (Cow::Borrowed(&rest[..n]), n),
        Body::Chunked => match chunks(rest)? {
            Some((body, used)) => (Cow::Owned(body), used),
            None => return Ok(None),
        },
        Body::Unsaid if matches!(status, 204 | 304) => (Cow::Borrowed(&rest[..0]), 0),
        Body::Unsaid => return Err(Broken),
    };
    Ok(Some(Response {
        status,
        retry_after,
        close,
        body,
        len: from + used,
    }))
}

/// `HTTP/1.1 200 OK`: the status, and whether the connection ends unless it is said otherwise (HTTP/1.0).
fn status(line: &str) -> Result<(u16, bool), Broken> {
    let (version, rest) = line.split_once(' ').ok_or(Broken)?;
    let status = rest.get(..3).and_then(|digits| digits.parse().ok());
    match (version, status) {
        ("HTTP/1.1", Some(status @ 200..=599)) => Ok((status, false)),
        ("HTTP/1.0", Some(status @ 200..=599)) => Ok((status, true)),
        _ => Err(Broken),
    }
}

/// A body in chunks: what it holds and how long it is, once it is all there.
fn chunks(mut bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Broken> {
    let (mut body, whole) = (Vec::new(), bytes.len());
    loop {
        let Some(line) = find(&bytes[..bytes.len().min(32)], b"\r\n") else {
            return if bytes.len() >= 32 {
                Err(Broken)
            } else {
                Ok(None)
            };
        };
        let size = std::str::from_utf8(&bytes[..line]).map_err(|_| Broken)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| Broken)?;
        if size > LONGEST_BODY - body.len() {
            return Err(Broken);
        }
        let from = line + 2;
        let Some(chunk) = bytes.get(from..from + size + 2) else {
            return Ok(None);
        };
        if !chunk.ends_with(b"\r\n") {
            // Trailers, which nobody sends here, would stand after the last chunk too.
            return Err(Broken);
        }
        body.extend_from_slice(&chunk[..size]);
        bytes = &bytes[from + size + 2..];
        if size == 0 {
            return Ok(Some((body, whole - bytes.len())));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Response<'_> {
        response(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_request_names_the_client_and_the_app() {
        let url: Url = "http://lookup:8090".parse().unwrap();
        let mut out = Vec::new();
        Request::new(&url, "shop", "x:y").write("ph0000000007", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "GET /v1/ticket?client_id=ph0000000007 HTTP/1.1\r\nHost: lookup:8090\r\nAccept: application/json\r\n\
             Authorization: Basic c2hvcDp4Onk=\r\n\r\n"
        );
        let mut out = Vec::new();
        Request::new(&url, "", "").write("a", &mut out);
        assert!(!String::from_utf8(out).unwrap().contains("Authorization"));
    }

    #[test]
    fn a_response_is_read_once_it_is_whole() {
        for text in [
            "HTTP/1.1 503 Slow down\r\nretry-after: 7\r\nContent-Length: 5\r\nConnection: Close\r\n\r\nhello",
            "HTTP/1.1 503 Slow down\r\nRetry-After:7\r\nconnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 503 \r\nRetry-After:  7 \r\ncontent-length: 5\r\n\r\nhello",
        ] {
            for cut in 0..text.len() {
                assert_eq!(response(&text.as_bytes()[..cut]), Ok(None), "{cut}: {text}");
            }
            let more = [text, "HTTP/1.1 200"].concat();
            for text in [text, &more] {
                let response = whole(text);
                assert_eq!((response.status, response.retry_after), (503, Some(7)));
                assert_eq!(&*response.body, b"hello");
                assert!(response.close);
            }
            assert_eq!(whole(&more).len, text.len());
        }
        let empty = whole("HTTP/1.1 304 Not Modified\r\n\r\n");
        assert_eq!(
            (empty.status, empty.close, empty.body.len()),
            (304, false, 0)
        );
        let dated = whole(
            "HTTP/1.1 429 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!(dated.retry_after, None);
    }

    #[test]
    fn what_is_no_response_is_known_as_soon_as_it_can_be() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(LONGEST_HEAD));
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "\x20\x02",
            &long,
            "HTTP/1.1 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nuntil it closes",
            "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            assert_eq!(response(text.as_bytes()), Err(Broken), "{text}");
        }
    }
}
