//! Who publishes a JWK Set by HTTP, on a free port of this machine: answers what the test has last told it to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a request is answered.
#[derive(Clone)]
pub enum Answer {
    /// 200 with this body.
    Body(String),
    /// 302 to there.
    Elsewhere(String),
    /// This status without a body.
    Status(u16),
    /// Nothing, until the client goes.
    Silence,
    /// 200, and a body that does not end before the client goes.
    Endless,
}

/// See the module.
pub struct Provider {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    answer: Mutex<Answer>,
    asked: AtomicU64,
    ends: AtomicBool,
}

/// Wraps a connection, e.g. in TLS; `None` if that fails.
pub type Wrap = Box<dyn Fn(TcpStream) -> Option<Box<dyn Both>> + Send>;

/// What can be read and written.
pub trait Both: Read + Write {}

impl<T: Read + Write> Both for T {}

impl Provider {
    /// By plain HTTP.
    pub fn start(answer: Answer) -> Self {
        Self::wrapped(answer, Box::new(|stream| Some(Box::new(stream))))
    }

    /// By whatever is between.
    pub fn wrapped(answer: Answer, wrap: Wrap) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { answer: Mutex::new(answer), asked: AtomicU64::new(0), ends: AtomicBool::new(false) };
        let shared = Arc::new(shared);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.ends.load(Ordering::Acquire) {
                    return;
                }
                if let Some(stream) = stream.ok().and_then(&wrap) {
                    // A client that goes away is no business of the test's.
                    let _ = serve(stream, &of_thread);
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    pub fn answers(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Requests that were read so far.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Acquire)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(mut stream: Box<dyn Both>, shared: &Shared) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    shared.asked.fetch_add(1, Ordering::AcqRel);
    let answer = shared.answer.lock().unwrap().clone();
    let (status, more) = match &answer {
        Answer::Body(body) => ("200 OK".to_owned(), format!("Content-Length: {}\r\n\r\n{body}", body.len())),
        Answer::Elsewhere(url) => ("302 Found".to_owned(), format!("Location: {url}\r\nContent-Length: 0\r\n\r\n")),
        Answer::Status(status) => (format!("{status} No"), "Content-Length: 0\r\n\r\n".to_owned()),
        Answer::Endless => ("200 OK".to_owned(), "\r\n".to_owned()),
        Answer::Silence => return stream.read_exact(&mut byte),
    };
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n{more}")?;
    let endless = matches!(answer, Answer::Endless);
    loop {
        stream.flush()?;
        if !endless {
            return Ok(());
        }
        stream.write_all(&[b' '; 4096])?;
    }
}
