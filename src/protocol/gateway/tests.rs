//! What clients send: the messages of the reference documents, everything malformed, and the scanner against
//! serde_json.

use proptest::prelude::*;
use serde_json::Value;

use super::scan::{DEPTH_MAX, FIELDS_MAX, NAME_BYTES_MAX, Span, plain_len, scan_object};
use super::*;

fn command(text: &str, check: impl FnOnce(Command<'_>)) {
    match parse(text.as_bytes(), &mut Fields::default()) {
        Ok(Inbound::Command(command)) => check(command),
        other => panic!("{text}: {other:?}"),
    }
}

fn malformed(text: &str) -> String {
    match parse(text.as_bytes(), &mut Fields::default()) {
        Err(malformed) => malformed.to_string(),
        Ok(inbound) => panic!("{text}: {inbound:?}"),
    }
}

/// Every command of the reference documents, as they print it, is read with its type and the field that routes it, and
/// goes on as it is.
#[test]
fn commands_of_the_reference_documents() {
    let messages = [
        (
            r#"{ "type": "chat.command.send_message", "recipient_id": "...", "content": "..." }"#,
            "chat.command.send_message",
            [("recipient_id", Some("...")), ("content", Some("..."))],
        ),
        (
            r#"{ "type": "chat.command.send_lobby_message", "lobby_id": "...", "content": "..." }"#,
            "chat.command.send_lobby_message",
            [("lobby_id", Some("...")), ("content", Some("..."))],
        ),
        (
            r#"{ "type": "games.command.create_room", "game_type": "bigger_dice", "room_name": "..." }"#,
            "games.command.create_room",
            [("game_type", Some("bigger_dice")), ("room_id", None)],
        ),
        (
            r#"{ "type": "games.command.join_room", "room_name": "..." }"#,
            "games.command.join_room",
            [("room_name", Some("...")), ("room_id", None)],
        ),
        (
            r#"{ "type": "games.command.bigger_dice.roll", "room_id": "..." }"#,
            "games.command.bigger_dice.roll",
            [("room_id", Some("...")), ("type", Some("games.command.bigger_dice.roll"))],
        ),
        (
            "{\n    \"type\": \"games.command.join_room\",\n    \"room_name\": \"My Room\",\n    \"password\": null\n}",
            "games.command.join_room",
            [("room_name", Some("My Room")), ("password", None)],
        ),
        (
            r#"{ "type": "games.command.leave_room", "room_id": "uuid" }"#,
            "games.command.leave_room",
            [("room_id", Some("uuid")), ("correlation_id", None)],
        ),
        (
            "{\n    \"type\": \"chat.command.send_message\",\n    \"recipient_id\": \"123\",\n    \"content\": \"Hello!\"\n}",
            "chat.command.send_message",
            [("recipient_id", Some("123")), ("content", Some("Hello!"))],
        ),
    ];
    for (text, event_type, fields) in messages {
        command(text, |command| {
            assert_eq!(command.event_type, event_type);
            assert_eq!((command.body, command.correlation_id.as_deref()), (text, None));
            for (name, value) in fields {
                assert_eq!(command.field(name).as_deref(), value, "{text} {name}");
            }
        });
    }
}

/// The gateway's own messages, as the documents print them, and with everything they may have.
#[test]
fn messages_for_the_gateway() {
    let fields = &mut Fields::default();
    assert_eq!(parse(br#"{ "type": "system.heartbeat" }"#, fields), Ok(Inbound::Heartbeat));
    assert_eq!(parse(br#"{"type":"system.heartbeat","at":[1]}"#, fields), Ok(Inbound::Heartbeat));
    let ack = br#"{ "type": "system.delta_ack", "count": 120 }"#;
    assert_eq!(parse(ack, fields), Ok(Inbound::DeltaAck { count: 120 }));
    for token in ["jwt...", "jwt_token_here", "your_jwt_token"] {
        let text = format!("{{ \"type\": \"system.authenticate\", \"token\": \"{token}\" }}");
        let expected = Authenticate { token: Some(token.into()), ..Authenticate::default() };
        assert_eq!(parse(text.as_bytes(), fields), Ok(Inbound::Authenticate(expected)));
    }
    let text = r#"{"type":"system.authenticate","token":null,"resume":"r","delta_window":2,"correlation_id":7,"x":{},
        "positions":{"games.events.0\/room:a":{"epoch":9007199254740991,"offset":2,"more":[]},"b":{"offset":0,"epoch":1}}}"#;
    let position = |stream: &str, epoch, place| Position { stream: stream.into(), epoch, place };
    let expected = Authenticate {
        token: None,
        resume: Some("r".into()),
        positions: vec![position("games.events.0/room:a", (1 << 53) - 1, 2), position("b", 1, 0)],
        delta_window: Some(2),
        correlation_id: Some("7".into()),
    };
    assert_eq!(parse(text.as_bytes(), fields), Ok(Inbound::Authenticate(expected)));
    let bare = parse(br#"{"type":"system.authenticate","positions":null}"#, fields);
    assert_eq!(bare, Ok(Inbound::Authenticate(Authenticate::default())));
}

/// Ids may be numbers, names and values may be spelled with escapes, space is no part of a command.
#[test]
fn ids_are_read_in_any_spelling() {
    let text =
        " {\"\\u0074ype\":\"a.\\ud83d\\ude00\",\"room_id\":42,\"correlation_id\":\"\\u0061\",\"n\":-1.5e3,\"o\":{}}\n";
    command(text, |command| {
        assert_eq!(command.event_type, "a.😀");
        assert_eq!(command.body, text.trim());
        assert_eq!(command.correlation_id.as_deref(), Some("a"));
        let field = |name| command.field(name).map(Cow::into_owned);
        assert_eq!((field("room_id"), field("n"), field("o")), (Some("42".into()), Some("-1.5e3".into()), None));
    });
    command(r#"{"type":"a","correlation_id":""}"#, |command| assert_eq!(command.correlation_id, None));
    command(r#"{"type":"a","correlation_id":null}"#, |command| assert_eq!(command.correlation_id, None));
}

/// What is no message is refused, and the refusal names the field or the place.
#[test]
fn malformed_messages_are_named() {
    let long = |n: usize| "x".repeat(n);
    for text in ["", " ", "[]", "1", "\"a\"", "null", "x"] {
        assert_eq!(malformed(text), "not a JSON object; send {\"type\": …}");
    }
    for (text, told) in [
        ("{", "malformed JSON: expected a field's name in quotes at byte 1"),
        ("{} x", "malformed JSON: expected the end at byte 3"),
        ("{}x", "malformed JSON: expected the end at byte 2"),
        ("{}{}", "malformed JSON: expected the end at byte 2"),
        ("{\"a\"}", "malformed JSON: expected ':' at byte 4"),
        ("{\"a\":}", "malformed JSON: expected a value at byte 5"),
        ("{\"a\":1,}", "malformed JSON: expected a field's name in quotes at byte 7"),
        ("{\"a\":[1,]}", "malformed JSON: expected a value at byte 8"),
        ("{\"a\":[1}", "malformed JSON: expected ',' or ']' at byte 7"),
        ("{\"a\":01}", "malformed JSON: expected ',' or '}' at byte 6"),
        ("{\"a\":-}", "malformed JSON: expected a digit at byte 6"),
        ("{\"a\":nul}", "malformed JSON: expected a value at byte 5"),
        ("{\"a\":\"\n\"}", "malformed JSON: expected an escape in place of a control character at byte 6"),
        ("{\"a\":\"\\x\"}", "malformed JSON: expected one of \"\\/bfnrtu behind a backslash at byte 8"),
        ("{\"a\":\"\\ud800\"}", "malformed JSON: expected a low surrogate behind a high one at byte 12"),
        ("{\"a\":\"\\ude00\"}", "malformed JSON: expected a high surrogate before a low one at byte 12"),
        ("{\"a\":1e400}", "malformed JSON: expected a number that a double can hold, in at most 64 bytes at byte 5"),
        ("{}", "type: expected a string of 1-128 bytes"),
        (" {} \n", "type: expected a string of 1-128 bytes"),
        ("{\"type\":7}", "type: expected a string of 1-128 bytes"),
        ("{\"type\":\"\"}", "type: expected a string of 1-128 bytes"),
        ("{\"type\":\"a\",\"type\":\"b\"}", "type: given twice; give it once"),
        ("{\"type\":\"a\",\"r\":1,\"\\u0072\":2}", "r: given twice; give it once"),
        ("{\"type\":\"a\",\"correlation_id\":{}}", "correlation_id: expected a string of at most 64 bytes"),
        ("{\"type\":\"system.delta_ack\"}", "count: expected the number of deltas received"),
        ("{\"type\":\"system.delta_ack\",\"count\":-1}", "count: expected the number of deltas received"),
        ("{\"type\":\"system.authenticate\",\"token\":7}", "token: expected a string of at most 8192 bytes"),
        ("{\"type\":\"system.authenticate\",\"resume\":[]}", "resume: expected a string of at most 64 bytes"),
        (
            "{\"type\":\"system.authenticate\",\"delta_window\":4294967296}",
            "delta_window: expected a whole number below 2^32",
        ),
        (
            "{\"type\":\"system.authenticate\",\"positions\":[]}",
            "positions: expected an object {\"<stream>\": {\"epoch\", \"offset\"}}",
        ),
        (
            "{\"type\":\"system.authenticate\",\"positions\":{\"a\":{\"epoch\":1}}}",
            "positions: expected epoch and offset as whole numbers",
        ),
        (
            "{\"type\":\"system.authenticate\",\"positions\":{\"a\":1}}",
            "positions: expected epoch and offset as whole numbers",
        ),
    ] {
        assert_eq!(malformed(text), told, "{text}");
    }
    let field = |name: &str, value: String| format!("{{\"type\":\"system.authenticate\",\"{name}\":{value}}}");
    assert!(malformed(&format!("{{\"type\":\"{}\"}}", long(129))).starts_with("type:"));
    assert!(
        malformed(&format!("{{\"type\":\"a\",\"correlation_id\":\"{}\"}}", long(65))).starts_with("correlation_id:")
    );
    assert!(malformed(&field("token", format!("\"{}\"", long(8193)))).starts_with("token:"));
    assert!(malformed(&field("n", "1".repeat(65))).contains("64 bytes"));
    let positions: Vec<_> = (0..=1024).map(|n| format!("\"{n}\":{{\"epoch\":1,\"offset\":1}}")).collect();
    assert!(malformed(&field("positions", format!("{{{}}}", positions.join(",")))).contains("at most 1024 streams"));
    let stream = format!("{{\"{}\":{{\"epoch\":1,\"offset\":1}}}}", long(513));
    assert!(malformed(&field("positions", stream)).contains("512 bytes"));
    let fields = &mut Fields::default();
    assert_eq!(parse(b"{\"type\":\"\xff\"}", fields), Err(Malformed::Utf8 { at: 9 }));
}

/// Each bound holds to the one: what is at it passes, what is beyond it does not.
#[test]
fn bounds_are_exact() {
    let nested =
        |depth: u32| format!("{{\"type\":\"a\",\"v\":{}{}}}", "[".repeat(depth as usize), "]".repeat(depth as usize));
    command(&nested(DEPTH_MAX - 1), |command| assert_eq!(command.field("v"), None));
    assert_eq!(malformed(&nested(DEPTH_MAX)), "malformed JSON: expected at most 32 open brackets at byte 47");
    let objects = |depth: usize| format!("{{\"type\":\"a\",\"v\":{}1{}}}", "{\"v\":".repeat(depth), "}".repeat(depth));
    command(&objects(DEPTH_MAX as usize - 1), |_| {});
    assert_eq!(
        malformed(&objects(DEPTH_MAX as usize)),
        "malformed JSON: expected at most 32 open brackets at byte 171"
    );
    let wide = |n: usize| {
        let fields: Vec<_> = (1..n).map(|n| format!(",\"{n}\":{n}")).collect();
        format!("{{\"type\":\"a\"{}}}", fields.concat())
    };
    command(&wide(FIELDS_MAX), |command| assert_eq!(command.field("63").as_deref(), Some("63")));
    assert!(malformed(&wide(FIELDS_MAX + 1)).starts_with("more than 64 fields"));
    let named = |n: usize| format!("{{\"type\":\"a\",\"{}\":1}}", "n".repeat(n));
    command(&named(NAME_BYTES_MAX), |command| assert_eq!(command.field(&"n".repeat(256)).as_deref(), Some("1")));
    assert!(malformed(&named(NAME_BYTES_MAX + 1)).contains("longer than 256 bytes"));
}

/// The end of a string's plain part is found at every place of strings of every length, whatever stands there or follows.
#[test]
fn plain_parts_end_exactly() {
    for len in 0..140 {
        let plain: Vec<u8> = [b'a', 0x7f, 0x80, 0xff, b' ', b'!', b'#', b'['].into_iter().cycle().take(len).collect();
        assert_eq!(plain_len(&plain), len);
        for at in 0..len {
            for special in [b'"', b'\\', 0, 0x1f] {
                let mut bytes = plain.clone();
                bytes[at] = special;
                assert_eq!(plain_len(&bytes), at, "{len} {special}");
                bytes[len - 1] = b'"';
                assert_eq!(plain_len(&bytes), at, "{len} {special}");
            }
        }
    }
}

/// An object's members in order, as serde_json reads them, doubled names included.
struct Pairs(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn scanned(text: &str) -> Result<Vec<(String, &str)>, Malformed> {
    let mut members = Vec::new();
    let each = |span: &Span| {
        members.push((unescape(span.key(text)).into_owned(), span.value(text)));
        Ok(())
    };
    scan_object(text, each).map(|()| members)
}

fn agrees(text: &str) -> Result<(), TestCaseError> {
    match (scanned(text), serde_json::from_str::<Pairs>(text)) {
        (Err(_), Err(_)) => {}
        (Ok(members), Ok(Pairs(pairs))) => {
            prop_assert_eq!(members.len(), pairs.len());
            for ((name, value), (expected_name, expected)) in members.into_iter().zip(pairs) {
                prop_assert_eq!(name, expected_name);
                let said = match &expected {
                    Value::String(said) => Some(said.clone()),
                    Value::Number(_) => Some(value.to_owned()),
                    _ => None,
                };
                prop_assert_eq!(scan::text(value).map(Cow::into_owned), said);
                prop_assert_eq!(serde_json::from_str::<Value>(value).unwrap(), expected);
            }
        }
        (ours, theirs) => prop_assert!(false, "{text}: {ours:?}, serde_json: {:?}", theirs.err()),
    }
    Ok(())
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{1,2}"]
}

fn string() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-z .]{0,10}",
        1 => "\\\\[\"\\\\/bfnrt]",
        1 => "\\\\u[0-9a-cA-C][0-9a-fA-F]{3}",
        1 => "\\\\u[dD][89abAB][0-9a-f]{2}\\\\u[dD][c-fC-F][0-9a-f]{2}",
        1 => "[^\"\\\\\\x00-\\x1f]{0,4}",
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        string(),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        Just("true".into()),
        Just("false".into()),
        Just("null".into()),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        let array = prop::collection::vec((inner.clone(), space()), 0..4)
            .prop_map(|items| items.into_iter().map(|(item, space)| space + &item).collect::<Vec<_>>().join(","));
        prop_oneof![array.prop_map(|items| format!("[{items}]")), object(inner)]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member =
        (string(), space(), value, space()).prop_map(|(name, a, value, b)| format!("{a}{name}{b}:{a}{value}{b}"));
    (prop::collection::vec(member, 0..5), space())
        .prop_map(|(members, space)| format!("{{{}{space}}}", members.join(",")))
}

/// A whole message: space may stand around it.
fn message() -> impl Strategy<Value = String> {
    (space(), object(value()), space()).prop_map(|(before, object, behind)| before + &object + &behind)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Of valid objects the scanner finds the members that serde_json finds, with the same names and values.
    #[test]
    fn the_scanner_reads_what_serde_json_reads(text in message()) {
        prop_assert!(scanned(&text).is_ok(), "{}", text);
        agrees(&text)?;
    }

    /// Of objects with random edits the scanner refuses exactly those that serde_json refuses.
    #[test]
    fn the_scanner_refuses_what_serde_json_refuses(
        text in message(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8, "[\\[\\]{}:,\"\\\\u0-9a-fd8E+. tn\\x00\\x1fé-]"), 1..4),
    ) {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, edit, with) in edits {
            let at = at.index(chars.len().max(1)).min(chars.len());
            let with = with.chars().next().unwrap();
            match edit {
                0 if at < chars.len() => chars[at] = with,
                1 if at < chars.len() => drop(chars.remove(at)),
                _ => chars.insert(at, with),
            }
        }
        agrees(&chars.into_iter().collect::<String>())?;
    }

    /// No bytes make reading panic, and reading the same again gives the same.
    #[test]
    fn reading_is_total_and_repeatable(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "\\{(\"(type|count|token|positions)\":([{\\[\"0-9a-z\\]}]{0,8}|\"system\\.[a-z_]{0,12}\"),?){0,3}\\}?".prop_map(String::into_bytes),
        ],
    ) {
        let (mut first, mut again) = (Fields::default(), Fields::default());
        let _other_message = parse(br#"{"type":"a","b":1}"#, &mut again);
        prop_assert_eq!(parse(&bytes, &mut first), parse(&bytes, &mut again));
    }
}
