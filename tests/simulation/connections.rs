//! Single connections in virtual time: the end of a token, the rates of a client, a flood behind a pause.

use std::time::Duration;

use ringgate::delivery;
use ringgate::router::Bounds;
use ringgate::shard::driver::Driver;
use ringgate::shard::driver::simulated::Weather;

use crate::client::{Seat, State, Temper};
use crate::world::{Plan, World};

/// One publisher (client 0) and one player (client 1) in one room, nothing in their way.
fn plan() -> Plan {
    Plan {
        shards: 2,
        rooms: 1,
        publishers: 1,
        players: 1,
        steps: 0,
        weather: Weather { short_send_in: 0, send_buffer: 4 << 20, ..Weather::default() },
        bounds: Bounds::default(),
        queue: delivery::Limits::default(),
        trouble_in: 0,
        tempers: vec![Temper::Fast],
        event_bytes: 100,
        keys: 1,
        all_keys: false,
        batch_frames: 128,
        burst: 0,
        moves_in: 0,
        service_rooms: 0,
        texts_in: 0,
        events_in: 0,
        history_events: crate::world::ENOUGH_HISTORY,
        token_life_s: None,
    }
}

/// Lets time pass while everybody reads.
fn pass(world: &mut World, span: Duration) {
    let until = world.network.now() + span;
    while world.network.now() < until {
        let step = until.since(world.network.now()).min(Duration::from_millis(50));
        world.spin(step).unwrap();
        for client in &mut world.clients {
            client.read(&world.network, &mut world.oracle, false).unwrap();
        }
    }
}

/// Connects these clients and waits until they are in their room.
fn open(world: &mut World, clients: &[usize]) {
    for &index in clients {
        world.connect(index);
        // The rooms service takes its time.
        let mut rounds = 0..20;
        while rounds.next().is_some() && world.clients[index].state != State::Open {
            pass(world, Duration::from_millis(100));
        }
        assert_eq!(world.clients[index].state, State::Open, "client {index}: {:?}", world.clients[index].refusals);
    }
}

/// A session is closed 4401 at `exp` + 30 s and not before; from `exp` on it resumes with a new token only.
#[test]
fn a_session_ends_with_its_token() {
    const LIFE: u64 = 20;
    let mut world = World::new(1, Plan { token_life_s: Some(LIFE), ..plan() });
    let end = world.network.driver(ringgate::id::NodeId(0)).wall().0 + LIFE * 1000;
    let left =
        |world: &World, to: u64| Duration::from_millis(to - world.network.driver(ringgate::id::NodeId(0)).wall().0);
    world.clients[1].token = Some(world.token(1));
    open(&mut world, &[0, 1]);
    let expired = world.clients[1].token.take();

    // Before `exp` a resume needs no token.
    world.clients[1].drop_socket();
    open(&mut world, &[1]);
    assert_eq!(world.clients[1].recovered, 1);

    let span = left(&world, end + 29_900);
    pass(&mut world, span);
    assert_eq!((world.clients[1].state, world.clients[1].last_close), (State::Open, None));
    pass(&mut world, Duration::from_millis(200));
    assert_eq!((world.clients[1].state, world.clients[1].last_close), (State::Idle, Some(4401)));

    // Neither without a token nor with the expired one.
    for (attempt, token) in [None, expired].into_iter().enumerate() {
        world.clients[1].token = token;
        match attempt {
            0 => world.connect(1),
            _ => world.clients[1].hello(&world.network.clone()),
        }
        pass(&mut world, Duration::from_millis(100));
        assert_eq!((world.clients[1].refusals.len(), world.clients[1].recovered), (attempt + 1, 1));
        assert!(world.clients[1].refusals[attempt].contains("expired"), "{:?}", world.clients[1].refusals);
        assert_eq!(world.clients[1].state, State::Greeting);
    }
    // A new one brings the session back, on the same connection.
    world.clients[1].token = Some(world.token(1));
    world.clients[1].hello(&world.network.clone());
    pass(&mut world, Duration::from_millis(100));
    assert_eq!((world.clients[1].state, world.clients[1].recovered), (State::Open, 2));
}

/// Within the grace behind `exp` the connection goes on, and a resume without a new token is refused already.
#[test]
fn the_grace_is_for_open_connections() {
    let mut world = World::new(2, Plan { token_life_s: Some(5), ..plan() });
    open(&mut world, &[0, 1]);
    pass(&mut world, Duration::from_secs(6));
    assert_eq!(world.clients[1].state, State::Open);
    world.clients[1].token = None;
    world.clients[1].drop_socket();
    world.connect(1);
    pass(&mut world, Duration::from_secs(2));
    assert_eq!(world.clients[1].state, State::Greeting);
    assert!(world.clients[1].refusals[0].contains("expired"), "{:?}", world.clients[1].refusals);
}

/// JOIN and LEAVE are allowed 20 times a second together, commands to publishers 200 times; what is beyond is answered
/// `rate_limited`, once, and the connection goes on.
#[test]
fn a_client_has_rates() {
    let mut world = World::new(3, plan());
    open(&mut world, &[0, 1]);
    pass(&mut world, Duration::from_secs(2));
    let (network, room) = (world.network.clone(), world.clients[1].room.clone());
    // Each JOIN of a room that it is in is refused, and counts.
    for _ in 0..30 {
        world.clients[1].join(&network, &mut world.oracle, &room);
    }
    for _ in 0..500 {
        world.clients[1].command_publishers(&network, &mut world.oracle, &room);
    }
    world.spin(Duration::from_millis(1)).unwrap();
    pass(&mut world, Duration::from_millis(20));
    let client = &world.clients[1];
    assert_eq!((client.limited, client.asked.len()), (10 + 300, 0));
    assert!(client.closes.is_empty());
    // A second later everything may be done again.
    pass(&mut world, Duration::from_secs(1));
    world.clients[1].leave(&network, &room);
    world.clients[1].join(&network, &mut world.oracle, &room);
    pass(&mut world, Duration::from_millis(20));
    assert_eq!((world.clients[1].limited, world.clients[1].rooms[&room]), (310, Seat::In));
    world.clients[1].command_publishers(&network, &mut world.oracle, &room);
    pass(&mut world, Duration::from_millis(20));
    assert_eq!((world.clients[1].limited, world.clients[1].asked.len()), (310, 0));
    world.complete().unwrap();
}

/// Every JOIN of a room that nobody has made is answered once, by its home, the rate of its command or the rooms
/// service, however the service's answer and the bus's race; then the session may ask for as many rooms as before.
#[test]
fn a_join_that_comes_to_nothing_is_answered_once() {
    for seed in 1..=20 {
        let weather = Weather { doorbell: Duration::from_millis(seed), ..plan().weather };
        let mut world = World::new(seed, Plan { weather, shards: 3, ..plan() });
        open(&mut world, &[0, 1]);
        let network = world.network.clone();
        for round in 0..3 {
            pass(&mut world, Duration::from_secs(5));
            for number in 0..20 {
                world.clients[1].join(&network, &mut world.oracle, &format!("nowhere-{round}-{number}"));
            }
            pass(&mut world, Duration::from_secs(5));
            assert!(world.clients[1].asked.is_empty(), "seed {seed}: {:?}", world.clients[1].asked);
        }
        pass(&mut world, Duration::from_secs(1));
        assert_eq!((&world.clients[1].closes, &world.clients[1].refusals), (&Vec::new(), &Vec::new()));
    }
}

/// A megabyte that arrives at once behind a pause closes nobody and keeps its order, wherever the room's home is.
#[test]
fn a_flood_in_one_turn_closes_nobody() {
    let weather = Weather { receive_piece: 2 << 20, ..plan().weather };
    let mut stashed = 0;
    for seed in 1..=8 {
        let mut world = World::new(seed, Plan { weather, bounds: Bounds { slots: 1, outbox: 1 }, ..plan() });
        open(&mut world, &[0, 1]);
        let network = world.network.clone();
        for _ in 0..1000 {
            world.clients[0].publish_event(&network, &mut world.oracle, 1000);
        }
        world.spin(Duration::from_micros(1)).unwrap();
        let reserved = |world: &World| world.shards.iter().map(|shard| shard.stash_reserved()).max();
        stashed = stashed.max(reserved(&world).unwrap());
        pass(&mut world, Duration::from_secs(2));
        world.shards.iter().for_each(|shard| shard.check());
        assert_eq!((&world.clients[0].closes, world.clients[0].asked.len()), (&Vec::new(), 0), "seed {seed}");
        assert!(world.clients[1].delivered >= 1000);
        world.complete().unwrap();
        assert_eq!(reserved(&world), Some(0));
    }
    assert!(stashed > 64 << 10, "no flood went beyond a stash's own bound: {stashed}");
}

/// A backend's event that lets a session in, or takes it out, acts once: replayed, it changes nothing, in both dialects.
#[test]
fn an_effect_acts_once() {
    for text in [false, true] {
        let mut world = World::new(4, Plan { service_rooms: 1, texts_in: u32::from(text), ..plan() });
        world.clients[1].text = text;
        open(&mut world, &[0]);
        let room = world.clients[0].room.clone();
        world.backend.open(&room);
        open(&mut world, &[1]);
        let network = world.network.clone();
        world.clients[1].join(&network, &mut world.oracle, "svc-0");
        pass(&mut world, Duration::from_secs(2));
        if world.clients[1].rooms["svc-0"] == Seat::In {
            world.clients[1].leave_by_service(&network, "svc-0");
            pass(&mut world, Duration::from_secs(2));
        }
        assert_eq!((world.clients[1].rooms["svc-0"], world.clients[1].asked.len()), (Seat::Out, 0));

        world.clients[1].drop_socket();
        let own = world.clients[1].positions.iter_mut().find(|(name, _)| name.contains("/session:"));
        own.expect("it was told something").1.1 = 0;
        let delivered = world.clients[1].delivered;
        open(&mut world, &[1]);
        pass(&mut world, Duration::from_secs(1));
        let client = &world.clients[1];
        assert!(client.delivered >= delivered + 2, "nothing was replayed");
        assert_eq!((client.rooms["svc-0"], client.recovered), (Seat::Out, 1));
        client.settled(&world.oracle).unwrap();
    }
}

/// While presence does nothing, LEAVEs and HELLOs wait for room as everything else does, and what waits for presence
/// stays within the outbox; then they go on, and none is lost.
#[test]
fn a_stuck_presence_holds_who_asks_it() {
    const OUTBOX: usize = 4;
    const PLAYERS: usize = 40;
    let bounds = Bounds { slots: 4, outbox: OUTBOX };
    let mut world = World::new(7, Plan { shards: 1, players: PLAYERS, bounds, ..plan() });
    let all: Vec<usize> = (0..=PLAYERS).collect();
    open(&mut world, &all);
    let (network, room) = (world.network.clone(), world.clients[1].room.clone());
    let (leaving, returning) = all[1..].split_at(PLAYERS / 2);
    for &index in returning {
        world.clients[index].token = None;
        world.clients[index].drop_socket();
    }
    pass(&mut world, Duration::from_millis(500));

    for half in [leaving, returning] {
        world.presence_stuck = true;
        for &index in half {
            match world.clients[index].state {
                State::Open => world.clients[index].leave(&network, &room),
                _ => world.connect(index),
            }
        }
        pass(&mut world, Duration::from_millis(500));
        let waiting = world.shards[0].waiting().1;
        assert!(waiting <= OUTBOX + 1, "{waiting} requests wait");
        world.presence_stuck = false;
        pass(&mut world, Duration::from_millis(500));
    }
    for &index in &all {
        let client = &world.clients[index];
        let expected = if leaving.contains(&index) { Seat::Out } else { Seat::In };
        assert_eq!((client.state, client.rooms[&room]), (State::Open, expected), "client {index}");
    }
    assert!(world.clients.iter().all(|client| client.refusals.is_empty()));
}
