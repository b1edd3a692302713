//! Ports by themselves, and whole meshes under their law.

use std::thread;

use proptest::prelude::*;

use super::*;
use crate::router::{ThreadWaker, Wake};

const TIGHT: Bounds = Bounds { slots: 1, outbox: 1 };

/// Whatever the order of sends, flushes and takes, every message of both lanes arrives once, in its sender's order.
#[test]
fn nothing_is_lost_or_reordered() {
    proptest!(|(nodes in 1usize..4, slots in 1usize..4, outbox in 1usize..3, steps in prop::collection::vec((0u8..5, 0usize..4, 0u16..4), 1..200))| {
        let mut ports: Vec<Port<u32, u32>> = build(nodes, Bounds { slots, outbox });
        let mut streams = Streams::new(nodes);
        for (action, node, to) in steps {
            let (node, to) = (node % nodes, to % nodes as u16);
            let port = &mut ports[node];
            match action {
                0 => port.deliver(NodeId(to), streams.next_sent(0, node, to)),
                1 => port.request(NodeId(to), streams.next_sent(1, node, to)),
                2 => drop(port.flush_outboxes()),
                3 => streams.took(0, node, port.take_deliver()),
                _ => streams.took(1, node, port.take_request()),
            }
            prop_assert_eq!(depth_of(&ports), streams.in_flight());
        }
        for _ in 0..400 {
            for (node, port) in ports.iter_mut().enumerate() {
                port.flush_outboxes();
                streams.took(0, node, port.take_deliver());
                streams.took(1, node, port.take_request());
            }
        }
        prop_assert_eq!(streams.in_flight(), 0);
        prop_assert!(ports.iter().all(|port| port.deliver_clear() && !port.has_input()));
    });
}

/// Numbers of what was sent and taken, per lane, sender and receiver.
struct Streams {
    nodes: usize,
    sent: Vec<u32>,
    taken: Vec<u32>,
}

impl Streams {
    fn new(nodes: usize) -> Self {
        Self { nodes, sent: vec![0; 2 * nodes * nodes], taken: vec![0; 2 * nodes * nodes] }
    }

    fn index(&self, lane: usize, from: usize, to: usize) -> usize {
        (lane * self.nodes + from) * self.nodes + to
    }

    fn next_sent(&mut self, lane: usize, from: usize, to: u16) -> u32 {
        let index = self.index(lane, from, usize::from(to));
        self.sent[index] += 1;
        self.sent[index]
    }

    fn took(&mut self, lane: usize, to: usize, message: Option<(NodeId, u32)>) {
        let Some((from, number)) = message else { return };
        let index = self.index(lane, from.index(), to);
        self.taken[index] += 1;
        assert_eq!(number, self.taken[index], "lane {lane}, {from:?} to {to}");
    }

    fn in_flight(&self) -> usize {
        (self.sent.iter().sum::<u32>() - self.taken.iter().sum::<u32>()) as usize
    }
}

fn depth_of(ports: &[Port<u32, u32>]) -> usize {
    ports.iter().map(Port::depth).map(|(deliver, request)| deliver + request).sum()
}

/// Rings and outboxes of 1, every request answered to all nodes, and nodes that run only when they have input or were
/// woken: everything is answered, so no cycle of full rings stops the mesh and no wake-up is missing.
#[test]
fn a_tight_mesh_never_stops() {
    const NODES: usize = 5;
    const REQUESTS: usize = 40;
    let mut ports: Vec<Port<usize, usize>> = build(NODES, TIGHT);
    let mut nodes = [Node { unsent: NODES * REQUESTS, served: 0, answers: 0 }; NODES];
    let mut runnable: VecDeque<usize> = (0..NODES).collect();
    while let Some(index) = runnable.pop_front() {
        let port = &mut ports[index];
        port.awake();
        nodes[index].turn(port);
        assert!(port.depth().0 <= 2 * NODES + 2, "the outboxes outgrew their bounds");
        let woken: Vec<NodeId> = port.wake_list().collect();
        port.announce_sleep();
        let source_ready = nodes[index].may_ask(port);
        if port.has_input() || source_ready {
            port.awake();
            runnable.push_back(index);
        }
        runnable.extend(woken.into_iter().map(NodeId::index));
    }
    for node in nodes {
        assert_eq!((node.unsent, node.served, node.answers), (0, NODES * REQUESTS, NODES * NODES * REQUESTS));
    }
}

#[derive(Clone, Copy)]
struct Node {
    unsent: usize,
    served: usize,
    answers: usize,
}

impl Node {
    fn may_ask(&self, port: &Port<usize, usize>) -> bool {
        self.unsent > 0 && port.deliver_clear() && port.can_request(NodeId((self.unsent % port.nodes()) as u16))
    }

    fn turn(&mut self, port: &mut Port<usize, usize>) {
        port.flush_outboxes();
        while port.take_deliver().is_some() {
            self.answers += 1;
        }
        while port.take_request().is_some() {
            self.served += 1;
            for node in 0..port.nodes() {
                port.deliver(NodeId(node as u16), self.served);
            }
        }
        while self.may_ask(port) {
            let to = NodeId((self.unsent % port.nodes()) as u16);
            port.request(to, self.unsent);
            self.unsent -= 1;
        }
    }
}

/// While a deliver outbox is at its bound, requests are withheld, do not count as input, and come once there is room.
#[test]
fn requests_wait_for_deliver_outboxes() {
    let [mut a, mut b] = pair(TIGHT);
    b.request(a.id(), 9);
    a.deliver(b.id(), 1);
    assert!(a.deliver_clear());
    a.deliver(b.id(), 2);
    assert!(!a.deliver_clear());
    assert_eq!(a.take_request(), None);
    assert!(!a.has_input());
    assert_eq!(b.take_deliver(), Some((NodeId(0), 1)));
    assert!(a.has_input(), "the outbox can move on");
    assert_eq!(a.flush_outboxes(), 0);
    assert_eq!(a.take_request(), Some((NodeId(1), 9)));
}

/// A request outbox at its bound is told for that node alone.
#[test]
fn a_full_request_outbox_is_told_per_node() {
    let mut ports: Vec<Port<u32, u32>> = build(3, Bounds { slots: 1, outbox: 2 });
    for message in 0..2 {
        ports[0].request(NodeId(1), message);
    }
    assert!(ports[0].can_request(NodeId(1)));
    ports[0].request(NodeId(1), 2);
    assert!(!ports[0].can_request(NodeId(1)));
    assert!(ports[0].can_request(NodeId(2)));
    assert!(ports[0].deliver_clear());
    assert_eq!(ports[0].flush_outboxes(), 2);
}

/// Messages to oneself are bounded and taken like others'.
#[test]
fn messages_to_oneself_are_bounded() {
    let mut port: Port<u32, u32> = build(1, TIGHT).remove(0);
    let me = port.id();
    for message in 0..2 {
        assert!(port.deliver_clear());
        port.deliver(me, message);
    }
    assert!(!port.deliver_clear());
    port.request(me, 7);
    assert_eq!(port.take_request(), None);
    assert!(port.has_input());
    assert_eq!(port.take_deliver(), Some((me, 0)));
    assert!(port.deliver_clear());
    assert_eq!(port.take_request(), Some((me, 7)));
    assert_eq!(port.wake_list().next(), None);
}

/// Only sleeping nodes are named, once per sleep, whatever they were sent.
#[test]
fn sleepers_are_named_once() {
    let mut ports: Vec<Port<u32, u32>> = build(4, TIGHT);
    ports[2].announce_sleep();
    ports[3].announce_sleep();
    for node in [3, 1, 3] {
        ports[0].deliver(NodeId(node), 0);
        ports[0].request(NodeId(node), 0);
    }
    assert_eq!(ports[0].wake_list().collect::<Vec<_>>(), [NodeId(3)]);
    ports[0].request(NodeId(2), 0);
    assert_eq!(ports[0].wake_list().collect::<Vec<_>>(), [NodeId(2)]);
    ports[1].deliver(NodeId(3), 0);
    assert_eq!(ports[1].wake_list().next(), None, "somebody rang already");
}

/// A node that sleeps with a full outbox is named by the one who made room for it.
#[test]
fn a_starved_sender_is_named() {
    let [mut a, mut b] = pair(TIGHT);
    a.request(b.id(), 1);
    a.request(b.id(), 2);
    assert_eq!(a.flush_outboxes(), 1);
    assert_eq!(a.wake_list().next(), None);
    a.announce_sleep();
    assert!(!a.has_input());
    assert_eq!(b.wake_list().next(), None);
    assert_eq!(b.take_request(), Some((NodeId(0), 1)));
    assert_eq!(b.wake_list().collect::<Vec<_>>(), [NodeId(0)]);
    assert!(a.has_input());
}

/// Nodes left over in a dropped wake list come with the next one.
#[test]
fn a_dropped_wake_list_forgets_nobody() {
    let mut ports: Vec<Port<u32, u32>> = build(3, TIGHT);
    for node in [1, 2] {
        ports[node].announce_sleep();
        ports[0].deliver(NodeId(node as u16), 0);
    }
    assert_eq!(ports[0].wake_list().next(), Some(NodeId(1)));
    assert_eq!(ports[0].wake_list().collect::<Vec<_>>(), [NodeId(2)]);
}

/// Sleeping before the wake list was emptied is a bug that debug builds catch.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "wake_list comes before")]
fn sleep_before_wake_list_is_caught() {
    let [mut a, b] = pair(TIGHT);
    a.deliver(b.id(), 0);
    a.announce_sleep();
}

/// A sender whose ring never empties does not keep the others waiting longer than one quantum each.
#[test]
fn takes_are_fair() {
    let mut ports: Vec<Port<u32, u32>> = build(3, Bounds { slots: 1024, outbox: 1 });
    for message in 0..1000 {
        ports[1].deliver(NodeId(0), message);
    }
    ports[2].deliver(NodeId(0), 0);
    let senders: Vec<NodeId> = std::iter::from_fn(|| ports[0].take_deliver()).map(|(from, _)| from).collect();
    assert_eq!(senders.len(), 1001);
    assert!(senders.iter().position(|from| *from == NodeId(2)).unwrap() <= QUANTUM);
}

/// Messages for a node that is gone are discarded, so that the others can go on.
#[test]
fn a_gone_node_stops_nobody() {
    let [mut a, b] = pair(TIGHT);
    let gone = b.id();
    for message in 0..5 {
        a.deliver(gone, message);
        a.request(gone, message);
    }
    assert!(!a.deliver_clear());
    drop(b);
    assert_eq!(a.flush_outboxes(), 0);
    assert!(a.deliver_clear() && a.can_request(gone));
}

/// Threads that park whenever their port allows it exchange everything in order over rings of 2.
#[test]
fn parked_threads_are_woken() {
    const MESSAGES: u32 = 20_000;
    let [a, b] = pair(Bounds { slots: 2, outbox: 2 });
    let here = ThreadWaker::new(thread::current());
    let there = thread::spawn(move || exchange(b, &here, MESSAGES));
    exchange(a, &ThreadWaker::new(there.thread().clone()), MESSAGES);
    there.join().unwrap();
}

/// Sends as many requests as it may, takes as many as the other sends, and parks in between.
fn exchange(mut port: Port<u32, u32>, other: &impl Wake, messages: u32) {
    let to = NodeId(1 - port.id().0);
    let (mut sent, mut taken) = (0, 0);
    loop {
        while sent < messages && port.can_request(to) {
            port.request(to, sent);
            sent += 1;
        }
        let waiting = port.flush_outboxes();
        while let Some((_, message)) = port.take_request() {
            assert_eq!(message, taken);
            taken += 1;
        }
        port.wake_list().for_each(|_| other.wake());
        if waiting == 0 && sent == messages && taken == messages {
            return;
        }
        port.announce_sleep();
        // A flush may have made room for what is still to be sent: that is work too.
        let may_send = sent < messages && port.can_request(to);
        if !may_send && !port.has_input() {
            thread::park();
        }
        port.awake();
    }
}

/// A mesh of the most shards and their peers works up to its last node.
#[test]
fn sixty_six_nodes_reach_each_other() {
    let mut ports: Vec<Port<u32, u32>> = build(66, Bounds { slots: 2, outbox: 1 });
    ports[65].deliver(NodeId(64), 5);
    ports[64].announce_sleep();
    assert_eq!(ports[65].wake_list().collect::<Vec<_>>(), [NodeId(64)]);
    assert_eq!(ports[64].take_deliver(), Some((NodeId(65), 5)));
}

fn pair(bounds: Bounds) -> [Port<u32, u32>; 2] {
    build(2, bounds).try_into().expect("two ports")
}
