//! One suite for every driver over sockets: real TCP on 127.0.0.1, seen through the [`Driver`] trait only.
//!
//! Where the host refuses io_uring its tests fail, and say how to leave them out: `RINGGATE_TEST_NO_URING=1`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::monoio::{MonoioConfig, MonoioDriver};
use super::uring::{self, UringConfig, UringDriver};
use super::{Completion, Driver, Outcome, SendBatch, Wait, Wake, syscall};
use crate::class::Class;
use crate::frame::{BatchBuilder, Item, Run, Shared};
use crate::id::{ConnKey, NodeId, StreamHandle};
use crate::time::Monotonic;

/// What the suite needs to build a driver.
trait Candidate: Driver<Socket = TcpStream> + Sized {
    fn build(listener: Option<OwnedFd>) -> Self;
    fn bell(&self) -> Arc<dyn Wake>;
    fn wakers(&mut self, wakers: Vec<Arc<dyn Wake>>);
    /// Whether the host has it; false only where the environment says so.
    fn available() -> bool {
        true
    }
}

impl Candidate for UringDriver {
    fn build(listener: Option<OwnedFd>) -> Self {
        Self::new(UringConfig { listener }).unwrap()
    }
    fn bell(&self) -> Arc<dyn Wake> {
        self.waker()
    }
    fn wakers(&mut self, wakers: Vec<Arc<dyn Wake>>) {
        self.set_wakers(wakers);
    }
    fn available() -> bool {
        match uring::probe() {
            Ok(()) => true,
            Err(error) if std::env::var_os("RINGGATE_TEST_NO_URING").is_some_and(|v| v == "1") => {
                eprintln!("NOT TESTED, as RINGGATE_TEST_NO_URING=1: {error}");
                false
            }
            Err(error) => panic!("{error}\nSet RINGGATE_TEST_NO_URING=1 to test without the io_uring driver."),
        }
    }
}

impl Candidate for MonoioDriver {
    fn build(listener: Option<OwnedFd>) -> Self {
        Self::new(MonoioConfig { listener }).unwrap()
    }
    fn bell(&self) -> Arc<dyn Wake> {
        self.waker()
    }
    fn wakers(&mut self, wakers: Vec<Arc<dyn Wake>>) {
        self.set_wakers(wakers);
    }
}

/// Every test for every driver, so that the counts are equal by construction.
macro_rules! conformance {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        conformance!(@driver uring_driver UringDriver $($(#[$doc])* $name;)*);
        conformance!(@driver monoio_driver MonoioDriver $($(#[$doc])* $name;)*);

        /// The suite is the same for every driver; the counts are printed for the record.
        #[test]
        fn counts_are_equal() {
            let tests = [$(stringify!($name)),*];
            println!("uring: {0} tests, monoio: {0} tests", tests.len());
            assert!(tests.len() >= 15);
        }
    };
    (@driver $module:ident $driver:ident $($(#[$doc:meta])* $name:ident;)*) => {
        mod $module {
            use super::Candidate;
            $($(#[$doc])* #[test] fn $name() {
                if super::$driver::available() {
                    super::$name::<super::$driver>();
                }
            })*
        }
    };
}

conformance! {
    /// Bytes arrive in order from an accepted client whose address is told, and go back.
    accepts_receives_and_sends;
    /// A batch gives each connection its own outcome, and one that is gone does not disturb the rest.
    a_batch_has_one_outcome_per_connection;
    /// A send that the kernel takes in part says how much, and the rest follows once `Writable` is reported.
    a_short_send_goes_on_when_writable;
    /// A paused connection receives nothing until it is resumed, and then all of it.
    pause_holds_input_and_resume_delivers_it;
    /// The end of a paused connection is reported though it is not read.
    a_paused_connection_reports_the_end_of_stream;
    /// The reset of a paused connection is reported though it is not read.
    a_paused_connection_reports_a_reset;
    /// Pausing and resuming in one turn loses no byte and no receive.
    pausing_and_resuming_at_once_loses_nothing;
    /// FIN is the end of the stream, after all bytes before it.
    fin_ends_the_stream;
    /// A reset is a failure, not an end of stream.
    a_reset_is_a_failure;
    /// SHUT_WR with a megabyte unsent and unread input delivers all of it.
    shutdown_delivers_what_was_sent;
    /// Nothing is reported of a connection after `close` but `Closed`, however much it still sends.
    a_closed_connection_is_silent;
    /// A slot in its next life sees no completion of the former one.
    a_former_life_is_not_heard_of;
    /// A doorbell rung by another thread ends a wait, and one rung before the wait ends it at once.
    a_doorbell_ends_a_wait;
    /// A driver rings its peers by their node.
    a_peer_is_woken;
    /// A wait ends at its deadline, not before it, and does not block when work arrived or `Poll` says so.
    a_wait_ends_at_its_deadline;
    /// A refused client gets its answer and a clean end, though it sent a request that nobody read.
    a_refusal_arrives_without_a_reset;
    /// A thousand connections come and go and leave no descriptor open.
    churn_leaves_no_descriptor_open;
    /// 600 clients sending at once, more than there are buffers, lose nothing.
    a_burst_beyond_the_buffers_loses_nothing;
    /// One client that sends without end does not keep the others from being heard.
    a_flood_does_not_starve_others;
    /// After `stop_accepting` the port is closed and connections go on.
    stopping_closes_the_listener;
    /// At the limit of descriptors accepting fails by the clock, not in a spin, and recovers.
    no_spin_without_descriptors;
    /// Dropping a driver closes its connections and descriptors.
    dropping_closes_everything;
}

/// A driver with a listener and the clients' end of it, and a small shard's bookkeeping.
struct Bench<D: Candidate> {
    driver: D,
    addr: SocketAddr,
    out: Vec<Completion<TcpStream>>,
    next_slot: u32,
}

impl<D: Candidate> Bench<D> {
    fn new() -> Self {
        let listener = syscall::listen("127.0.0.1:0".parse().unwrap(), 4096).unwrap();
        let listener = TcpListener::from(listener);
        let addr = listener.local_addr().unwrap();
        Self { driver: D::build(Some(listener.into())), addr, out: Vec::new(), next_slot: 0 }
    }

    /// Waits once, at most a while, and returns what happened; panics after five seconds of nothing.
    fn turn(&mut self) -> Vec<Completion<TcpStream>> {
        for _ in 0..50 {
            let deadline = self.driver.now() + Duration::from_millis(100);
            self.driver.wait(Wait::Until(deadline), &mut || false, &mut self.out);
            if !self.out.is_empty() {
                return std::mem::take(&mut self.out);
            }
        }
        panic!("nothing happened for five seconds");
    }

    /// What happens within `span`.
    fn during(&mut self, span: Duration) -> Vec<Completion<TcpStream>> {
        let deadline = self.driver.now() + span;
        let mut all = Vec::new();
        while self.driver.now() < deadline {
            self.driver.wait(Wait::Until(deadline), &mut || false, &mut self.out);
            // Leases have to be given back before the next wait.
            all.append(&mut self.out);
            assert!(!all.iter().any(|c| matches!(c, Completion::Received { .. })), "{all:?}");
        }
        all
    }

    /// A client and its accepted, not attached socket.
    fn accept(&mut self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for completion in self.turn() {
            if let Completion::Accepted { socket, peer } = completion {
                assert_eq!(peer, client.local_addr().unwrap());
                return (client, socket);
            }
        }
        panic!("nothing was accepted");
    }

    /// A connected client and its connection.
    fn connect(&mut self) -> (TcpStream, ConnKey) {
        let (client, socket) = self.accept();
        let conn = ConnKey { slot: self.next_slot, generation: 7 };
        self.next_slot += 1;
        self.driver.attach(conn, socket);
        (client, conn)
    }

    /// Copies out and gives back what was received of `conn`; leaves the rest.
    fn take_bytes(
        &mut self,
        conn: ConnKey,
        from: Vec<Completion<TcpStream>>,
        into: &mut Vec<u8>,
    ) -> Vec<Completion<TcpStream>> {
        let mut rest = Vec::new();
        for completion in from {
            match completion {
                Completion::Received { conn: of, lease } => {
                    assert_eq!(of, conn);
                    assert!(lease.len > 0, "a receive has a byte at least");
                    into.extend_from_slice(self.driver.bytes_mut(&lease));
                    self.driver.release(lease);
                }
                other => rest.push(other),
            }
        }
        rest
    }

    /// Receives until `len` bytes of `conn` are there.
    fn receive(&mut self, conn: ConnKey, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let happened = self.turn();
            let rest = self.take_bytes(conn, happened, &mut bytes);
            assert!(rest.is_empty(), "{rest:?}");
        }
        bytes
    }

    /// The first completion of `conn` that is no `Received`; input is discarded until then.
    fn outcome_of(&mut self, conn: ConnKey) -> Completion<TcpStream> {
        loop {
            let happened = self.turn();
            if let Some(first) = self.take_bytes(conn, happened, &mut Vec::new()).into_iter().next() {
                return first;
            }
        }
    }

    fn send(&mut self, conn: ConnKey, bytes: &[u8]) -> Outcome {
        let mut batch = SendBatch::default();
        batch.push_gathered(conn, |scratch| scratch.extend_from_slice(bytes));
        self.driver.flush(&mut batch);
        batch.outcomes().next().unwrap().2
    }

    /// Sends until the kernel takes no more; returns how much it took of `bytes`.
    fn send_until_short(&mut self, conn: ConnKey, bytes: &[u8]) -> usize {
        match self.send(conn, bytes) {
            Outcome::Sent => bytes.len(),
            Outcome::Short(taken) => taken,
            Outcome::Error(kind) => panic!("{kind}"),
        }
    }

    fn close(&mut self, conn: ConnKey) {
        self.driver.close(conn);
        match self.turn().as_slice() {
            [Completion::Closed { conn: closed }] => assert_eq!(*closed, conn),
            other => panic!("{other:?}"),
        }
    }
}

fn accepts_receives_and_sends<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, conn) = bench.connect();
    client.write_all(b"hello").unwrap();
    assert_eq!(bench.receive(conn, 5), b"hello");
    let big: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    client.write_all(&big).unwrap();
    assert_eq!(bench.receive(conn, big.len()), big);
    assert_eq!(bench.send(conn, b"world"), Outcome::Sent);
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"world");
    bench.close(conn);
    assert_eq!(client.read(&mut answer).unwrap(), 0);
}

fn a_batch_has_one_outcome_per_connection<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let mut clients: Vec<_> = (0..300).map(|_| bench.connect()).collect();
    let gone = ConnKey { slot: 5, generation: 8 };
    let item = Item { class: Class::Reliable, key: 0, forgets: false, place: 1, prev: 0 };
    let mut builder = BatchBuilder::new(StreamHandle(1));
    builder.push(item, |out| out.extend_from_slice(b"shared"));
    let run = Run::whole(Shared::new(Arc::new(builder.seal(Monotonic::ZERO))));
    let mut batch = SendBatch::default();
    for (index, (_, conn)) in clients.iter().enumerate() {
        match index % 2 {
            0 => batch.push_run(*conn, run.clone(), 0),
            _ => batch.push_gathered(*conn, |scratch| scratch.extend_from_slice(&(index as u32).to_be_bytes())),
        }
    }
    batch.push_gathered(gone, |scratch| scratch.push(0));
    bench.driver.flush(&mut batch);
    let outcomes: Vec<_> = batch.outcomes().collect();
    for (conn, _, outcome) in &outcomes {
        let expected = if *conn == gone { Outcome::Error(io::ErrorKind::NotConnected) } else { Outcome::Sent };
        assert_eq!(*outcome, expected, "{conn:?}");
    }
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        let expected = if index % 2 == 0 { run.bytes().to_vec() } else { (index as u32).to_be_bytes().to_vec() };
        let mut bytes = vec![0; expected.len()];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }
}

fn a_short_send_goes_on_when_writable<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, conn) = bench.connect();
    let bytes: Vec<u8> = (0..8 << 20).map(|i: u32| (i ^ (i >> 9)) as u8).collect();
    let len = bytes.len();
    let mut sent = bench.send_until_short(conn, &bytes);
    // Two kernels take some time to fill both socket buffers; then it is silent.
    loop {
        assert!(sent < len, "8 MiB do not fit two socket buffers");
        bench.driver.watch_writable(conn);
        if bench.during(Duration::from_millis(30)).is_empty() {
            break;
        }
        sent += bench.send_until_short(conn, &bytes[sent..]);
    }
    assert_eq!(bench.send(conn, &bytes[sent..sent + 1]), Outcome::Short(0));
    let reader = thread::spawn(move || {
        let mut all = vec![0; len];
        client.read_exact(&mut all).map(|()| all)
    });
    while sent < len {
        assert!(matches!(bench.turn().as_slice(), [Completion::Writable { conn: of }] if *of == conn));
        sent += bench.send_until_short(conn, &bytes[sent..]);
        bench.driver.watch_writable(conn);
    }
    assert!(reader.join().unwrap().unwrap() == bytes);
}

fn pause_holds_input_and_resume_delivers_it<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, conn) = bench.connect();
    client.write_all(b"a").unwrap();
    assert_eq!(bench.receive(conn, 1), b"a");
    bench.driver.pause_reads(conn);
    assert!(bench.during(Duration::from_millis(10)).is_empty());
    client.write_all(b"bcd").unwrap();
    assert!(bench.during(Duration::from_millis(20)).is_empty());
    bench.driver.resume_reads(conn);
    assert_eq!(bench.receive(conn, 3), b"bcd");
    client.write_all(b"e").unwrap();
    assert_eq!(bench.receive(conn, 1), b"e");
}

fn a_paused_connection_reports_the_end_of_stream<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (client, conn) = bench.connect();
    bench.driver.pause_reads(conn);
    assert!(bench.during(Duration::from_millis(10)).is_empty());
    client.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(bench.outcome_of(conn), Completion::EndOfStream { .. }));
    // Once is enough, resumed or not.
    bench.driver.resume_reads(conn);
    assert!(bench.during(Duration::from_millis(10)).is_empty());
    bench.close(conn);
}

fn a_paused_connection_reports_a_reset<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (client, conn) = bench.connect();
    bench.driver.pause_reads(conn);
    assert!(bench.during(Duration::from_millis(10)).is_empty());
    reset(&mut bench, client, conn);
    match bench.outcome_of(conn) {
        Completion::Failed { kind, .. } => assert_eq!(kind, io::ErrorKind::ConnectionReset),
        other => panic!("{other:?}"),
    }
    bench.close(conn);
}

/// Makes the client's kernel send RST: it closes with unread input.
fn reset<D: Candidate>(bench: &mut Bench<D>, client: TcpStream, conn: ConnKey) {
    assert_eq!(bench.send(conn, b"unread"), Outcome::Sent);
    let mut byte = [0];
    assert_eq!(client.peek(&mut byte).unwrap(), 1);
    drop(client);
}

fn pausing_and_resuming_at_once_loses_nothing<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, conn) = bench.connect();
    let mut received = Vec::new();
    let sent: Vec<u8> = (0..200).collect();
    for byte in &sent {
        client.write_all(&[*byte]).unwrap();
        bench.driver.pause_reads(conn);
        bench.driver.resume_reads(conn);
        if byte % 3 == 0 {
            bench.driver.pause_reads(conn);
            bench.driver.wait(Wait::Poll, &mut || false, &mut bench.out);
            let happened = std::mem::take(&mut bench.out);
            assert!(bench.take_bytes(conn, happened, &mut received).is_empty());
            bench.driver.resume_reads(conn);
        }
    }
    while received.len() < sent.len() {
        let happened = bench.turn();
        assert!(bench.take_bytes(conn, happened, &mut received).is_empty());
    }
    assert_eq!(received, sent);
}

fn fin_ends_the_stream<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, conn) = bench.connect();
    client.write_all(&[1; 10_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    let end = loop {
        let happened = bench.turn();
        if let Some(end) = bench.take_bytes(conn, happened, &mut bytes).into_iter().next() {
            break end;
        }
    };
    assert!(matches!(end, Completion::EndOfStream { conn: of } if of == conn), "{end:?}");
    assert_eq!(bytes.len(), 10_000);
    // The other direction is still open.
    assert_eq!(bench.send(conn, b"bye"), Outcome::Sent);
    bench.driver.shutdown_write(conn);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"bye");
    bench.close(conn);
}

fn a_reset_is_a_failure<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (client, conn) = bench.connect();
    reset(&mut bench, client, conn);
    match bench.outcome_of(conn) {
        Completion::Failed { conn: of, kind } => assert_eq!((of, kind), (conn, io::ErrorKind::ConnectionReset)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(bench.send(conn, b"x"), Outcome::Error(_)));
    bench.close(conn);
}

fn shutdown_delivers_what_was_sent<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, conn) = bench.connect();
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| (i ^ (i >> 11)) as u8).collect();
    let mut sent = bench.send_until_short(conn, &bytes);
    // Input that arrives while output waits must not turn the end into a reset.
    client.write_all(&[7; 5000]).unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).map(|_| all)
    });
    while sent < bytes.len() {
        bench.driver.watch_writable(conn);
        let happened = bench.turn();
        bench.take_bytes(conn, happened, &mut Vec::new());
        sent += bench.send_until_short(conn, &bytes[sent..]);
    }
    bench.driver.shutdown_write(conn);
    loop {
        if let Completion::EndOfStream { .. } = bench.outcome_of(conn) {
            break;
        }
    }
    bench.close(conn);
    assert!(reader.join().unwrap().unwrap() == bytes);
}

fn a_closed_connection_is_silent<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, conn) = bench.connect();
    assert!(bench.during(Duration::from_millis(5)).is_empty());
    client.write_all(&[1; 100_000]).unwrap();
    bench.driver.watch_writable(conn);
    bench.driver.pause_reads(conn);
    bench.driver.close(conn);
    assert_eq!(bench.send(conn, b"x"), Outcome::Error(io::ErrorKind::NotConnected));
    let all = bench.during(Duration::from_millis(50));
    assert!(matches!(all.as_slice(), [Completion::Closed { conn: of }] if *of == conn), "{all:?}");
}

fn a_former_life_is_not_heard_of<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    for generation in 1..200u32 {
        let conn = ConnKey { slot: 3, generation };
        let (mut client, socket) = bench.accept();
        bench.driver.attach(conn, socket);
        client.write_all(&generation.to_be_bytes()).unwrap();
        assert_eq!(bench.receive(conn, 4), generation.to_be_bytes());
        // Leave something behind: input on its way, an armed poll, an end.
        let _ = client.write_all(b"late");
        bench.driver.watch_writable(conn);
        if generation % 2 == 0 {
            drop(client);
        }
        let former = ConnKey { slot: 3, generation: generation - 1 };
        assert_eq!(bench.send(former, b"x"), Outcome::Error(io::ErrorKind::NotConnected));
        bench.driver.close(former);
        bench.close(conn);
    }
}

fn a_doorbell_ends_a_wait<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    for _ in 0..3 {
        let bell = bench.driver.bell();
        let ringer = thread::spawn(move || bell.wake());
        bench.driver.wait(Wait::Until(Monotonic::NEVER), &mut || false, &mut bench.out);
        assert!(bench.out.is_empty());
        ringer.join().unwrap();
        // Rung before the wait, several times: it ends at once, and only once.
        bench.driver.bell().wake();
        bench.driver.bell().wake();
        bench.driver.wait(Wait::Until(Monotonic::NEVER), &mut || false, &mut bench.out);
        let started = Instant::now();
        let deadline = bench.driver.now() + Duration::from_millis(20);
        bench.driver.wait(Wait::Until(deadline), &mut || false, &mut bench.out);
        assert!(started.elapsed() >= Duration::from_millis(19));
    }
}

fn a_peer_is_woken<D: Candidate>() {
    let (mut first, mut second) = (D::build(None), D::build(None));
    first.wakers(vec![first.bell(), second.bell()]);
    first.wake(NodeId(1));
    second.wait(Wait::Until(Monotonic::NEVER), &mut || false, &mut Vec::new());
}

fn a_wait_ends_at_its_deadline<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    for millis in [1u64, 5, 30] {
        let before = bench.driver.now();
        let deadline = before + Duration::from_millis(millis);
        bench.driver.wait(Wait::Until(deadline), &mut || false, &mut bench.out);
        let after = bench.driver.now();
        assert!(after >= deadline, "{millis} ms: {:?} early", deadline.since(after));
        assert!(after.since(deadline) < Duration::from_millis(500));
    }
    bench.driver.wait(Wait::Poll, &mut || false, &mut bench.out);
    let mut asked = 0;
    bench.driver.wait(
        Wait::Until(Monotonic::NEVER),
        &mut || {
            asked += 1;
            true
        },
        &mut bench.out,
    );
    assert_eq!(asked, 1, "asked once, before blocking");
    let past = bench.driver.now();
    bench.driver.wait(Wait::Until(past), &mut || false, &mut bench.out);
    assert!(bench.out.is_empty());
}

fn a_refusal_arrives_without_a_reset<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, socket) = bench.accept();
    client.write_all(&[b'x'; 3000]).unwrap();
    // The request has to be there, or its arrival after the close would cause the reset.
    let mut probe = [0; 3000];
    socket.set_nonblocking(false).unwrap();
    while socket.peek(&mut probe).unwrap() < probe.len() {}
    bench.driver.refuse(socket, b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"));
}

fn churn_leaves_no_descriptor_open<D: Candidate>() {
    in_child(stringify!(churn_leaves_no_descriptor_open), std::any::type_name::<D>(), "true", || {
        let mut bench = Bench::<D>::new();
        assert!(bench.during(Duration::from_millis(5)).is_empty());
        let before = descriptors();
        for round in 0..100 {
            let mut open: Vec<_> = (0..10u32)
                .map(|slot| {
                    let (mut client, socket) = bench.accept();
                    let conn = ConnKey { slot, generation: round };
                    bench.driver.attach(conn, socket);
                    client.write_all(b"x").unwrap();
                    assert_eq!(bench.receive(conn, 1), b"x");
                    (client, conn)
                })
                .collect();
            let mut closed = 0;
            for (index, (_, conn)) in open.iter().enumerate() {
                match index % 3 {
                    0 => bench.driver.pause_reads(*conn),
                    1 => bench.driver.watch_writable(*conn),
                    _ => bench.driver.shutdown_write(*conn),
                }
                bench.driver.close(*conn);
            }
            while closed < open.len() {
                closed += bench.turn().iter().filter(|c| matches!(c, Completion::Closed { .. })).count();
            }
            open.clear();
        }
        assert_eq!(descriptors(), before);
    });
}

fn a_burst_beyond_the_buffers_loses_nothing<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let mut clients: Vec<_> = (0..600).map(|_| bench.connect()).collect();
    let message: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    for round in 1..=3 {
        for (client, _) in &mut clients {
            client.write_all(&message).unwrap();
        }
        let mut received = vec![Vec::new(); clients.len()];
        let mut total = 0;
        while total < clients.len() * message.len() {
            for completion in bench.turn() {
                let Completion::Received { conn, lease } = completion else { panic!("{completion:?}") };
                let bytes = bench.driver.bytes_mut(&lease);
                total += bytes.len();
                received[conn.slot as usize].extend_from_slice(bytes);
                bench.driver.release(lease);
            }
        }
        assert!(received.iter().all(|bytes| *bytes == message), "round {round}");
    }
}

fn a_flood_does_not_starve_others<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut flood, flooding) = bench.connect();
    let (mut quiet, conn) = bench.connect();
    flood.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let flooder = thread::spawn(move || while flood.write_all(&[0; 65_536]).is_ok() {});
    let mut bytes = 0;
    while bytes < 1 << 20 {
        for completion in bench.turn() {
            let Completion::Received { lease, .. } = completion else { panic!("{completion:?}") };
            bytes += lease.len;
            bench.driver.release(lease);
        }
    }
    quiet.write_all(b"x").unwrap();
    let mut turns = 0;
    let mut heard = false;
    while !heard {
        turns += 1;
        assert!(turns < 1000, "the quiet one is not heard");
        for completion in bench.turn() {
            let Completion::Received { conn: of, lease } = completion else { panic!("{completion:?}") };
            heard |= of == conn;
            bench.driver.release(lease);
        }
    }
    bench.driver.close(flooding);
    while !bench.turn().iter().any(|c| matches!(c, Completion::Closed { .. })) {}
    flooder.join().unwrap();
}

fn stopping_closes_the_listener<D: Candidate>() {
    let mut bench = Bench::<D>::new();
    let (mut client, conn) = bench.connect();
    bench.driver.stop_accepting();
    assert!(bench.during(Duration::from_millis(50)).is_empty());
    let error = TcpStream::connect(bench.addr).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    client.write_all(b"on").unwrap();
    assert_eq!(bench.receive(conn, 2), b"on");
}

fn no_spin_without_descriptors<D: Candidate>() {
    in_child(stringify!(no_spin_without_descriptors), std::any::type_name::<D>(), "ulimit -n 64", || {
        let mut bench = Bench::<D>::new();
        let spare = std::fs::File::open("/dev/null").unwrap();
        let client = TcpStream::connect(bench.addr).unwrap();
        let mut fill = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            fill.push(file);
        }
        let (started, deadline) = (Instant::now(), bench.driver.now() + Duration::from_millis(500));
        let (mut failures, mut waits) = (0, 0);
        while bench.driver.now() < deadline {
            bench.driver.wait(Wait::Until(deadline), &mut || false, &mut bench.out);
            waits += 1;
            for completion in bench.out.drain(..) {
                match completion {
                    Completion::AcceptFailed(_) => failures += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!((1..=8).contains(&failures), "{failures} failures in {:?}", started.elapsed());
        assert!(waits <= 12, "{waits} waits");
        drop((spare, fill));
        let happened = bench.turn();
        assert!(matches!(happened.as_slice(), [Completion::Accepted { .. }]), "{happened:?}");
        drop(client);
    });
}

fn dropping_closes_everything<D: Candidate>() {
    in_child(stringify!(dropping_closes_everything), std::any::type_name::<D>(), "true", || {
        let before = descriptors();
        let mut bench = Bench::<D>::new();
        let (mut client, _conn) = bench.connect();
        let (mut other, paused) = bench.connect();
        bench.driver.pause_reads(paused);
        assert!(bench.during(Duration::from_millis(5)).is_empty());
        drop(bench);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the connection is closed");
        assert_eq!(other.read(&mut [0]).unwrap(), 0, "the paused connection is closed");
        drop((client, other));
        assert_eq!(descriptors(), before);
    });
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs `body` as the only test of a process of its own, started by a shell after `setup`: for what counts or limits
/// the descriptors of the process.
fn in_child(test: &str, driver: &str, setup: &str, body: impl FnOnce()) {
    let module = if driver.ends_with("UringDriver") { "uring_driver" } else { "monoio_driver" };
    let name = format!("shard::driver::conformance::{module}::{test}");
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let command = format!("{setup}; exec \"$0\" \"$@\"");
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .arg(std::env::current_exe().unwrap())
        .args([name.as_str(), "--exact", "--test-threads=1", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

const CHILD: &str = "RINGGATE_TEST_CHILD";
