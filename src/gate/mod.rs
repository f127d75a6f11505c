//! The gate: what admission has to wait for. Passwords are checked on threads of their own, since argon2 takes a core for tens of milliseconds, and
//! the HTTP hook is asked on one more. A reactor asks and goes on; the answer comes back through a function that it has given.
//!
//! Everything is bounded: what waits, what is under way, how long. When the gate is full, or an answer does not come in time, or is not understood,
//! nobody gets in. Threads are only there for methods that `auth` has.

mod cache;
mod hook;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam::channel;

use crate::access::{Access, Asked, Denied, Identity, Question};
use crate::config::resolved::{Config, Method};
use crate::ids::ReactorId;
use crate::limits;

use hook::Hook;

/// The answer to a question.
#[derive(Debug)]
pub struct Answer {
    /// The number that the question came with.
    pub ticket: u64,
    /// Come in, or stay out.
    pub result: Result<Identity, Denied>,
    /// Where the client called from: its connection may be gone by now, and its failure counts all the same.
    pub address: IpAddr,
    /// What it called itself.
    pub client_id: Box<str>,
}

/// The gate has as many questions as it takes; nobody is let in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The gate can't start: the system refused.
#[derive(Debug)]
pub enum GateError {
    /// A thread, or its poller.
    Thread(io::Error),
    /// Random bytes, or an HTTP client.
    Hook(String),
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => write!(
                f,
                "a thread of the gate can't start: {error}; raise the limits of threads and memory"
            ),
            Self::Hook(error) => write!(f, "the HTTP hook can't be asked: {error}"),
        }
    }
}

impl std::error::Error for GateError {}

/// Where answers go.
type Answerer = Arc<dyn Fn(ReactorId, Answer) + Send + Sync>;

/// A question under way.
struct Job {
    reactor: ReactorId,
    ticket: u64,
    question: Question,
    /// What was known when it was asked.
    access: Arc<Access>,
    since: Instant,
}

impl Job {
    fn answer(&self, to: &Answerer, result: Result<Identity, Denied>) {
        let answer = Answer {
            ticket: self.ticket,
            result,
            address: self.question.address,
            client_id: self.question.client_id.clone(),
        };
        to(self.reactor, answer);
    }
}

/// The gate. Dropped, its threads end; a question that has no answer by then gets none.
pub struct Gate {
    passwords: Option<channel::Sender<Job>>,
    hook: Option<Hook>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Gate {
    /// Starts the threads that `auth` needs, from the thread whose fd table they are to have. `answer` is called on them, and must not wait for long.
    pub fn start(
        config: &Config,
        answer: impl Fn(ReactorId, Answer) + Send + Sync + 'static,
    ) -> Result<Self, GateError> {
        let answer: Answerer = Arc::new(answer);
        let mut gate = Self {
            passwords: None,
            hook: None,
            stop: Arc::default(),
            threads: Vec::new(),
        };
        if config.auth.contains(&Method::PasswordFile) {
            let (jobs, waiting) = channel::bounded(limits::GATE_PASSWORDS);
            for _ in 0..limits::GATE_THREADS {
                let (waiting, answer) = (waiting.clone(), answer.clone());
                let stop = gate.stop.clone();
                gate.spawn(move || check_passwords(&waiting, &stop, &answer))?;
            }
            gate.passwords = Some(jobs);
        }
        if config.auth.contains(&Method::Http) {
            let (hook, forward, serve) = Hook::new(&config.access, answer)?;
            gate.spawn(forward)?;
            gate.spawn(serve)?;
            gate.hook = Some(hook);
        }
        Ok(gate)
    }

    fn spawn(&mut self, work: impl FnOnce() + Send + 'static) -> Result<(), GateError> {
        let thread = thread::Builder::new()
            .name("gate".to_owned())
            .stack_size(limits::GATE_STACK)
            .spawn(work)
            .map_err(GateError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Asks. The answer carries `ticket`, and goes to `reactor`.
    pub fn ask(
        &self,
        reactor: ReactorId,
        ticket: u64,
        question: Question,
        access: Arc<Access>,
    ) -> Result<(), Full> {
        let to = question.to;
        let job = Job {
            reactor,
            ticket,
            question,
            access,
            since: Instant::now(),
        };
        // A method that was not there at the start has no thread; it lets nobody in.
        match to {
            Asked::Passwords => {
                let jobs = self.passwords.as_ref().ok_or(Full)?;
                jobs.try_send(job).map_err(|_| Full)
            }
            Asked::Hook => self.hook.as_ref().ok_or(Full)?.ask(job),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({} threads)", self.threads.len())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.passwords = None;
        self.hook = None;
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            _ = thread.join();
        }
    }
}

fn check_passwords(waiting: &channel::Receiver<Job>, stop: &AtomicBool, answer: &Answerer) {
    while let Ok(job) = waiting.recv() {
        if stop.load(Relaxed) {
            return;
        }
        let result = if job.since.elapsed() > limits::GATE_PATIENCE {
            Err(Denied::Unavailable)
        } else {
            job.access.check_password(&job.question)
        };
        job.answer(answer, result);
    }
}
