//! The HTTP hook: a service of the operator's that says who may come in.
//!
//! It is asked with `POST` and `{"client_id", "user", "password", "address"}`; a password that is not UTF-8 comes as `password_base64` instead. It
//! answers 200 and `{"result": "allow"}` or `{"result": "deny"}`; an allow may have `tenant`, `user`, `expires` (seconds since 1970) and
//! `acl` (`{"pub": [filters], "sub": [filters]}`). Everything else is no answer: another status, a redirect, a body that is too large or not that,
//! none in time. No answer is no.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossbeam::channel;
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout_at;
use tracing::warn;

use super::cache::{Cache, Said};
use super::{Answerer, Full, GateError, Job};
use crate::access::{Denied, Hooked, Identity, Question, UnixSeconds};
use crate::config::resolved;
use crate::limits;

/// A question, and its place among those under way.
type Placed = (Job, OwnedSemaphorePermit);

/// The way to the hook's thread. A reactor has an fd table of its own, in which the descriptor that wakes the runtime is another's or nobody's: what
/// it writes to wake it would reach a client. So it goes through a channel that needs none, and a thread that has the runtime's table.
pub(super) struct Hook {
    jobs: channel::Sender<Placed>,
    /// What bounds them.
    room: Arc<Semaphore>,
}

impl Hook {
    /// The way, what the thread in between does, and what the hook's thread does.
    #[allow(
        clippy::type_complexity,
        reason = "two pieces of work, each for a thread"
    )]
    pub(super) fn new(
        config: &resolved::Access,
        answer: Answerer,
    ) -> Result<
        (
            Self,
            impl FnOnce() + Send + use<>,
            impl FnOnce() + Send + use<>,
        ),
        GateError,
    > {
        let failed = |error: &dyn std::fmt::Display| GateError::Hook(error.to_string());
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| failed(&error))?;
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(limits::HOOK_CONNECTIONS)
            .build()
            .map_err(|error| failed(&error))?;
        let asker = Arc::new(Asker {
            client,
            url: Url::parse(&config.http_url).map_err(|error| failed(&error))?,
            timeout: Duration::from_millis(u64::from(config.http_timeout)),
            connections: Semaphore::new(limits::HOOK_CONNECTIONS),
            cache: Mutex::new(Cache::new(
                secret,
                Duration::from_secs(u64::from(config.http_cache)),
            )),
            trouble: Mutex::default(),
            answer,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(GateError::Thread)?;
        let (jobs, asked) = channel::unbounded::<Placed>();
        let (onward, mut waiting) = mpsc::unbounded_channel::<Placed>();
        let forward = move || {
            while let Ok(placed) = asked.recv() {
                if onward.send(placed).is_err() {
                    return;
                }
            }
        };
        let serve = move || {
            runtime.block_on(async {
                while let Some((job, room)) = waiting.recv().await {
                    let asker = asker.clone();
                    tokio::spawn(async move {
                        asker.serve(&job).await;
                        drop(room);
                    });
                }
            });
            // What is under way ends here, not with the slowest of it.
            runtime.shutdown_background();
        };
        let room = Arc::new(Semaphore::new(limits::HOOK_QUESTIONS));
        Ok((Self { jobs, room }, forward, serve))
    }

    pub(super) fn ask(&self, job: Job) -> Result<(), Full> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| Full)?;
        self.jobs.send((job, room)).map_err(|_| Full)
    }
}

/// All that a question needs on the hook's thread.
struct Asker {
    client: Client,
    url: Url,
    timeout: Duration,
    connections: Semaphore,
    cache: Mutex<Cache>,
    trouble: Mutex<Trouble>,
    answer: Answerer,
}

/// How the hook has failed since the last line about it.
#[derive(Default)]
struct Trouble {
    said: Option<Instant>,
    unsaid: u64,
}

impl Asker {
    async fn serve(&self, job: &Job) {
        let question = &job.question;
        let key = self.cache(|cache| cache.key(question));
        let known = self.cache(|cache| cache.get(&key, Instant::now()));
        let admitted = match known {
            // What the hook has given an end may be over by now; it is asked again.
            Some(said) => admit(job, &said, now()),
            None => Err(Denied::Expired),
        };
        if !matches!(admitted, Err(Denied::Expired)) {
            return job.answer(&self.answer, admitted);
        }
        let asked = async {
            // Closed never.
            let _connection = self.connections.acquire().await;
            self.ask(question).await
        };
        let said = timeout_at((job.since + self.timeout).into(), asked).await;
        let said =
            said.unwrap_or_else(|_| Err(format!("no answer in {} ms", self.timeout.as_millis())));
        let result = match said {
            Ok(said) => {
                let result = admit(job, &said, now());
                if result == Err(Denied::Unavailable) {
                    self.complain("a tenant or filters that are none");
                } else {
                    self.cache(|cache| cache.put(key, said, Instant::now()));
                }
                result
            }
            Err(why) => {
                self.complain(&why);
                Err(Denied::Unavailable)
            }
        };
        job.answer(&self.answer, result);
    }

    /// One question and its answer, or why there is none.
    async fn ask(&self, question: &Question) -> Result<Said, String> {
        #[derive(Deserialize)]
        struct Body {
            result: String,
            #[serde(flatten)]
            more: Hooked,
        }
        let request = self
            .client
            .post(self.url.clone())
            .json(&Asking::of(question));
        // The URL may have a secret in it; it is not for the log.
        let mut response = request.send().await.map_err(why)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("status {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(why)? {
            if body.len() + chunk.len() > limits::HOOK_ANSWER_BYTES {
                return Err(format!(
                    "an answer of more than {} bytes",
                    limits::HOOK_ANSWER_BYTES
                ));
            }
            body.extend_from_slice(&chunk);
        }
        let body: Body = serde_json::from_slice(&body)
            .map_err(|error| format!("an answer that is not as agreed: {error}"))?;
        match body.result.as_str() {
            "allow" => Ok(Said::Yes(Arc::new(body.more))),
            "deny" => Ok(Said::No),
            _ => Err("a result that is neither allow nor deny".to_owned()),
        }
    }

    fn cache<T>(&self, with: impl FnOnce(&mut Cache) -> T) -> T {
        with(&mut self.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One line now and then.
    fn complain(&self, why: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = Duration::from_millis(limits::TROUBLE_PAUSE_MILLIS);
        if trouble.said.is_some_and(|said| said.elapsed() < pause) {
            trouble.unsaid += 1;
            return;
        }
        warn!(
            more = trouble.unsaid,
            "the HTTP hook gives no answer, and who it should answer for stays out: {why}"
        );
        *trouble = Trouble {
            said: Some(Instant::now()),
            unsaid: 0,
        };
    }
}

#[derive(Serialize)]
struct Asking<'a> {
    client_id: &'a str,
    user: Option<&'a str>,
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    address: String,
}

impl<'a> Asking<'a> {
    fn of(question: &'a Question) -> Self {
        let password = question.password.as_deref();
        let text = password.and_then(|password| std::str::from_utf8(password).ok());
        Self {
            client_id: &question.client_id,
            user: question.user.as_deref(),
            password: text,
            password_base64: password
                .filter(|_| text.is_none())
                .map(|bytes| STANDARD.encode(bytes)),
            address: question.address.to_canonical().to_string(),
        }
    }
}

fn admit(job: &Job, said: &Said, now: UnixSeconds) -> Result<Identity, Denied> {
    match said {
        Said::Yes(hooked) => job.access.admit_hooked(&job.question, hooked, now),
        Said::No => Err(Denied::BadCredentials),
    }
}

fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let cause =
        std::iter::successors(std::error::Error::source(&error), |&error| error.source()).last();
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixSeconds(since.unwrap_or_default().as_secs())
}
