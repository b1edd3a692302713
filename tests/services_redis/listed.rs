//! PROTOCOLS' list of Redis keys, and what Redis has held against it.

use std::time::Duration;

/// PROTOCOLS "Redis keys", as far as gateways write them: name and type.
const LIST: [(&str, &str); 12] = [
    ("socket:{id}", "hash"),
    ("user:{id}:sockets", "set"),
    ("user:{id}:hub", "string"),
    ("user:{id}:kicked", "string"),
    ("presence:online", "set"),
    ("room:{id}:info", "hash"),
    ("room:{id}:users", "set"),
    ("room:{id}:sockets", "set"),
    ("room:{id}:detached", "set"),
    ("room:code:{code}", "string"),
    ("session:{id}", "hash"),
    ("gateway:{id}:sockets", "set"),
];
/// The lease; its id may have colons.
const LEASE: (&str, &str) = ("gateway:{id}", "string");

/// All keys, in order.
pub fn keys(control: &mut redis::Connection) -> Vec<String> {
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(control).unwrap();
    keys.sort();
    keys
}

/// Whether the key is of what lives on without a gateway, for a window.
pub fn lives_on(key: &str) -> bool {
    let ends = [":info", ":hub", ":kicked", ":detached"];
    key.starts_with("session:") || key.starts_with("room:code:") || ends.iter().any(|end| key.ends_with(end))
}

/// Moves Redis's times to live, as if so long had passed.
pub fn skip(control: &mut redis::Connection, time: Duration) {
    let () = redis::cmd("EVAL").arg(SHIFT).arg(0).arg(time.as_millis() as u64).query(control).unwrap();
}

/// Fails if there is a key that PROTOCOLS does not know, or one without the time to live that it says.
pub fn check(control: &mut redis::Connection, window: Duration) {
    for key in keys(control) {
        let kind: String = redis::cmd("TYPE").arg(&key).query(control).unwrap();
        let left: i64 = redis::cmd("PTTL").arg(&key).query(control).unwrap();
        if kind == "none" || left == GONE {
            continue;
        }
        let row = LIST.iter().chain([&LEASE]).find(|(name, row_kind)| *row_kind == kind && matches(name, &key));
        let (name, _) = row.unwrap_or_else(|| panic!("{key}, a {kind}, is not in PROTOCOLS' list"));
        let bounds = match *name {
            "session:{id}" | "room:{id}:detached" => 1..=window.as_millis() as i64,
            "gateway:{id}" => 1..=15_000,
            "user:{id}:hub" => 1..=window.as_millis() as i64 * 3 / 2,
            "user:{id}:kicked" => 1..=window.as_millis() as i64 * 2,
            "room:code:{code}" => 1..=window.as_millis() as i64 * 5 / 4,
            "room:{id}:info" => -1..=window.as_millis() as i64 * 5 / 4,
            _ => -1..=-1,
        };
        assert!(bounds.contains(&left), "{key} lives for {left} ms");
    }
}

fn matches(name: &str, key: &str) -> bool {
    match name.split_once('{') {
        None => name == key,
        Some((head, rest)) => {
            let tail = rest.split_once('}').map_or("", |(_, tail)| tail);
            key.len() > head.len() + tail.len() && key.starts_with(head) && key.ends_with(tail)
        }
    }
}

/// What `PTTL` says of a key that went meanwhile.
const GONE: i64 = -2;

const SHIFT: &str = "
for _, key in ipairs(redis.call('KEYS', '*')) do
  local left = redis.call('PTTL', key)
  if left > 0 then
    if left > tonumber(ARGV[1]) then redis.call('PEXPIRE', key, left - ARGV[1]) else redis.call('DEL', key) end
  end
end";
