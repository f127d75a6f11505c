//! The desk of a thread: asks the lookup for its phones, over a few connections that stay open, one question on each at a time.
//!
//! It stands in the thread's own loop: it never waits, and does a bounded part of its work in a turn. A question that isn't answered in time has
//! failed, whether it was sent or still waited for a connection, so that a lookup which falls silent holds nobody up for longer.
//!
//! A connection that stayed open may be closed by the lookup just when a question is sent. That question is asked again, on a new one.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use stillwire::sys::socket::{receive, send};

use super::Tickets;
use super::answer::{Answer, Refusal};
use super::http::{self, Request};
use crate::clock;
use crate::name::Name;

/// Tokens from here on are the desk's: beyond a phone's index and the generation above it.
pub(crate) const DESK: usize = 1 << 48;

/// A response is read in pieces of this size.
const PIECE: usize = 4096;

/// A question for a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The phone's index in the thread's list.
    pub(crate) at: u32,
    /// Its number.
    pub(crate) number: u32,
    /// When it should have been asked.
    pub(crate) planned: u64,
    /// When it came here.
    asked: u64,
}

/// What became of a question.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    /// A ticket.
    Ticket(Answer),
    /// 429 or 503.
    Later(Refusal),
    /// No answer, or none that can be used.
    Nothing,
}

/// One connection.
#[derive(Debug, Default)]
struct Window {
    stream: Option<TcpStream>,
    /// The handshake is over.
    connected: bool,
    /// It has answered before.
    used: bool,
    question: Option<Question>,
    /// What the socket didn't take of the question.
    output: Vec<u8>,
    input: Vec<u8>,
}

/// A thread's desk.
#[derive(Debug)]
pub(crate) struct Desk {
    plan: Tickets,
    request: Request,
    windows: Vec<Window>,
    /// Questions that wait for a window, in order.
    queue: VecDeque<Question>,
    /// When to look for questions that have waited too long.
    next_look: u64,
}

impl Desk {
    pub(crate) fn new(plan: &Tickets) -> Self {
        let mut windows = Vec::new();
        windows.resize_with(plan.concurrency.max(1), Window::default);
        Self {
            request: plan.request(),
            plan: plan.clone(),
            windows,
            queue: VecDeque::new(),
            next_look: 0,
        }
    }

    /// Asks as soon as a window is free.
    pub(crate) fn ask(&mut self, at: u32, number: u32, planned: u64, now: u64) {
        self.queue.push_back(Question {
            at,
            number,
            planned,
            asked: now,
        });
    }

    /// Sends what windows are free for, and gives up what has waited too long; `done` takes what failed. Returns when it should be called again.
    pub(crate) fn work(&mut self, registry: &Registry, now: u64, done: &mut Vec<Question>) -> u64 {
        for index in 0..self.windows.len() {
            if self.queue.is_empty() {
                break;
            }
            if self.windows[index].question.is_none()
                && let Some(question) = self.queue.pop_front()
            {
                self.windows[index].question = Some(question);
                if self.begin(index, registry).is_err() {
                    done.extend(self.windows[index].fail());
                }
            }
        }
        let patience = clock::nanos(self.plan.patience);
        if now >= self.next_look {
            let is_late = |question: &Question| now.saturating_sub(question.asked) >= patience;
            while self.queue.front().is_some_and(is_late) {
                done.extend(self.queue.pop_front());
            }
            for window in &mut self.windows {
                if window.question.as_ref().is_some_and(is_late) {
                    done.extend(window.fail());
                }
            }
            // Late by a part of the patience at most; and a deadline is seldom met.
            self.next_look = now + patience / 16;
        }
        if self.is_idle() {
            u64::MAX
        } else if done.is_empty() {
            self.next_look
        } else {
            now
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.windows.iter().all(|window| window.question.is_none())
    }

    /// Sends a window's question, on a new connection if there is none.
    fn begin(&mut self, index: usize, registry: &Registry) -> io::Result<()> {
        let window = &mut self.windows[index];
        let Some(question) = &window.question else {
            return Ok(());
        };
        window.output.clear();
        let name = Name::of(question.number);
        self.request.write(name.client_id(), &mut window.output);
        let is_new = window.stream.is_none();
        if is_new {
            window.stream = Some(call(self.plan.lookup)?);
            (window.connected, window.used) = (false, false);
            window.input.clear();
        }
        let sent = window.send();
        if is_new && let Some(stream) = &window.stream {
            // Edge-triggered: once for all that the connection will ever have to say.
            registry.register(
                &mut SourceFd(&stream.as_raw_fd()),
                Token(DESK | index),
                Interest::READABLE | Interest::WRITABLE,
            )?;
        }
        match sent {
            Err(_) if window.used => {
                window.close();
                self.begin(index, registry)
            }
            sent => sent,
        }
    }

    /// Something happened to a window's connection. Returns what became of its question, if that is known now.
    pub(crate) fn event(&mut self, token: Token, registry: &Registry) -> Option<(Question, Said)> {
        let index = token.0 & !DESK;
        let window = self.windows.get_mut(index)?;
        window.stream.as_ref()?;
        let read = window.send().and_then(|()| window.receive());
        let said = match read {
            // It closed while nobody asked.
            Ok(closed) if window.question.is_none() => {
                // What comes unasked belongs to nobody, nor does what follows it.
                if closed || !window.input.is_empty() {
                    window.close();
                }
                return None;
            }
            Ok(closed) => match window.response() {
                Ok(Some(said)) => {
                    if closed {
                        window.close();
                    }
                    said
                }
                Ok(None) if !closed => return None,
                Ok(None) if window.used && window.input.is_empty() => {
                    return self.again(index, registry);
                }
                Ok(None) | Err(http::Broken) => Said::Nothing,
            },
            Err(_) if window.used && window.input.is_empty() => return self.again(index, registry),
            Err(_) => Said::Nothing,
        };
        let question = window.question.take()?;
        if said == Said::Nothing {
            window.close();
        }
        // The window is free: whoever waits needn't wait for the next turn.
        if let Some(next) = self.queue.pop_front() {
            self.windows[index].question = Some(next);
            if self.begin(index, registry).is_err() {
                self.windows[index].close();
                // It is asked once more by `work`, which counts it if it fails again.
                let next = self.windows[index].question.take();
                if let Some(next) = next {
                    self.queue.push_front(next);
                }
            }
        }
        Some((question, said))
    }

    /// The connection that stayed open wasn't any more.
    fn again(&mut self, index: usize, registry: &Registry) -> Option<(Question, Said)> {
        self.windows[index].close();
        if self.begin(index, registry).is_ok() {
            return None;
        }
        let question = self.windows[index].fail()?;
        Some((question, Said::Nothing))
    }
}

impl Window {
    /// What it was about has failed, and the connection with it.
    fn fail(&mut self) -> Option<Question> {
        self.close();
        self.question.take()
    }

    fn close(&mut self) {
        self.output.clear();
        self.input.clear();
        (self.connected, self.used) = (false, false);
        if let Some(stream) = self.stream.take() {
            crate::driver::reset(stream);
        }
    }

    /// Writes what is left of the question.
    fn send(&mut self) -> io::Result<()> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        if self.output.is_empty() {
            return Ok(());
        }
        match send(stream.as_fd(), &self.output) {
            Ok(n) => {
                self.connected = true;
                self.output.drain(..n);
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads all that is there. True: the peer has closed.
    fn receive(&mut self) -> io::Result<bool> {
        let Some(stream) = &self.stream else {
            return Ok(true);
        };
        loop {
            let mut piece = [0; PIECE];
            match receive(stream.as_fd(), &mut piece) {
                Ok(0) => return Ok(true),
                Ok(n) => {
                    self.input.extend_from_slice(&piece[..n]);
                    if self.input.len() > http::LONGEST {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    // A short read means that it is empty, and what comes now makes a new event.
                    if n < PIECE {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        || (error.kind() == io::ErrorKind::NotConnected && !self.connected) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What the response says, once it is whole.
    fn response(&mut self) -> Result<Option<Said>, http::Broken> {
        let Some(response) = http::response(&self.input)? else {
            return Ok(None);
        };
        let said = match response.status {
            200 => Answer::read(&response.body).map_or(Said::Nothing, Said::Ticket),
            429 | 503 => Said::Later(Refusal::read(response.retry_after, &response.body)),
            _ => Said::Nothing,
        };
        let (len, close) = (response.len, response.close);
        // More than was asked for: whose answer would the next one be?
        if close || len != self.input.len() {
            self.close();
        } else {
            self.input.clear();
            self.used = true;
        }
        Ok(Some(said))
    }
}

/// A socket whose handshake has begun.
fn call(lookup: std::net::SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(lookup),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&lookup.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
