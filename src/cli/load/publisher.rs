//! When a publisher sends what: an in-flight window or a fixed rate, events and deltas.

use std::sync::atomic::Ordering;

use crate::id::StreamHandle;
use crate::protocol::frames::{Header, client, types};

use super::link::Link;
use super::options::{Dialect, Options, Pace};
use super::shared::Shared;
use super::stamp::Stamp;
use super::wire::opcode;

/// A publisher's numbers. Correlations are `number << 1 | reliable`, so that an answer names what it answers.
#[derive(Default, Debug)]
pub struct Publisher {
    /// Index in the run.
    index: usize,
    reliable: u64,
    deltas: u64,
    /// Messages that asked for an answer, and answers.
    asked: u64,
    answered: u64,
    /// Number of the last reliable frame that was answered.
    reliable_answered: u64,
    share: f64,
    /// When the next one is due, ns; 0 = pacing has not begun.
    next_ns: f64,
    next_delta_ns: f64,
}

/// Output beyond this waits; the intended times stay, so the wait counts.
const OUT_BYTES_MAX: usize = 1 << 20;

impl Publisher {
    /// Publisher `index` of the run.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self { index, ..Self::default() }
    }

    /// Sends what may be sent now; returns when the next one is due, ns, `u64::MAX` if an answer must come first.
    pub fn pump(&mut self, link: &mut Link, relay: StreamHandle, shared: &Shared, now: u64) -> u64 {
        let options = &shared.options;
        if self.next_ns == 0.0 {
            let offset = self.index as f64 / options.publishers as f64;
            self.next_ns = now as f64 + offset * interval(options.rate).min(1e9);
            self.next_delta_ns = now as f64 + offset * interval(options.delta_rate).min(1e9);
        }
        while options.delta_rate > 0.0 && self.next_delta_ns <= now as f64 && link.waiting() < OUT_BYTES_MAX {
            self.send_delta(link, relay, shared, self.next_delta_ns as u64, false);
            self.next_delta_ns += interval(options.delta_rate);
        }
        if options.rate > 0.0 {
            while self.next_ns <= now as f64 && link.waiting() < OUT_BYTES_MAX {
                self.send(link, relay, shared, self.next_ns as u64);
                self.next_ns += interval(options.rate);
            }
        } else if options.sends_by_window() {
            while self.under_way(shared) < options.in_flight && link.waiting() < OUT_BYTES_MAX {
                self.send(link, relay, shared, now);
            }
        }
        let due = |rate: f64, next: f64| if rate > 0.0 { next as u64 } else { u64::MAX };
        due(options.rate, self.next_ns).min(due(options.delta_rate, self.next_delta_ns))
    }

    /// An ACK, or an ERROR; with correlation 0 it is about a delta that asked for no answer.
    pub fn answered(&mut self, correlation: u64, accepted: bool, shared: &Shared) {
        self.answered += u64::from(correlation != 0);
        let (number, reliable) = (correlation >> 1, correlation & 1 == 1);
        if !reliable {
            shared.deltas_refused[self.index].fetch_add(u64::from(!accepted), Ordering::AcqRel);
            return;
        }
        self.reliable_answered = self.reliable_answered.max(number);
        if !accepted {
            shared.log().refused.insert((self.index as u32, number));
            shared.witnessed[self.index].fetch_max(number, Ordering::AcqRel);
        }
    }

    /// Answers that are missing.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.asked.saturating_sub(self.answered)
    }

    /// The connection is gone: what was not answered may or may not have been taken, so it is not expected.
    pub fn gone(&mut self, shared: &Shared) {
        shared.reliable[self.index].store(self.reliable_answered, Ordering::Release);
        shared.deltas_refused[self.index].store(self.deltas, Ordering::Release);
        self.answered = self.asked;
    }

    fn under_way(&self, shared: &Shared) -> u64 {
        let unanswered = self.unanswered();
        match shared.options.pace {
            Pace::Acked => unanswered,
            Pace::Delivered => {
                let witnessed = shared.witnessed[self.index].load(Ordering::Acquire);
                unanswered.max(self.reliable.saturating_sub(witnessed))
            }
        }
    }

    fn send(&mut self, link: &mut Link, relay: StreamHandle, shared: &Shared, sent_ns: u64) {
        self.share += shared.options.delta_share;
        if self.share >= 1.0 {
            self.share -= 1.0;
            return self.send_delta(link, relay, shared, sent_ns, true);
        }
        self.reliable += 1;
        shared.reliable[self.index].store(self.reliable, Ordering::Release);
        self.asked += 1;
        let stamp = Stamp { publisher: self.index as u32, number: self.reliable, sent_ns };
        let header =
            Header { frame_type: types::EVENT, stream: relay, number: self.reliable << 1 | 1, ..Header::default() };
        let size = shared.options.size;
        link.put_frame(opcode::BINARY, Header::LEN + size, |out| {
            header.put(out);
            put_stamp(&shared.options, &stamp, out, false);
        });
    }

    fn send_delta(&mut self, link: &mut Link, relay: StreamHandle, shared: &Shared, sent_ns: u64, asks: bool) {
        self.deltas += 1;
        shared.deltas[self.index].store(self.deltas, Ordering::Release);
        self.asked += u64::from(asks);
        let keys = shared.options.delta_keys as u64;
        let key = self.index as u64 * keys + self.deltas % keys;
        let stamp = Stamp { publisher: self.index as u32, number: self.deltas, sent_ns };
        let number = if asks { self.deltas << 1 } else { 0 };
        let header = Header { frame_type: types::WORLD_DELTA, stream: relay, number, ..Header::default() };
        let size = shared.options.size;
        link.put_frame(opcode::BINARY, Header::LEN + 8 + size, |out| {
            header.put(out);
            out.extend_from_slice(&key.to_le_bytes());
            put_stamp(&shared.options, &stamp, out, true);
        });
    }
}

fn put_stamp(options: &Options, stamp: &Stamp, out: &mut Vec<u8>, delta: bool) {
    match options.dialect {
        Dialect::Frames => stamp.put(out, options.size),
        Dialect::Json => stamp.put_json(out, options.size, delta),
    }
}

impl Options {
    /// Whether publishers send whenever their window has room.
    fn sends_by_window(&self) -> bool {
        use super::options::Mode;
        matches!(self.mode, Mode::Fanout | Mode::Burst | Mode::Stalled) && self.battle.is_none()
    }
}

/// The command that starts a battle (PROTOCOLS, the type table: kind 10).
pub fn start_battle(link: &mut Link, scratch: &mut Vec<u8>, relay: StreamHandle, events: u64, interval_ms: u64) {
    let body = format!(r#"{{"events":{events},"interval_ms":{interval_ms}}}"#);
    link.put_binary(scratch, |out| client::command(out, BATTLE_KIND, relay, BATTLE_CORRELATION, body.as_bytes()));
}

/// D kind of `battle.command.start`.
const BATTLE_KIND: u16 = 10;
/// No publisher gets to a number this high.
pub const BATTLE_CORRELATION: u64 = u64::MAX;

fn interval(rate: f64) -> f64 {
    if rate > 0.0 { 1e9 / rate } else { f64::INFINITY }
}
