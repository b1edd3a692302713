//! A server of one room, small enough to be right by reading it, that can be told to break the promise in one way. It
//! speaks D, and A as far as members of a run do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::class::Class;
use crate::frame::{Encode, FrameKind, Item, put_websocket_header};
use crate::id::StreamHandle;
use crate::message::{ErrorCode, Introduction, Position};
use crate::protocol::frames::json::{self, Hello, Welcome};
use crate::protocol::frames::{FramesEncoder, Inbound, parse, types, write};
use crate::protocol::gateway::write::{self as gateway, Authenticated};
use crate::protocol::gateway::{FrameForm, Origin};
use crate::protocol::routes::Routes;
use crate::time::WallMillis;

use super::session::room_id;

/// What is done to frame [`FAULT_AT`] on its way to the first member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is left out.
    Drop,
    /// It is sent twice.
    Double,
    /// It is sent after the next one.
    Swap,
    /// The connection closes 4408 instead; the resume works.
    Close,
    /// The same, and the resume says that it cannot be served.
    CloseAndForget,
    /// The same, and the resume leaves the frame out.
    CloseAndLie,
    /// Every token is rejected.
    Reject,
    /// Two deltas are left out, and so many are told to be before the next one.
    Skip {
        /// 2 is the truth.
        told: u64,
    },
}

/// The place of the frame that the fault concerns; of deltas the number in the run.
const FAULT_AT: u64 = 5;
const STREAM: StreamHandle = StreamHandle(3);
const BATTLE: StreamHandle = StreamHandle(4);

struct Room {
    fault: Fault,
    members: Vec<Member>,
    /// Wire bytes by place - 1.
    history: Vec<Vec<u8>>,
    held: Vec<u8>,
    deltas: u64,
    /// Wire bytes of each key's newest value, in the order of their coming.
    newest: Vec<(u64, Vec<u8>)>,
    struck: bool,
    /// Heartbeats that came.
    beats: u64,
}

impl Room {
    /// Whether no resume can be served any more.
    fn forgets(&self) -> bool {
        self.struck && self.fault == Fault::CloseAndForget
    }
}

struct Member {
    id: usize,
    socket: TcpStream,
    publisher: bool,
    form: FrameForm,
}

impl Member {
    /// A frame as it stands in the history, in this member's dialect.
    fn frame(&self, frame: &[u8], origin: Origin) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(self.form.transcode(frame, origin, &Routes::default(), &mut out));
        out
    }

    /// The telling of left-out deltas, in this member's dialect.
    fn skipped(&self, count: u64) -> Vec<u8> {
        let mut out = Vec::new();
        match self.form {
            FrameForm::Frames => write::skipped(&mut out, STREAM, count),
            _ => gateway::skipped(&mut out, STREAM, count),
        }
        out
    }
}

/// Starts the server; it lives as long as the test process.
pub fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let room = Room {
        fault,
        members: Vec::new(),
        history: Vec::new(),
        held: Vec::new(),
        deltas: 0,
        newest: Vec::new(),
        struck: false,
        beats: 0,
    };
    let room = Arc::new(Mutex::new(room));
    thread::spawn(move || {
        for (id, socket) in listener.incoming().enumerate() {
            let room = Arc::clone(&room);
            thread::spawn(move || serve(id, socket.unwrap(), &room));
        }
    });
    address
}

/// Ends when the client is gone.
fn serve(id: usize, mut socket: TcpStream, room: &Mutex<Room>) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    socket.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{accept}\r\n\r\n").as_bytes()).ok()?;
    let echo = head.starts_with(b"GET /echo");
    loop {
        let (opcode, mut message) = read_frame(&mut socket)?;
        let mut out = Vec::new();
        // Written under the lock: what is published next comes behind it.
        let mut room = room.lock().unwrap();
        match opcode {
            1 => answer_text(id, &socket, &mut message, &mut room, &mut out),
            2 if echo => {
                put_websocket_header(&mut out, 2, message.len());
                out.extend_from_slice(&message);
            }
            2 => answer(id, &socket, parse(&mut message).unwrap(), &mut room, &mut out),
            _ => {}
        }
        socket.write_all(&out).ok()?;
    }
}

fn read_frame(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).ok()?;
    assert_ne!(head[1] & 0x80, 0, "client frames are masked");
    let (opcode, mut len) = (head[0] & 15, usize::from(head[1] & 0x7f));
    if len == 126 {
        socket.read_exact(&mut head).ok()?;
        len = usize::from(u16::from_be_bytes(head));
    }
    read_payload(socket, opcode, len)
}

fn read_payload(socket: &mut TcpStream, opcode: u8, len: usize) -> Option<(u8, Vec<u8>)> {
    let mut mask = [0; 4];
    socket.read_exact(&mut mask).ok()?;
    let mut payload = vec![0; len];
    socket.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((opcode, payload))
}

fn introduction(room: &Room) -> Introduction {
    let position =
        Position { stream: format!("relay/room:{}", room_id(0)).into(), epoch: 1, place: room.history.len() as u64 };
    Introduction { handle: STREAM, position, publishers_only: false }
}

fn answer(id: usize, socket: &TcpStream, inbound: Inbound<'_>, room: &mut Room, out: &mut Vec<u8>) {
    match inbound {
        Inbound::Hello { .. } if room.fault == Fault::Reject => write::error(out, ErrorCode::AuthFailed, 0, "bad"),
        Inbound::Hello { json } => hello(id, socket, &json::read::<Hello<'_>>(json).unwrap(), room, out),
        Inbound::Join { correlation, .. } => {
            write::joined(out, correlation, &room_id(0), [&introduction(room)], None);
            let position =
                Position { stream: format!("games.events.0/room:{}", room_id(0)).into(), epoch: 1, place: 0 };
            write::position(out, &Introduction { handle: BATTLE, position, publishers_only: false });
            let publisher = room.members.is_empty();
            room.members.push(Member { id, socket: socket.try_clone().unwrap(), publisher, form: FrameForm::Frames });
        }
        Inbound::Publish { kind, class, key, correlation, payload, .. } => {
            publish(room, kind, class, key, payload);
            if correlation > 0 {
                write::ack(out, correlation);
            }
        }
        Inbound::Command { correlation, .. } => {
            write::ack(out, correlation);
            battle(room);
        }
        other => panic!("unexpected {other:?}"),
    }
}

fn hello(id: usize, socket: &TcpStream, hello: &Hello<'_>, room: &mut Room, out: &mut Vec<u8>) {
    let recovered = hello.resume.is_some() && !room.forgets();
    let name = room_id(0);
    let rooms = if hello.resume.is_some() { vec![&*name] } else { Vec::new() };
    write::welcome(out, &Welcome { resume: &format!("r{id}"), recovered, rooms, ..Welcome::default() });
    if hello.resume.is_some() {
        write::position(out, &introduction(room));
        go_on(id, socket, hello, FrameForm::Frames, room, out);
    }
}

fn answer_text(id: usize, socket: &TcpStream, text: &mut [u8], room: &mut Room, out: &mut Vec<u8>) {
    if text.starts_with(b"{\"type\":\"system.heartbeat\"") {
        room.beats += 1;
        if room.fault != Fault::Drop || room.beats != FAULT_AT {
            gateway::heartbeat_ack(out, WallMillis(0));
        }
        return;
    }
    let read = json::read::<Hello<'_>>(text).unwrap();
    let recovered = read.resume.is_some() && !room.forgets();
    let resume = format!("r{id}");
    let name = room_id(0);
    let rooms: &[&str] = if read.resume.is_some() { &[&name] } else { &[] };
    let answer = Authenticated { resume: Some(&resume), recovered, rooms, ..Authenticated::default() };
    gateway::authenticated(out, &answer);
    if read.resume.is_some() {
        gateway::position(out, [&introduction(room)], None);
        go_on(id, socket, &read, FrameForm::Gateway, room, out);
    }
}

/// Takes a member over from its old connection.
fn go_on(id: usize, socket: &TcpStream, hello: &Hello<'_>, form: FrameForm, room: &mut Room, out: &mut Vec<u8>) {
    let old: usize = hello.resume.unwrap()[1..].parse().unwrap();
    room.members.retain(|member| member.id != old);
    let member = Member { id, socket: socket.try_clone().unwrap(), publisher: false, form };
    let after = hello.positions.iter().find(|position| position.stream.starts_with("relay")).unwrap().place;
    let lies = room.struck && room.fault == Fault::CloseAndLie;
    let from = if room.forgets() { room.history.len() } else { after as usize + usize::from(lies) };
    let frames = room.history[from..].iter().chain(room.newest.iter().map(|(_, frame)| frame));
    frames.for_each(|frame| out.extend_from_slice(&member.frame(frame, Origin::Relay)));
    room.members.push(member);
}

fn publish(room: &mut Room, kind: FrameKind, class: Class, key: u64, payload: &[u8]) {
    let (last, delta) = (room.history.len() as u64, class == Class::Delta);
    let (place, prev) = if delta { (last, 0) } else { (last + 1, last) };
    let mut frame = Vec::new();
    FramesEncoder.encode(STREAM, &Item { class, key, forgets: false, place, prev }, kind, payload, &mut frame);
    if delta {
        room.deltas += 1;
        room.newest.retain(|(other, _)| *other != key);
        room.newest.push((key, frame.clone()));
    } else {
        room.history.push(frame.clone());
    }
    let first = room.members.iter().find(|member| !member.publisher).map(|member| member.id);
    let strike = place == FAULT_AT && !delta && !room.struck;
    room.struck |= strike;
    let mut closed = None;
    for member in &mut room.members {
        let mut bytes = member.frame(&frame, Origin::Relay);
        if Some(member.id) == first {
            match room.fault {
                Fault::Skip { told } if delta && (FAULT_AT..=FAULT_AT + 2).contains(&room.deltas) => {
                    if room.deltas < FAULT_AT + 2 {
                        bytes.clear();
                    } else if told > 0 {
                        bytes.splice(..0, member.skipped(told));
                    }
                }
                Fault::Drop if strike => bytes.clear(),
                Fault::Double if strike => bytes.extend_from_within(..),
                Fault::Swap if strike => room.held = std::mem::take(&mut bytes),
                Fault::Swap => bytes.append(&mut room.held),
                Fault::Close | Fault::CloseAndForget | Fault::CloseAndLie if strike => {
                    bytes = [&[0x88, 2][..], &4408u16.to_be_bytes()].concat();
                    closed = first;
                }
                _ => {}
            }
        }
        // A member that is gone is the test's end.
        let _ = member.socket.write_all(&bytes);
    }
    room.members.retain(|member| Some(member.id) != closed);
}

/// Three events and an end; with `Fault::Drop` the second is missing.
fn battle(room: &mut Room) {
    let texts = [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#, r#"{"events":3}"#];
    let mut prev = 0;
    for (place, text) in (1..).zip(texts) {
        if room.fault == Fault::Drop && place == 2 {
            continue;
        }
        let (frame_type, name) = match place {
            4 => (types::BATTLE_END, "battle.event.end"),
            _ => (types::BATTLE_TIMELINE, "battle.event.timeline"),
        };
        // What comes by the bus names its type.
        let text = text.replacen('{', &format!("{{\"type\":\"{name}\","), 1);
        let item = Item { class: Class::Reliable, key: 0, forgets: false, place, prev };
        let mut frame = Vec::new();
        FramesEncoder.encode(BATTLE, &item, FrameKind { frame_type, kind: 0 }, text.as_bytes(), &mut frame);
        for member in &mut room.members {
            let _ = member.socket.write_all(&member.frame(&frame, Origin::Bus));
        }
        prev = place;
    }
}
