//! The reference services, run by workers, for players on different gateways.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use ringgate::limits::{GATEWAY_LEASE, GATEWAY_RENEWAL};

use crate::cluster::Cluster;
use crate::hub;
use crate::json::Json;
use crate::node::{Gateway, until, until_within};
use crate::worker::Worker;

/// Both players of a game of dice, each on a gateway.
struct Game {
    players: [Json; 2],
    room: String,
    /// Rolls that both have seen.
    rolls: usize,
}

impl Game {
    /// Ann makes the room, Bob joins it.
    fn open(gateways: &[Gateway]) -> Self {
        let mut players = [Json::player(&gateways[0], "ann"), Json::player(&gateways[1], "bob")];
        players.iter_mut().for_each(has_patience);
        players[0].send(&json!({"type": "games.command.create_room", "game_type": "bigger_dice", "room_name": "Den"}));
        let room = players[0].expect("games.event.room_created")["room_id"].as_str().unwrap().to_owned();
        players[1].send(&json!({"type": "games.command.join_room", "room_name": "Den"}));
        assert_eq!(players[1].expect("games.event.lobby_joined")["room_id"], *room);
        assert_eq!(players[0].expect("games.event.player_joined")["room_id"], *room);
        Self { players, room, rolls: 0 }
    }

    /// Whose turn it is asks for a roll.
    fn ask(&mut self) {
        let roll = json!({"type": "games.command.bigger_dice.roll", "room_id": self.room,
            "correlation_id": format!("roll-{}", self.rolls)});
        self.players[self.rolls % 2].send(&roll);
    }

    /// Both see the same roll; the score it made.
    fn see(&mut self) -> u64 {
        let [a, b] = self.players.each_mut().map(|player| player.expect("games.event.bigger_dice.rolled"));
        let told = |event: &Value| ["player_id", "roll", "new_score"].map(|name| event[name].clone());
        assert_eq!(told(&a), told(&b));
        assert_eq!(a["player_id"], ["ann", "bob"][self.rolls % 2]);
        self.rolls += 1;
        a["new_score"].as_u64().unwrap()
    }

    /// One says something to the room, both hear it.
    fn say(&mut self, at: usize, text: &str) {
        self.players[at]
            .send(&json!({"type": "chat.command.send_lobby_message", "lobby_id": self.room, "content": text}));
        for player in &mut self.players {
            let heard = player.expect("chat.event.message_received");
            assert_eq!((&heard["content"], &heard["sender_id"]), (&json!(text), &json!(["ann", "bob"][at])));
        }
    }

    /// One goes on at another gateway.
    fn moves(&mut self, at: usize, gateway: &Gateway) {
        let former = &self.players[at];
        let mut next = Json::resumed(gateway, &former.resume(), &former.positions());
        assert_eq!((&next.session["recovered"], &next.session["rooms"]), (&json!(true), &json!([self.room])));
        has_patience(&mut next);
        self.players[at] = next;
    }
}

/// A worker that vanished is replaced within 25 s.
fn has_patience(player: &mut Json) {
    player.stream().set_read_timeout(Some(Duration::from_secs(40))).unwrap();
}

/// The active one of two workers, and the other.
fn ranked(cluster: &Cluster) -> (Worker, Worker) {
    let [a, b] = ["worker:0", "worker:1"].map(|id| cluster.worker(id));
    until("one of them is active", || a.is_active() != b.is_active());
    if a.is_active() { (a, b) } else { (b, a) }
}

/// Chat and dice between players on two gateways. In the middle of the game the active worker is killed with a command
/// under way, then the gateway of one player: the game goes on to its end, each event once and the same for both, and
/// presence tells the truth.
#[test]
fn a_game_survives_a_worker_and_a_gateway() {
    let mut cluster = Cluster::start();
    let mut gateways = vec![cluster.gateway("gw:0"), cluster.gateway("gw:1")];
    let (active, other) = ranked(&cluster);
    let mut game = Game::open(&gateways);
    game.say(0, "hello");
    game.say(1, "hello yourself");
    game.players[0].send(&json!({"type": "chat.command.send_message", "recipient_id": "bob", "content": "psst"}));
    for player in &mut game.players {
        assert_eq!(player.expect("chat.event.message_received")["content"], "psst");
    }
    for _ in 0..3 {
        game.ask();
        game.see();
    }
    game.ask();
    active.kill();
    game.see();
    assert!(other.is_active());
    game.ask();
    gateways[0].signal(Signal::KILL);
    let _ = gateways[0].ended();
    game.moves(0, &gateways[1]);
    // Not acknowledged, so perhaps not read: said again, and done once.
    game.ask();
    let mut score = game.see();
    gateways[0] = cluster.gateway("gw:0");
    cluster.tells(&["gw:0", "gw:1"], &[(&game.room, &["ann", "bob"])], GATEWAY_LEASE);
    game.say(0, "back again");
    game.moves(1, &gateways[0]);
    while score < 50 {
        game.ask();
        score = game.see();
    }
    let winner = ["ann", "bob"][(game.rolls - 1) % 2];
    for player in &mut game.players {
        assert_eq!(player.expect("games.event.game_ended")["winner_id"], winner);
    }
    cluster.tells(&["gw:0", "gw:1"], &[(&game.room, &["ann", "bob"])], GATEWAY_RENEWAL);
    drop(game);
    other.stop();
    cluster.ends(gateways);
}

/// A room hub whose members are on two gateways: each hears all of both, once, also who goes on at the other gateway when
/// its own is killed. When all gateways are gone, the worker says so of their connections, and takes out what they left.
#[test]
fn a_hub_spans_gateways() {
    let mut cluster = Cluster::start();
    let mut gateways = [cluster.gateway("gw:0"), cluster.gateway("gw:1")];
    let worker = cluster.worker("worker");
    let mut host = hub::Player::host(&gateways[0], "Ann");
    let mut guest = host.guest(&gateways[1], "Bob");
    assert_eq!(guest.joined["members"].as_array().map(Vec::len), Some(2), "{}", guest.joined);
    let mut said = 0;
    let mut chat = |host: &mut hub::Player, guest: &mut hub::Player| {
        for of_host in [true, false] {
            said += 1;
            if of_host { &mut *host } else { &mut *guest }.chat(&format!("message {said}"));
            for player in [&mut *host, &mut *guest] {
                assert_eq!(player.event("chat")["message"], format!("message {said}"));
            }
        }
    };
    (0..3).for_each(|_| chat(&mut host, &mut guest));
    let position = guest.position();
    gateways[1].signal(Signal::KILL);
    let _ = gateways[1].ended();
    host.chat("are you there?");
    assert_eq!(host.event("chat")["message"], "are you there?");
    let mut guest = hub::Player::resume(&gateways[0], &guest.ticket, position);
    assert_eq!(guest.joined["recovered"], true, "{}", guest.joined);
    assert_eq!(guest.event("chat")["message"], "are you there?");
    chat(&mut host, &mut guest);
    gateways[1] = cluster.gateway("gw:1");
    let mut next = hub::Player::resume(&gateways[1], &guest.ticket, guest.position());
    assert_eq!(guest.closed().0, 4409);
    chat(&mut host, &mut next);
    let users = [&host, &next].map(|player| player.ticket.player.clone());
    let mut users = users.each_ref().map(String::as_str);
    users.sort_unstable();
    cluster.tells(&["gw:0", "gw:1"], &[(&host.ticket.room, &users)], GATEWAY_LEASE);

    for gateway in &mut gateways {
        gateway.signal(Signal::KILL);
        let _ = gateway.ended();
    }
    until_within(GATEWAY_LEASE + GATEWAY_RENEWAL, "the worker takes out what they left", || {
        cluster.members("presence:online").is_empty() && cluster.members("gateway:gw:1:sockets").is_empty()
    });
    worker.stop();
    cluster.ends(Vec::new());
}
