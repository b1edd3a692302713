//! The limit: a bare TCP server on io_uring that sends the bytes ringgate sends and does nothing else. Question: how
//! many deliveries per second, and how much CPU per delivery, does the kernel leave? `ringgate load` runs unchanged
//! against it. No checks, no bounds, no history: one thread, one ring, one send per connection and flush.
//!
//!     cargo bench --bench limit -- echo --port 9990 --cpu 0
//!     cargo bench --bench limit -- fanout --port 9990 --cpu 0
//!
//! Without a mode (`cargo test --benches`) it checks itself in a few milliseconds.

mod server;
mod smoke;

use std::net::TcpListener;
use std::process::ExitCode;

use server::{Mode, Server};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mode = match arguments.iter().find(|argument| !argument.starts_with("--")).map(String::as_str) {
        Some("echo") => Mode::Echo,
        Some("fanout") => Mode::Fanout,
        Some(other) => {
            eprintln!("limit: unknown mode {other:?}; give echo or fanout");
            return ExitCode::from(2);
        }
        None => return smoke::check(),
    };
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u16>().ok()
    };
    let port = option("--port").unwrap_or(9990);
    if let Some(cpu) = option("--cpu") {
        let mut set = rustix::thread::CpuSet::new();
        set.set(usize::from(cpu));
        rustix::thread::sched_setaffinity(None, &set).expect("--cpu names a core of this machine");
    }
    let served = TcpListener::bind(("127.0.0.1", port)).and_then(|listener| {
        println!("limit: {mode:?} on ws://127.0.0.1:{port}, pid {}", std::process::id());
        Server::new(listener, mode)?.run(usize::MAX)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("limit: {error}");
            ExitCode::from(2)
        }
    }
}
