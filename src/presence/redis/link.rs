//! The two connections to Redis, each on a thread of its own: one carries out calls of the script, pipelined, in the
//! order in which they were given; the other listens to notices. Both come back by themselves, with growing pauses.
//!
//! Law: every call is answered once, in order. One that got `Fault::Lost` may have been carried out or not. Nothing here
//! grows without bound: calls and notices wait in bounded channels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use redis::{ConnectionLike as _, RedisError, RedisResult, Value};

use super::settings::RedisSettings;
use crate::limits;
use crate::router::Wake;

/// A call of the script.
#[derive(Debug)]
pub(super) struct Call {
    /// Comes back with the answer.
    pub tag: u64,
    /// The script's ARGV.
    pub args: Vec<Box<[u8]>>,
}

/// Why a call has no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The connection is gone; whether the call was carried out is not known.
    Lost,
    /// Redis refused it.
    Refused(String),
}

/// What the threads have to say.
#[derive(Debug)]
pub(super) enum Event {
    /// Calls are carried out from now on.
    Up,
    /// They are not any more, and why.
    Down(String),
    /// The answer to a call.
    Answer(u64, Result<Value, Fault>),
    /// Notices arrive from now on; those before were lost.
    Listening,
    /// A notice: channel and text.
    Notice(Box<str>, Box<str>),
}

/// Both connections.
#[derive(Debug)]
pub(super) struct Link {
    calls: Option<Sender<Call>>,
    answers: Receiver<Event>,
    notices: Receiver<Event>,
    stop: Arc<AtomicBool>,
    caller: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts the threads; `wake` is rung when there is an event. `channels` are listened to.
    pub fn start(settings: &RedisSettings, channels: Vec<String>, wake: Arc<dyn Wake>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (calls, taken) = bounded(limits::REDIS_CALLS);
        let (answering, answers) = bounded(limits::REDIS_CALLS + limits::REDIS_PIPELINE);
        let (noticing, notices) = bounded(limits::REDIS_NOTICES);
        let caller = Caller {
            settings: settings.clone(),
            calls: taken,
            events: answering,
            wake: Arc::clone(&wake),
            stop: Arc::clone(&stop),
        };
        let listener =
            Listener { settings: settings.clone(), channels, events: noticing, wake, stop: Arc::clone(&stop) };
        let caller = spawn("redis", move || caller.run());
        // It ends within its read time-out; nothing waits for it.
        drop(spawn("redis-inbox", move || listener.run()));
        Self { calls: Some(calls), answers, notices, stop, caller: Some(caller) }
    }

    /// Gives a call; `false` if too many wait.
    pub fn give(&self, call: Call) -> bool {
        let Some(calls) = &self.calls else { return false };
        !matches!(calls.try_send(call), Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
    }

    /// The next event, if there is one: answers before notices.
    pub fn event(&self) -> Option<Event> {
        self.answers.try_recv().or_else(|_| self.notices.try_recv()).ok()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.calls = None;
        while self.caller.as_ref().is_some_and(|caller| !caller.is_finished()) {
            // It may wait for room to answer.
            let _ = self.answers.recv_timeout(Duration::from_millis(10));
        }
        if let Some(caller) = self.caller.take() {
            // Its panic was printed.
            let _ = caller.join();
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.expect("a process that cannot start a thread cannot serve")
}

/// The thread that carries out calls.
struct Caller {
    settings: RedisSettings,
    calls: Receiver<Call>,
    events: Sender<Event>,
    wake: Arc<dyn Wake>,
    stop: Arc<AtomicBool>,
}

impl Caller {
    fn run(self) {
        let mut pause = limits::REDIS_RETRY_MIN;
        while !self.stop.load(Ordering::Acquire) {
            let began = Instant::now();
            let why = match self.settings.connect().and_then(|mut connection| Ok((load(&mut connection)?, connection)))
            {
                Ok((script, connection)) => {
                    self.say(Event::Up);
                    match self.serve(connection, script) {
                        Some(error) => error,
                        None => return,
                    }
                }
                Err(error) => error,
            };
            self.say(Event::Down(self.settings.explain(&why)));
            pause = if began.elapsed() > limits::REDIS_RETRY_MAX { limits::REDIS_RETRY_MIN } else { pause };
            if !self.refuse_for(pause) {
                return;
            }
            pause = (pause * 2).min(limits::REDIS_RETRY_MAX);
        }
    }

    /// Carries out calls until the connection breaks, and says why; `None` when nobody has any more.
    fn serve(&self, mut connection: redis::Connection, mut script: String) -> Option<RedisError> {
        let (mut batch, mut packed) = (Vec::new(), Vec::new());
        loop {
            batch.push(self.calls.recv().ok()?);
            batch.extend(self.calls.try_iter().take(limits::REDIS_PIPELINE - 1));
            let mut answers = Vec::with_capacity(batch.len());
            let mut outcome = exchange(&mut connection, &script, &batch, &mut packed, &mut answers);
            // Scripts vanish together (SCRIPT FLUSH): all calls behind the first that missed it missed it too.
            let missing = answers
                .iter()
                .position(|answer| matches!(answer, Err(Fault::Refused(why)) if why.starts_with(NO_SCRIPT)));
            if let (Ok(()), Some(from)) = (&outcome, missing) {
                answers.truncate(from);
                outcome = load(&mut connection).and_then(|loaded| {
                    script = loaded;
                    exchange(&mut connection, &script, &batch[from..], &mut packed, &mut answers)
                });
            }
            answers.resize_with(batch.len(), || Err(Fault::Lost));
            for (call, answer) in batch.drain(..).zip(answers) {
                self.tell(Event::Answer(call.tag, answer));
            }
            self.wake.wake();
            if let Err(error) = outcome {
                return Some(error);
            }
        }
    }

    /// Answers calls without Redis for this long; `false` when nobody has any more.
    fn refuse_for(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match self.calls.recv_deadline(until) {
                Ok(call) => self.say(Event::Answer(call.tag, Err(Fault::Lost))),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn say(&self, event: Event) {
        self.tell(event);
        self.wake.wake();
    }

    fn tell(&self, event: Event) {
        // Its end drops the link, and listens no more.
        let _ = self.events.send(event);
    }
}

/// Sends the calls in one piece and takes their answers, as far as they come.
fn exchange(
    connection: &mut redis::Connection,
    script: &str,
    calls: &[Call],
    packed: &mut Vec<u8>,
    answers: &mut Vec<Result<Value, Fault>>,
) -> RedisResult<()> {
    packed.clear();
    for call in calls {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script).arg(0);
        for arg in &call.args {
            command.arg(&**arg);
        }
        packed.extend_from_slice(&command.get_packed_command());
    }
    connection.send_packed_command(packed)?;
    for _ in calls {
        answers.push(match connection.recv_response()? {
            Value::ServerError(error) => {
                Err(Fault::Refused(format!("{} {}", error.code(), error.details().unwrap_or_default())))
            }
            value => Ok(value),
        });
    }
    Ok(())
}

/// Loads the script and returns its digest.
fn load(connection: &mut redis::Connection) -> RedisResult<String> {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(SCRIPT);
    let digest = connection.req_command(&command)?;
    redis::from_redis_value(digest).map_err(Into::into)
}

/// The thread that listens.
struct Listener {
    settings: RedisSettings,
    channels: Vec<String>,
    events: Sender<Event>,
    wake: Arc<dyn Wake>,
    stop: Arc<AtomicBool>,
}

impl Listener {
    fn run(self) {
        let mut pause = limits::REDIS_RETRY_MIN;
        while !self.stopped() {
            let began = Instant::now();
            if let Err(error) = self.listen() {
                tracing::debug!(%error, "notices of Redis do not arrive");
            }
            pause = if began.elapsed() > limits::REDIS_RETRY_MAX { limits::REDIS_RETRY_MIN } else { pause };
            let until = Instant::now() + pause;
            while let Some(left) = until.checked_duration_since(Instant::now()).filter(|_| !self.stopped()) {
                thread::park_timeout(left.min(STOP_CHECK));
            }
            pause = (pause * 2).min(limits::REDIS_RETRY_MAX);
        }
    }

    fn listen(&self) -> RedisResult<()> {
        let mut connection = self.settings.connect()?;
        let mut notices = connection.as_pubsub();
        notices.subscribe(&self.channels)?;
        notices.set_read_timeout(Some(STOP_CHECK))?;
        self.say(Event::Listening);
        let mut heard = Instant::now();
        while !self.stopped() {
            match notices.get_message() {
                Ok(message) => {
                    heard = Instant::now();
                    let text: String = message.get_payload()?;
                    self.say(Event::Notice(message.get_channel_name().into(), text.into()));
                }
                // The gateway's own renewals are heard too: silence means a connection that is half open.
                Err(error) if error.is_timeout() && heard.elapsed() < limits::GATEWAY_LEASE => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn say(&self, event: Event) {
        let mut event = event;
        while let Err(crossbeam_channel::SendTimeoutError::Timeout(back)) = self.events.send_timeout(event, STOP_CHECK)
        {
            if self.stopped() {
                return;
            }
            event = back;
        }
        self.wake.wake();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// See the file.
const SCRIPT: &str = include_str!("presence.lua");
/// How Redis says that it does not have a script.
const NO_SCRIPT: &str = "NOSCRIPT";
/// How soon the listening thread ends.
const STOP_CHECK: Duration = Duration::from_millis(200);
