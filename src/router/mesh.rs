//! The mesh: a [`Port`] per node, two lanes (deliver, request) with a ring per direction of each pair.
//!
//! The law (DELIVERY §5): taking a deliver message never makes another message, so deliver is always drained; requests
//! are handed out only while every deliver outbox has room. A full ring never drops and never reorders: what does not
//! fit waits in the outbox behind it, and the owner pauses its sources while an outbox is at its bound.
//!
//! A turn of the owner: [`Port::flush_outboxes`], take messages and act, send, [`Port::wake_list`] and wake whom it
//! names. To sleep: [`Port::announce_sleep`], do not block if [`Port::has_input`], [`Port::awake`].
//!
//! A port never blocks, wakes nobody by itself, and knows no clock. Messages to a node whose port was dropped are
//! discarded, since nobody can take them.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::doorbell::Doorbell;
use super::mailbox::{Receiver, Sender, mailbox};
use crate::id::NodeId;
use crate::limits;
use crate::message::{Deliver, Request};

/// Sizes of a mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Messages a ring holds, ≥ 1.
    pub slots: usize,
    /// Messages an outbox holds before its sender must pause its sources, ≥ 1. What a turn had begun may exceed it.
    pub outbox: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { slots: limits::RING_SLOTS, outbox: limits::OUTBOX_MESSAGES }
    }
}

/// The ports of a mesh of `nodes` nodes; the port at index `i` is that of `NodeId(i)`.
///
/// # Panics
/// If `nodes` is more than [`NODES_MAX`], or a bound is 0.
#[must_use]
pub fn build<D, R>(nodes: usize, bounds: Bounds) -> Vec<Port<D, R>> {
    assert!(nodes <= NODES_MAX, "a mesh has at most {NODES_MAX} nodes, not {nodes}");
    assert!(bounds.outbox > 0, "an outbox needs room for one message");
    let doorbells: Arc<[_]> = (0..nodes).map(|_| CachePadded::new(Doorbell::new())).collect();
    let delivers = lanes(nodes, bounds);
    let requests = lanes(nodes, bounds);
    let port = |(id, (deliver, request))| Port {
        id: NodeId(u16::try_from(id).expect("NODES_MAX fits u16")),
        doorbells: Arc::clone(&doorbells),
        deliver,
        request,
        sent_to: NodeSet::default(),
    };
    delivers.into_iter().zip(requests).enumerate().map(port).collect()
}

/// One node's end of the mesh.
#[derive(Debug)]
pub struct Port<D = Deliver, R = Request> {
    id: NodeId,
    doorbells: Arc<[CachePadded<Doorbell>]>,
    deliver: Lane<D>,
    request: Lane<R>,
    /// Nodes that got something since their doorbell was last looked at.
    sent_to: NodeSet,
}

impl<D, R> Port<D, R> {
    /// The node this port belongs to.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// How many nodes the mesh has.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.doorbells.len()
    }

    /// Sends an answer or frames to members. Always accepted; look at [`Port::deliver_clear`] before the next input.
    #[inline]
    pub fn deliver(&mut self, to: NodeId, message: D) {
        if self.deliver.send(to, message) {
            self.sent_to.insert(to);
        }
    }

    /// Sends a request. Always accepted; look at [`Port::can_request`] first, and pause the source if it says no.
    #[inline]
    pub fn request(&mut self, to: NodeId, message: R) {
        if self.request.send(to, message) {
            self.sent_to.insert(to);
        }
    }

    /// Whether every deliver outbox is below its bound. While not, [`Port::take_request`] gives nothing, and the owner
    /// takes no input that may make deliver messages.
    #[must_use]
    pub fn deliver_clear(&self) -> bool {
        self.deliver.at_bound == 0
    }

    /// Whether the request outbox to that node is below its bound. While not, the sender pauses the source.
    #[must_use]
    pub fn can_request(&self, to: NodeId) -> bool {
        self.request.has_room(to)
    }

    /// Moves what waits in outboxes into rings that have room again; says how many messages still wait.
    pub fn flush_outboxes(&mut self) -> usize {
        let Self { deliver, request, sent_to, .. } = self;
        deliver.flush(sent_to) + request.flush(sent_to)
    }

    /// The next deliver message and its sender, fairly among senders; `None` when none waits.
    #[inline]
    pub fn take_deliver(&mut self) -> Option<(NodeId, D)> {
        self.deliver.take()
    }

    /// The next request and its sender, fairly among senders; `None` when none waits, or while a deliver outbox is at
    /// its bound.
    #[inline]
    pub fn take_request(&mut self) -> Option<(NodeId, R)> {
        if self.deliver_clear() { self.request.take() } else { None }
    }

    /// Whether a turn would find something to do: a message it may take, or room for what waits in an outbox.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.deliver.has_input()
            || (self.deliver_clear() && self.request.has_input())
            || self.deliver.can_flush()
            || self.request.can_flush()
    }

    /// Says that the owner is about to block; [`Port::has_input`] must be asked afterwards, and [`Port::awake`] called.
    ///
    /// # Panics
    /// In debug builds, if [`Port::wake_list`] was not emptied since the last send or take: somebody might sleep on.
    pub fn announce_sleep(&self) {
        debug_assert!(
            self.sent_to.is_empty() && self.deliver.taken_from.is_empty() && self.request.taken_from.is_empty(),
            "wake_list comes before announce_sleep"
        );
        self.doorbells[self.id.index()].announce_sleep();
    }

    /// Says that the owner does not block any more.
    pub fn awake(&self) {
        self.doorbells[self.id.index()].awake();
    }

    /// Whom the owner must wake: nodes that sleep and either got something since the last call or wait for room in a
    /// ring that has been drained since. Each at most once, ascending. Nodes left in an iterator that is dropped early
    /// come with the next call.
    pub fn wake_list(&mut self) -> impl Iterator<Item = NodeId> {
        let Self { doorbells, deliver, request, sent_to, .. } = self;
        deliver.collect_starved(sent_to);
        request.collect_starved(sent_to);
        std::iter::from_fn(move || {
            while let Some(node) = sent_to.pop_first() {
                if doorbells[node.index()].ring_needed() {
                    return Some(node);
                }
            }
            None
        })
    }

    /// Messages of the lanes (deliver, request) that wait for this node or in its outboxes.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        (self.deliver.depth(), self.request.depth())
    }
}

/// All of one kind of message that a node sends and receives.
#[derive(Debug)]
struct Lane<T> {
    /// By node; the node's own has no ring, and its outbox is what it sent to itself.
    links: Vec<Link<T>>,
    /// Nodes whose outbox behind a ring is not empty.
    backed_up: NodeSet,
    /// How many outboxes are at their bound.
    at_bound: usize,
    /// Nodes whose ring was taken from since the last look at their `starved`.
    taken_from: NodeSet,
    /// Whose turn it is, and how many messages it may still give.
    cursor: usize,
    quantum: usize,
}

#[derive(Debug)]
struct Link<T> {
    rings: Option<(Sender<T>, Receiver<T>)>,
    outbox: VecDeque<T>,
    /// Outbox length from which on the sender must pause.
    bound: usize,
}

impl<T> Lane<T> {
    /// Whether another node got something.
    #[inline]
    fn send(&mut self, to: NodeId, message: T) -> bool {
        let link = &mut self.links[to.index()];
        let rejected = match &mut link.rings {
            Some((ring, _)) if link.outbox.is_empty() => match ring.push(message) {
                Ok(()) => return true,
                Err(message) => {
                    self.backed_up.insert(to);
                    message
                }
            },
            _ => message,
        };
        link.outbox.push_back(rejected);
        self.at_bound += usize::from(link.outbox.len() == link.bound);
        false
    }

    fn flush(&mut self, sent_to: &mut NodeSet) -> usize {
        let mut waiting = 0;
        for node in self.backed_up.iter() {
            let link = &mut self.links[node.index()];
            let was_at_bound = link.outbox.len() >= link.bound;
            if link.flush() {
                sent_to.insert(node);
            }
            self.at_bound -= usize::from(was_at_bound && link.outbox.len() < link.bound);
            if link.outbox.is_empty() {
                self.backed_up.remove(node);
            }
            waiting += link.outbox.len();
        }
        waiting
    }

    #[inline]
    fn take(&mut self) -> Option<(NodeId, T)> {
        // One more than there are nodes: the current one may have used up its turn only.
        for _ in 0..=self.links.len() {
            if self.quantum > 0
                && let Some(message) = self.take_from(self.cursor)
            {
                self.quantum -= 1;
                return Some((NodeId(self.cursor as u16), message));
            }
            self.cursor = if self.cursor + 1 < self.links.len() { self.cursor + 1 } else { 0 };
            self.quantum = QUANTUM;
        }
        None
    }

    #[inline]
    fn take_from(&mut self, index: usize) -> Option<T> {
        let link = &mut self.links[index];
        if let Some((_, ring)) = &mut link.rings {
            let message = ring.pop()?;
            self.taken_from.insert(NodeId(index as u16));
            return Some(message);
        }
        let message = link.outbox.pop_front()?;
        self.at_bound -= usize::from(link.outbox.len() + 1 == link.bound);
        Some(message)
    }

    fn has_room(&self, to: NodeId) -> bool {
        let link = &self.links[to.index()];
        link.outbox.len() < link.bound
    }

    fn has_input(&self) -> bool {
        self.links.iter().any(|link| match &link.rings {
            Some((_, ring)) => !ring.is_empty(),
            None => !link.outbox.is_empty(),
        })
    }

    fn can_flush(&self) -> bool {
        let ring_has_room = |node: NodeId| self.links[node.index()].rings.as_ref().is_some_and(|(tx, _)| tx.has_room());
        self.backed_up.iter().any(ring_has_room)
    }

    fn collect_starved(&mut self, wake: &mut NodeSet) {
        while let Some(node) = self.taken_from.pop_first() {
            if let Some((_, ring)) = &self.links[node.index()].rings
                && ring.producer_starves()
            {
                wake.insert(node);
            }
        }
    }

    fn depth(&self) -> usize {
        let incoming = |link: &Link<T>| link.rings.as_ref().map_or(0, |(_, ring)| ring.len());
        self.links.iter().map(|link| link.outbox.len() + incoming(link)).sum()
    }
}

impl<T> Link<T> {
    /// Whether the ring took something.
    fn flush(&mut self) -> bool {
        let Some((ring, _)) = &mut self.rings else { return false };
        if ring.is_abandoned() {
            self.outbox.clear();
        }
        let before = self.outbox.len();
        while let Some(message) = self.outbox.pop_front() {
            if let Err(message) = ring.push(message) {
                self.outbox.push_front(message);
                break;
            }
        }
        self.outbox.len() < before
    }
}

/// Every node's lane of one kind of message.
fn lanes<T>(nodes: usize, bounds: Bounds) -> Vec<Lane<T>> {
    let mut links: Vec<Vec<Link<T>>> = (0..nodes).map(|_| Vec::with_capacity(nodes)).collect();
    for a in 0..nodes {
        // A node's queue to itself stands for ring and outbox.
        links[a].push(Link { rings: None, outbox: VecDeque::new(), bound: bounds.slots + bounds.outbox });
        for b in a + 1..nodes {
            let (to_b, at_b) = mailbox(bounds.slots);
            let (to_a, at_a) = mailbox(bounds.slots);
            links[a].push(Link { rings: Some((to_b, at_a)), outbox: VecDeque::new(), bound: bounds.outbox });
            links[b].push(Link { rings: Some((to_a, at_b)), outbox: VecDeque::new(), bound: bounds.outbox });
        }
    }
    let lane = |links| Lane {
        links,
        backed_up: NodeSet::default(),
        at_bound: 0,
        taken_from: NodeSet::default(),
        cursor: 0,
        quantum: QUANTUM,
    };
    links.into_iter().map(lane).collect()
}

/// A set of nodes, a bit each.
#[derive(Clone, Copy, Default, Debug)]
struct NodeSet(u128);

impl NodeSet {
    fn insert(&mut self, node: NodeId) {
        self.0 |= 1 << node.0;
    }

    fn remove(&mut self, node: NodeId) {
        self.0 &= !(1 << node.0);
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn pop_first(&mut self) -> Option<NodeId> {
        let first = self.iter().next()?;
        self.remove(first);
        Some(first)
    }

    /// Ascending.
    fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let node = (rest != 0).then(|| NodeId(rest.trailing_zeros() as u16))?;
            rest &= rest - 1;
            Some(node)
        })
    }
}

/// Nodes of a mesh: a bit each in a 128-bit set, enough for every shard and its peers.
pub const NODES_MAX: usize = 128;
/// Messages one sender may give before the next one's turn: a few cache lines' worth, so that a busy ring is read in
/// runs, and few enough that the others hardly wait.
const QUANTUM: usize = 16;

const _: () = assert!(limits::SHARDS_MAX + 3 <= NODES_MAX);

#[cfg(all(test, not(ringgate_loom)))]
mod tests;
