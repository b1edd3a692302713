//! The suite of every presence, on Redis.

use crate::cluster::{Cluster, Gateway};
use crate::message::{PresenceChange, PresenceReply, PresenceRequest};
use crate::suite::{self, Subject, presence_suite};
use crate::time::Monotonic;

/// A gateway alone on a Redis.
struct Alone {
    cluster: Cluster,
    gateway: Gateway,
}

impl Alone {
    /// Up to this time, and nothing that is due then.
    fn pass_to(&mut self, now: Monotonic) {
        let left = now.since(self.cluster.now());
        let last = left.min(std::time::Duration::from_millis(1));
        self.cluster.pass(left - last, &mut [&mut self.gateway]);
        self.cluster.skip(last);
    }

    fn take(&mut self) -> Vec<PresenceReply> {
        self.gateway.settle(self.cluster.now());
        std::mem::take(&mut self.gateway.replies)
    }
}

impl Subject for Alone {
    // Each is some seconds of a real server's time.
    const CASES: u32 = 12;

    fn new(detached_max: usize) -> Self {
        let mut cluster = Cluster::start();
        let mut gateway = cluster.unready_gateway("alone", detached_max);
        gateway.settle(cluster.now());
        Self { cluster, gateway }
    }

    fn handle(&mut self, now: Monotonic, request: PresenceRequest) -> Vec<PresenceReply> {
        self.pass_to(now);
        self.gateway.say(now, request);
        self.take()
    }

    fn poll(&mut self, now: Monotonic) -> (Vec<PresenceReply>, Monotonic) {
        self.pass_to(now);
        let replies = self.take();
        (replies, self.gateway.presence.sessions_next())
    }

    fn changes(&mut self) -> Vec<PresenceChange> {
        std::mem::take(&mut self.gateway.changes)
    }

    fn sizes(&self) -> (usize, usize) {
        (self.gateway.presence.sessions(), self.gateway.presence.detached())
    }
}

presence_suite!(Alone);
