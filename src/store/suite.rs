//! What every store does, whatever keeps it. Run here against SQLite, by `tests/services_postgres` against PostgreSQL.

use ringgate::id::EventId;
use ringgate::ports::{ChatMessage, Store, Write};
use ringgate::time::WallMillis;

/// A record of the rooms service.
pub fn put(key: &str, value: &str) -> Write {
    Write::Put { service: "rooms", key: key.into(), value: value.as_bytes().into() }
}

/// The `n`th message, of the player `u`, who is called another name each time.
pub fn message(n: u8, room: &str) -> Write {
    Write::Message(Box::new(ChatMessage {
        id: EventId([n; 16]),
        room: room.into(),
        sender: "u".into(),
        sender_name: format!("name {n}").into(),
        message: format!("m{n}").into(),
        at: WallMillis(u64::from(n)),
    }))
}

/// What was said, oldest first.
pub fn texts(store: &mut dyn Store, room: &str, max: usize) -> Vec<String> {
    store.messages(room, max).unwrap().into_iter().map(|message| message.message.into()).collect()
}

/// Records are put, replaced and removed by key, read in the order of their bytes, and each service sees its own.
pub fn records_are_kept_by_service_and_key(mut store: impl Store) {
    store.write(&[put("b", "1"), put("a", "2"), put("b", "3"), put("B", "4"), put("é", "5")]).unwrap();
    let expected = [("B", "4"), ("a", "2"), ("b", "3"), ("é", "5")].map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec()));
    assert_eq!(store.load("rooms").unwrap(), expected);
    assert_eq!(store.load("chat").unwrap(), []);
    store.write(&[Write::Remove { service: "rooms", key: "a".into() }]).unwrap();
    assert_eq!(store.load("rooms").unwrap().len(), 3);
    store.write(&[Write::Remove { service: "rooms", key: "a".into() }]).unwrap();
    store.write(&[]).unwrap();
    assert_eq!(store.load("rooms").unwrap().len(), 3);
}

/// Messages of a store of four come oldest first, the newest of them; one of a known id is stored once; beyond the bound
/// the oldest go; a room takes its own with it.
pub fn messages_are_a_bounded_history(mut store: impl Store) {
    store.write(&[message(1, "a"), message(2, "b"), message(1, "a"), message(3, "a")]).unwrap();
    assert_eq!(texts(&mut store, "a", 9), ["m1", "m3"]);
    assert_eq!(texts(&mut store, "a", 1), ["m3"]);
    let newest = store.messages("a", 1).unwrap().remove(0);
    assert_eq!(Write::Message(Box::new(newest)), message(3, "a"), "all of it is kept");
    store.write(&[message(4, "b"), message(5, "a"), message(6, "a")]).unwrap();
    assert_eq!(texts(&mut store, "a", 9), ["m3", "m5", "m6"]);
    store.write(&[message(3, "a"), message(6, "a")]).unwrap();
    assert_eq!(texts(&mut store, "a", 9), ["m3", "m5", "m6"], "as they were");
    store.write(&[Write::RemoveRoom { room: "a".into() }]).unwrap();
    assert_eq!(texts(&mut store, "a", 9), [""; 0]);
    assert_eq!(store.messages("b", 9).unwrap().len(), 1);
}

/// Every kind of write, given twice as one whose end nobody knows is, leaves what it left the first time; so do all of
/// them as one batch.
pub fn a_batch_done_again_changes_nothing(mut store: impl Store) {
    let room = |code: &str| Write::Room { room: "r".into(), code: code.into(), max_players: 10, at: WallMillis(1) };
    let player =
        |name: &str| Write::Player { room: "r".into(), player: "u".into(), name: name.into(), at: WallMillis(2) };
    let gone = || Write::RemoveRoom { room: "old".into() };
    let batch = [
        put("a", "1"),
        message(7, "old"),
        room("AAAAAA"),
        player("first"),
        message(1, "r"),
        room("BBBBBB"),
        put("a", "2"),
        put("b", "3"),
        Write::Remove { service: "rooms", key: "b".into() },
        player("last"),
        gone(),
        message(8, "old"),
    ];
    let seen = |store: &mut dyn Store| {
        let messages = ["r", "old"].map(|room| store.messages(room, 9).unwrap());
        (store.load("rooms").unwrap(), messages)
    };
    store.write(&batch).unwrap();
    let once = seen(&mut store);
    assert_eq!(once.0, [("a".to_owned(), b"2".to_vec())]);
    assert_eq!(once.1[0][0].sender_name.as_ref(), "last");
    assert_eq!(once.1[1].len(), 1, "what was said in the room that is made anew");
    store.write(&batch).unwrap();
    assert_eq!(seen(&mut store), once);
    for write in batch {
        store.write(std::slice::from_ref(&write)).unwrap();
        let once = seen(&mut store);
        store.write(&[write]).unwrap();
        assert_eq!(seen(&mut store), once);
    }
}

/// Texts of every script, a character that ends strings elsewhere, and moments beyond all calendars are taken: nothing
/// that is said can stop a store.
pub fn whatever_is_said_is_taken(mut store: impl Store) {
    let said = "naïve 日本 🎲 ' \" \\ $1 %s\r\n\t";
    let all = |text: &str, n, at| {
        Write::Message(Box::new(ChatMessage {
            id: EventId([n; 16]),
            room: text.into(),
            sender: text.into(),
            sender_name: text.into(),
            message: text.into(),
            at,
        }))
    };
    let ended = "an \0 within";
    let room = Write::Room { room: ended.into(), code: ended.into(), max_players: u32::MAX, at: WallMillis(u64::MAX) };
    store.write(&[all(said, 1, WallMillis(1)), room, all(ended, 2, WallMillis(u64::MAX)), put(ended, "1")]).unwrap();
    assert_eq!(&*store.messages(said, 1).unwrap()[0].message, said);
    assert_eq!(&*store.messages(said, 1).unwrap()[0].sender_name, said);
    assert!(store.messages(ended, 1).unwrap()[0].message.starts_with("an "));
    store.write(&[Write::Remove { service: "rooms", key: ended.into() }]).unwrap();
    assert_eq!(store.load("rooms").unwrap(), []);
}
