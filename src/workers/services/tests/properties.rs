//! Random commands, crashes between any two operations, and an oracle that reads nothing but the events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use simd_json::OwnedValue;
use simd_json::prelude::*;

use super::dispatch::GAMES;
use super::rig::{NOW, Shared, command, room_of, worker};
use super::*;

/// What happens to the services.
#[derive(Clone, Debug)]
enum Step {
    Create {
        user: u8,
        name: u8,
        password: bool,
    },
    Join {
        user: u8,
        name: u8,
        password: u8,
    },
    Leave {
        user: u8,
        name: u8,
    },
    Roll {
        user: u8,
        name: u8,
        times: u8,
    },
    List {
        user: u8,
    },
    Say {
        user: u8,
        to: Option<u8>,
    },
    See {
        user: u8,
        kind: u8,
        name: u8,
    },
    Battle {
        name: u8,
    },
    Wait {
        ms: u64,
    },
    Repeat,
    /// Every command topic gets a partition.
    Grow,
}

fn step() -> impl Strategy<Value = Step> {
    let (user, name) = (1u8..6, 0u8..2);
    prop_oneof![
        2 => (user.clone(), name.clone(), any::<bool>())
            .prop_map(|(user, name, password)| Step::Create { user, name, password }),
        5 => (user.clone(), name.clone(), 0u8..3)
            .prop_map(|(user, name, password)| Step::Join { user, name, password }),
        1 => (user.clone(), name.clone()).prop_map(|(user, name)| Step::Leave { user, name }),
        8 => (user.clone(), name.clone(), 1u8..6).prop_map(|(user, name, times)| Step::Roll { user, name, times }),
        1 => user.clone().prop_map(|user| Step::List { user }),
        1 => (user.clone(), proptest::option::of(name.clone())).prop_map(|(user, to)| Step::Say { user, to }),
        4 => (user, 0u8..5, name.clone()).prop_map(|(user, kind, name)| Step::See { user, kind, name }),
        1 => name.prop_map(|name| Step::Battle { name }),
        2 => prop_oneof![1u64..2000, 100_000u64..400_000].prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Repeat),
        1 => Just(Step::Grow),
    ]
}

/// What the steps put on the bus: at most a few records at a time, with their topics and times.
struct Script {
    now: u64,
    id: u32,
    /// The command that made the room of a name last.
    rooms: BTreeMap<u8, u32>,
    /// With its time: behind the window a repeat is a new command.
    last: Option<(&'static str, u8, Vec<u8>, u64)>,
}

const SECRET_WORD: &str = "sesame";

impl Script {
    fn new() -> Self {
        Self { now: 1_000_000, id: 0, rooms: BTreeMap::new(), last: None }
    }

    fn room(&self, name: u8) -> String {
        self.rooms.get(&name).map_or("nowhere".into(), |command| room_of(*command))
    }

    fn put(&mut self, shared: &Shared, topic: &'static str, event_type: &str, user: u8, payload: &str) {
        self.id += 1;
        let record = command(self.id, event_type, user, user, payload);
        shared.0.lock().unwrap().put_of(topic, user, self.now, record.clone());
        self.last = Some((topic, user, record, self.now));
    }

    fn act(&mut self, shared: &Shared, step: &Step) {
        self.now += 1;
        let games = "games.command";
        match *step {
            Step::Create { user, name, password } => {
                let password = if password { format!("\"{SECRET_WORD}\"") } else { "null".into() };
                let fields = format!(r#"{{"game_type":"bigger_dice","room_name":"n{name}","password":{password}}}"#);
                self.put(shared, GAMES, &format!("{games}.create_room"), user, &fields);
                let unused = !self.rooms.contains_key(&name);
                if unused || self.id.is_multiple_of(3) {
                    self.rooms.insert(name, self.id);
                }
            }
            Step::Join { user, name, password } => {
                let password = ["null", "\"sesame\"", "\"sesame street\""][usize::from(password)];
                let fields = format!(r#"{{"room_name":"n{name}","password":{password}}}"#);
                self.put(shared, GAMES, &format!("{games}.join_room"), user, &fields);
            }
            Step::Leave { user, name } => {
                let fields = format!(r#"{{"room_id":"{}"}}"#, self.room(name));
                self.put(shared, GAMES, &format!("{games}.leave_room"), user, &fields);
            }
            Step::Roll { user, name, times } => {
                let fields = format!(r#"{{"room_id":"{}"}}"#, self.room(name));
                // Everybody tries, so that some turns are taken.
                for n in 0..times {
                    let user = (user + n) % 5 + 1;
                    self.put(shared, GAMES, &format!("{games}.bigger_dice.roll"), user, &fields);
                }
            }
            Step::List { user } => self.put(shared, GAMES, &format!("{games}.list_rooms"), user, "{}"),
            Step::Say { user, to: None } => {
                let fields = r#"{"recipient_id":"u1","content":"hi"}"#;
                self.put(shared, dispatch::CHAT, "chat.command.send_message", user, fields);
            }
            Step::Say { user, to: Some(name) } => {
                let fields = format!(r#"{{"lobby_id":"{}","content":"hi"}}"#, self.room(name));
                self.put(shared, dispatch::CHAT, "chat.command.send_lobby_message", user, &fields);
            }
            Step::See { user, kind, name } => {
                let kind = ["connected", "disconnected", "joined", "left", "disconnected"][usize::from(kind)];
                let reason = if self.id.is_multiple_of(4) { "kicked" } else { "connection_lost" };
                let fields = format!(r#"{{"room_id":"{}","reason":"{reason}"}}"#, self.room(name));
                self.put(shared, dispatch::PRESENCE, &format!("gateway.presence.{kind}"), user, &fields);
            }
            Step::Battle { name } => {
                let fields = format!(r#"{{"room_id":"battle{name}","events":3,"interval_ms":700}}"#);
                self.put(shared, GAMES, "battle.command.start", 1, &fields);
            }
            Step::Wait { ms } => self.now += ms,
            Step::Repeat => {
                if let Some((topic, user, record, at)) = self.last.clone()
                    && self.now < at + 200_000
                {
                    shared.0.lock().unwrap().put_of(topic, user, self.now, record);
                }
            }
            Step::Grow => {
                let mut disk = shared.0.lock().unwrap();
                disk.more_partitions = (disk.more_partitions + 1).min(3);
            }
        }
    }
}

/// Turns until there is nothing to do; whoever dies is started anew, with the next fuse.
fn run(shared: &Shared, wall: u64, worker_slot: &mut Option<rig::Worker>, fuses: &mut impl Iterator<Item = usize>) {
    loop {
        let worker = worker_slot.get_or_insert_with(|| worker(shared));
        let next = worker.turn(NOW, WallMillis(wall));
        let dead = shared.0.lock().unwrap().fuse == Some(0);
        if dead {
            *worker_slot = None;
            shared.0.lock().unwrap().fuse = fuses.next();
        } else if next > NOW {
            return;
        }
    }
}

fn everything(shared: &Shared) -> BTreeMap<String, Vec<String>> {
    let disk = shared.0.lock().unwrap();
    SERVICE_EVENT_TOPICS.iter().map(|topic| ((*topic).to_owned(), disk.texts(topic))).collect()
}

/// What the oracle knows of a room.
#[derive(Default, Debug)]
struct Seen {
    players: BTreeSet<String>,
    playing: Vec<String>,
    scores: BTreeMap<String, u64>,
    turn: Option<String>,
}

/// Reads the events of a run as a member of every room would.
fn judge(events: &[String]) -> Result<(), TestCaseError> {
    let mut rooms: BTreeMap<String, Seen> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for text in events {
        let event: OwnedValue = simd_json::from_slice(&mut text.clone().into_bytes()).unwrap();
        prop_assert!(ids.insert(event["event_id"].to_string()), "twice: {text}");
        prop_assert!(!text.contains(SECRET_WORD), "{text}");
        let payload = &event["payload"];
        let name = |value: &OwnedValue| value.as_str().map(str::to_owned);
        let Some(room) = payload.get("room_id").and_then(name) else { continue };
        let seen = rooms.entry(room).or_default();
        match event["event_type"].as_str().unwrap() {
            "games.event.room_created" => {
                seen.players.insert(name(&payload["host_id"]).unwrap());
            }
            "games.event.player_joined" => {
                prop_assert!(seen.players.insert(name(&payload["player"]["user_id"]).unwrap()), "{text}");
                prop_assert!(seen.players.len() <= 6, "{text}");
            }
            "games.event.player_left" => {
                let user = name(&payload["player"]["user_id"]).unwrap();
                prop_assert!(seen.players.remove(&user), "{text}");
                seen.playing.retain(|player| *player != user);
                seen.scores.remove(&user);
                if seen.turn.as_ref() == Some(&user) {
                    seen.turn = None;
                }
            }
            "games.event.game_started" => {
                prop_assert!(seen.playing.is_empty() && seen.turn.is_none(), "{text}");
                let players = payload["players"].as_array().unwrap();
                seen.playing = players.iter().map(|player| name(&player["user_id"]).unwrap()).collect();
                prop_assert!(seen.playing.len() >= 2, "{text}");
                seen.turn = seen.playing.first().cloned();
                seen.scores = seen.playing.iter().map(|player| (player.clone(), 0)).collect();
            }
            "games.event.bigger_dice.rolled" => {
                let user = name(&payload["player_id"]).unwrap();
                prop_assert_eq!(Some(&user), seen.turn.as_ref(), "not its turn: {}", text);
                let roll = payload["roll"].as_u64().unwrap();
                prop_assert!((1..=6).contains(&roll), "{text}");
                let score = seen.scores.get_mut(&user).unwrap();
                prop_assert!(*score < 50, "the game is over: {text}");
                *score += roll;
                prop_assert_eq!(payload["new_score"].as_u64(), Some(*score), "{}", text);
                seen.turn = None;
            }
            "games.event.turn_changed" => {
                let user = name(&payload["player_id"]).unwrap();
                prop_assert!(seen.turn.is_none() && seen.playing.contains(&user), "{text}");
                prop_assert!(seen.scores.values().all(|score| *score < 50), "{text}");
                seen.turn = Some(user);
            }
            "games.event.game_ended" => {
                let winner = name(&payload["winner_id"]).unwrap();
                prop_assert!(seen.scores[&winner] >= 50 || seen.playing.len() == 1, "{text}");
                let scores = payload["scores"].as_object().unwrap();
                prop_assert_eq!(scores.len(), seen.scores.len());
                for (user, score) in &seen.scores {
                    prop_assert_eq!(scores[user.as_str()].as_u64(), Some(*score));
                }
                (seen.playing, seen.turn) = (Vec::new(), None);
                seen.scores.clear();
            }
            _ => {}
        }
    }
    Ok(())
}

/// Every command that was put is answered to its session, or heard by its room, as often as it was put under a new id.
fn answered(shared: &Shared, events: &[String]) -> Result<(), TestCaseError> {
    let mut asked = BTreeSet::new();
    for text in shared.0.lock().unwrap().all_texts(GAMES) {
        let command: OwnedValue = simd_json::from_slice(&mut text.into_bytes()).unwrap();
        let event_type = command["event_type"].as_str().unwrap();
        if event_type != "battle.command.start" {
            asked.insert(format!("\"correlation_id\":\"{}\"", command["correlation_id"].as_str().unwrap()));
        }
    }
    for correlation in asked {
        let answers = events.iter().filter(|event| event.contains(&correlation)).count();
        prop_assert_eq!(answers, 1, "{}", correlation);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is asked in whatever order: one has the turn, scores add up, the first to 50 wins, rooms hold what they
    /// may, no event tells a secret, every command has one answer; and a worker that dies between any two operations,
    /// again and again, makes the same events, each once and in the same order, however many partitions there come to be.
    #[test]
    fn a_restart_changes_nothing(
        steps in proptest::collection::vec(step(), 1..120),
        chunk in 1usize..12,
        fuses in proptest::collection::vec(1usize..40, 1..60),
    ) {
        let (steady, troubled) = (Shared::default(), Shared::default());
        let (mut script, mut same) = (Script::new(), Script::new());
        let (mut worker, mut mortal) = (None, None);
        let mut fuses = fuses.into_iter();
        troubled.0.lock().unwrap().fuse = fuses.next();
        for steps in steps.chunks(chunk) {
            for step in steps {
                script.act(&steady, step);
                same.act(&troubled, step);
            }
            run(&steady, script.now, &mut worker, &mut std::iter::empty());
            run(&troubled, same.now, &mut mortal, &mut fuses);
        }
        run(&steady, script.now + 5000, &mut worker, &mut std::iter::empty());
        run(&troubled, same.now + 5000, &mut mortal, &mut fuses);
        let events = everything(&steady);
        prop_assert_eq!(&events, &everything(&troubled));
        judge(&events["games.events"])?;
        answered(&steady, &events["games.events"])?;
        let (disk, other) = (steady.0.lock().unwrap(), troubled.0.lock().unwrap());
        prop_assert!(disk.records == other.records, "the records differ");
        prop_assert_eq!(&disk.messages, &other.messages);
        prop_assert!(disk.records.values().all(|value| !String::from_utf8_lossy(value).contains(SECRET_WORD)));
    }

    /// What arrives while the worker is down changes nothing of what it was about: every event is made once, the rules
    /// hold, and every command has its answer.
    #[test]
    fn what_arrives_meanwhile_waits(
        steps in proptest::collection::vec(step(), 1..120),
        fuses in proptest::collection::vec(1usize..8, 1..200),
    ) {
        let shared = Shared::default();
        let (mut script, mut mortal) = (Script::new(), None);
        let mut fuses = fuses.into_iter();
        shared.0.lock().unwrap().fuse = fuses.next();
        for step in &steps {
            script.act(&shared, step);
            // One turn, or death in it.
            let worker = mortal.get_or_insert_with(|| worker(&shared));
            worker.turn(NOW, WallMillis(script.now));
            if shared.0.lock().unwrap().fuse == Some(0) {
                mortal = None;
                shared.0.lock().unwrap().fuse = fuses.next();
            }
        }
        run(&shared, script.now + 5000, &mut mortal, &mut fuses);
        let events = everything(&shared);
        judge(&events["games.events"])?;
        answered(&shared, &events["games.events"])?;
    }
}
