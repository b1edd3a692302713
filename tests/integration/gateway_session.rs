//! Dialect A, the way in: `system.authenticate`, header and query, refresh and expiry, resume.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringgate::auth::Grant;
use ringgate::id::StreamHandle;
use ringgate::message::ErrorCode;
use ringgate::protocol::frames::types;
use serde_json::{Value, json};

use crate::client::{Client, EVENT};
use crate::json::Json;
use crate::node::{DRIVERS, Gateway, on_each_driver, signer, token, until};
use crate::raw::reset;

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of `sub` that ends `left_s` from now.
fn ending(sub: &str, left_s: u64) -> String {
    signer().mint(&Grant { sub, exp: Some(now_s() + left_s), ..Grant::default() })
}

/// The welcome says who, when and how durable; the three ways to bring a token lead to the same answer.
#[test]
fn three_ways_lead_in() {
    on_each_driver(&[], |gateway| {
        let grant = Grant { sub: "42", username: Some("ann"), roles: &["user", "vip"], ..Grant::default() };
        let token = signer().mint(&grant);
        let by_message = Json::with_token(gateway, &token);
        let by_header = brought(Json::open_with(gateway, "", Some(&format!("Bearer {token}"))));
        let by_query = brought(Json::open_with(gateway, &format!("?token={token}"), None));
        for client in [&by_message, &by_header, &by_query] {
            let (welcome, session) = (&client.welcome, &client.session);
            assert_eq!(welcome["durability"], "memory");
            assert_eq!(welcome["connection_id"].as_str().unwrap().len(), 36);
            let timestamp = welcome["timestamp"].as_str().unwrap();
            assert!(timestamp.ends_with('Z') && timestamp.contains('T'), "{timestamp}");
            assert_eq!(session["user_id"], "42");
            assert_eq!(session["username"], "ann");
            assert_eq!(session["roles"], json!(["user", "vip"]));
            assert_eq!(session["recovered"], false);
            assert_eq!(session["rooms"], json!([]));
            assert_eq!(session["session_id"].as_str().unwrap().len(), 36);
            assert_eq!(session["resume"].as_str().unwrap().len(), 22);
            assert!(session.get("reason").is_none() && session.get("last_close").is_none(), "{session}");
        }
        assert_ne!(by_header.welcome["connection_id"], by_query.welcome["connection_id"]);
        assert_ne!(by_header.session["session_id"], by_query.session["session_id"]);
    });
}

/// A client that brought its token with the upgrade.
fn brought(mut client: Json) -> Json {
    client.authenticated();
    client
}

/// Three failures close 4401, each answered `auth_failed` with its correlation id; a failure in the upgrade request
/// counts; a good token after two bad ones is welcome.
#[test]
fn three_bad_tokens_close() {
    on_each_driver(&[], |gateway| {
        let bad = json!({"type": "system.authenticate", "token": "a.b.c", "correlation_id": "c1"});
        let failed = ("auth_failed".to_owned(), Some("c1".to_owned()));
        let attempt = |client: &mut Json| {
            client.send(&bad);
            let (code, _, correlation_id) = client.error();
            assert_eq!((code, correlation_id), failed);
        };
        let mut client = Json::open(gateway);
        (0..3).for_each(|_| attempt(&mut client));
        assert_eq!(client.closed(), (4401, "unauthorized".into()));

        let mut client = Json::open_with(gateway, "?token=nonsense", None);
        assert_eq!(client.error().0, "auth_failed");
        (0..2).for_each(|_| attempt(&mut client));
        assert_eq!(client.closed(), (4401, "unauthorized".into()));

        let mut client = Json::open(gateway);
        attempt(&mut client);
        client.send(&json!({"type": "system.authenticate"}));
        assert_eq!(client.error().0, "auth_failed");
        client.authenticate(&json!({"token": token("bob", &[])}));
        client.is_alive();
        gateway.closes("unauthorized")
    });
}

/// Before authentication a command and a credit are `not_authenticated`, a heartbeat is answered, and who says nothing
/// is closed 4401 when its time is over.
#[test]
fn strangers_may_only_authenticate() {
    on_each_driver(&["--authentication-ms", "1500"], |gateway| {
        let mut client = Json::open(gateway);
        client.is_alive();
        for message in [
            json!({"type": "games.command.list_rooms", "correlation_id": 7}),
            json!({"type": "no.such.type", "correlation_id": "7"}),
        ] {
            client.send(&message);
            let (code, text, correlation_id) = client.error();
            assert_eq!((&*code, correlation_id.as_deref()), ("not_authenticated", Some("7")));
            assert!(text.contains("system.authenticate"), "{text}");
        }
        client.send(&json!({"type": "system.delta_ack", "count": 0}));
        assert_eq!(client.error().0, "not_authenticated");
        assert_eq!(client.closed(), (4401, "authentication timeout".into()));
        gateway.closes("authentication_timeout")
    });
}

/// A heartbeat is acknowledged with the time, and keeps a connection from being idle.
#[test]
fn heartbeats_keep_a_connection() {
    on_each_driver(&["--idle-ms", "600", "--ping-ms", "250"], |gateway| {
        let mut silent = Json::player(gateway, "silent");
        let mut client = Json::player(gateway, "bob");
        client.send(&json!({"type": "system.heartbeat"}));
        let first = client.expect("system.heartbeat_ack");
        assert!(first["timestamp"].as_str().unwrap().ends_with('Z'), "{first}");
        until("the silent one is closed", || {
            client.is_alive();
            gateway.closes("idle_timeout") == 1
        });
        client.is_alive();
        assert_eq!(silent.closed(), (4410, "idle_timeout".into()));
        gateway.closes("idle_timeout")
    });
}

/// A new token on a living connection keeps it beyond the old one's end; another user's, a broken one and none are
/// refused and change nothing; without a new token it closes 4401 half a minute behind `exp`, not before.
#[test]
fn tokens_are_refreshed_or_expire() {
    let live = |driver: &str| {
        let gateway = Gateway::start(&["--driver", driver]);
        let left_s = 2;
        let exp = now_s() + left_s;
        let mut refreshed = Json::with_token(&gateway, &ending("bob", left_s));
        let mut refused = Json::with_token(&gateway, &ending("cat", left_s));
        let late = Duration::from_secs(45);
        for client in [&mut refreshed, &mut refused] {
            client.stream().set_read_timeout(Some(late)).unwrap();
        }
        let refresh = |client: &mut Json, fields: Value| {
            let mut message = json!({"type": "system.authenticate", "correlation_id": "r"});
            message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            client.send(&message);
        };
        for (fields, code) in [
            (json!({"token": token("bob", &[])}), "auth_failed"),
            (json!({"token": "a.b.c"}), "auth_failed"),
            (json!({}), "bad_request"),
        ] {
            refresh(&mut refused, fields);
            let (answered, _, correlation_id) = refused.error();
            assert_eq!((&*answered, correlation_id.as_deref()), (code, Some("r")));
        }
        let session = refreshed.session["session_id"].clone();
        refresh(
            &mut refreshed,
            json!({"token": signer().mint(&Grant {
                sub: "bob", roles: &["vip"], exp: Some(exp + 3600), ..Grant::default()
            })}),
        );
        refreshed.authenticated();
        assert_eq!(refreshed.session["session_id"], session);
        assert_eq!(refreshed.session["roles"], json!(["vip"]));
        assert_eq!(refreshed.session["recovered"], true);
        assert!(refreshed.session.get("resume").is_none(), "{}", refreshed.session);
        assert_eq!(refreshed.expect("system.ack")["correlation_id"], "r");
        assert_eq!(refused.closed(), (4401, "token expired".into()));
        assert!((exp + 30..exp + 40).contains(&now_s()), "closed at {}, exp {exp}", now_s());
        refreshed.is_alive();
        assert_eq!(gateway.closes("token_expired"), 1);
    };
    thread::scope(|scope| DRIVERS.map(|driver| scope.spawn(move || live(driver))).map(|live| live.join().unwrap()));
}

/// A refresh that takes the role publisher away, or gives it, ends the connection, and the resume is the new token's:
/// who lost the role publishes nothing and receives no player's command.
#[test]
fn a_refresh_may_change_who_publishes() {
    on_each_driver(&[], |gateway| {
        let mut server = Client::publisher(gateway, "server");
        let relay = server.join("arena")[0];
        let mut player = Client::player(gateway, "bob");
        player.join("arena");
        for (roles, code) in [(&[][..], ErrorCode::Forbidden), (&["publisher"], ErrorCode::BadRequest)] {
            let mut live = Json::resumed(gateway, &server.resume, &json!({}));
            live.send(&json!({"type": "system.authenticate", "token": token("server", roles)}));
            live.expect("system.authenticated");
            assert_eq!(live.closed(), (1013, "the role publisher has changed; resume".into()));
            server = Client::resumed(gateway, &server.resume, Vec::new());
            server.publish(EVENT, StreamHandle(99), 1, b"{}");
            assert_eq!(server.expect(types::ERROR).header.kind, code.index());
            player.command(0x8001, relay, 5, b"jump");
            let heard = if roles.is_empty() { types::ERROR } else { types::ACK };
            assert_eq!(player.expect(heard).header.number, 5);
        }
        server.expect(types::PLAYER_COMMAND);
    });
}

/// Of three bad refreshes within a while the third ends the connection.
#[test]
fn bad_refreshes_are_counted() {
    on_each_driver(&[], |gateway| {
        let mut client = Json::player(gateway, "bob");
        for _ in 0..3 {
            client.send(&json!({"type": "system.authenticate", "token": "a.b.c"}));
            assert_eq!(client.error().0, "auth_failed");
        }
        assert_eq!(client.closed(), (4401, "unauthorized".into()));
        gateway.closes("unauthorized")
    });
}

/// A member that is reset again and again, and comes back on whatever shard, gets every event once and in order.
#[test]
fn resets_lose_and_double_nothing() {
    const EVENTS: u64 = 300;
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Json::member(gateway, "bob", "arena");
        let publishing = thread::spawn(move || {
            for n in 1..=EVENTS {
                publisher.publish(EVENT, relay, n, format!("{{\"type\":\"test.event\",\"n\":{n}}}").as_bytes());
                while n % 10 == 0 && publisher.expect(types::ACK).header.number != n {}
            }
        });
        let (mut n, mut resumes, mut shards) = (0, 0, std::collections::BTreeSet::new());
        while n < EVENTS {
            let until = EVENTS.min(n + 20);
            while n < until {
                n += 1;
                assert_eq!(member.expect("test.event")["n"], n);
            }
            let (resume, positions) = (member.resume(), member.positions());
            reset(member.stream());
            drop(member);
            member = Json::resumed(gateway, &resume, &positions);
            assert_eq!(member.session["recovered"], true, "{}", member.session);
            assert_eq!(member.session["rooms"], json!(["arena"]));
            // The reset and the newcomer race to their shards.
            let reason = &member.session["last_close"]["reason"];
            assert!(reason == "connection lost" || reason == "replaced", "{reason}");
            resumes += 1;
            // The last 64 bits of a connection's id begin with its shard.
            let id = member.welcome["connection_id"].as_str().unwrap();
            shards.insert(id.replace('-', "")[16..18].to_owned());
        }
        publishing.join().unwrap();
        assert_eq!(shards.len(), 2, "{resumes} resumes on {shards:?}");
        (n, resumes)
    });
}

/// `?resume=`: the first message brings the positions; who resumes takes over, and the former connection closes 4409.
#[test]
fn a_resume_in_the_query_takes_over() {
    on_each_driver(&[], |gateway| {
        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut former = Json::member(gateway, "bob", "arena");
        publisher.publish(EVENT, relay, 0, br#"{"type":"test.event","n":1}"#);
        former.expect("test.event");
        let mut client = Json::open_with(gateway, &format!("?resume={}", former.resume()), None);
        client.authenticate(&json!({"positions": former.positions()}));
        assert_eq!(client.session["recovered"], true, "{}", client.session);
        assert_eq!(client.session["session_id"], former.session["session_id"]);
        assert_eq!(former.closed(), (4409, "replaced".into()));
        publisher.publish(EVENT, relay, 0, br#"{"type":"test.event","n":2}"#);
        assert_eq!(client.expect("test.event")["n"], 2);
        client.reliable
    });
}

/// A resume that finds no session is a new one that says so if a token comes with it, else `auth_failed`; a position of
/// another numbering is not recovered, with its reason and the streams that are lost.
#[test]
fn a_lost_session_is_told() {
    on_each_driver(&[], |gateway| {
        let bob = token("bob", &[]);
        let mut client = Json::open(gateway);
        client.send(&json!({"type": "system.authenticate", "resume": "AAAAAAAAAAAAAAAAAAAAAA"}));
        assert_eq!(client.error().0, "auth_failed");
        client.authenticate(&json!({"resume": "AAAAAAAAAAAAAAAAAAAAAA", "token": bob}));
        assert_eq!((&client.session["recovered"], &client.session["reason"]), (&json!(false), &json!("expired")));

        let mut publisher = Client::publisher(gateway, "server");
        let relay = publisher.join("arena")[0];
        let mut member = Json::member(gateway, "bob", "arena");
        publisher.publish(EVENT, relay, 0, br#"{"type":"test.event"}"#);
        member.expect("test.event");
        let mut positions = member.positions();
        let name = "relay/room:arena";
        // Of another epoch than the entry: the room starts anew there. That an epoch ends is tested in `restart`.
        positions[name]["epoch"] = 1.into();
        let mut client = Json::resumed(gateway, &member.resume(), &positions);
        assert_eq!(client.session["recovered"], true);
        assert_eq!(client.session["rooms"], json!(["arena"]));
        let told = client.expect("system.position");
        assert_eq!((&told["recovered"], &told["reason"]), (&json!(false), &json!("entered_later")));
        assert_eq!((&told["streams"][0]["stream"], &told["streams"][0]["offset"]), (&json!(name), &json!(0)));
        client.expect("test.event");

        let mut thief = Json::open(gateway);
        let stolen = json!({"type": "system.authenticate", "resume": client.resume(), "token": token("eve", &[])});
        thief.send(&stolen);
        assert_eq!(thief.error().0, "auth_failed");
    });
}

/// A session that is resumed with a new token has that token's rights from then on, also when it comes back without one.
#[test]
fn a_resume_with_a_new_token_renews_the_session() {
    on_each_driver(&[], |gateway| {
        let grant = Grant { sub: "bob", roles: &["vip"], exp: Some(now_s() + 60), ..Grant::default() };
        let first = Json::with_token(gateway, &signer().mint(&grant));
        let mut client = Json::open(gateway);
        client.authenticate(&json!({"resume": first.resume(), "token": token("bob", &["user"])}));
        assert_eq!(client.session["roles"], json!(["user"]));
        let again = Json::resumed(gateway, &first.resume(), &json!({}));
        assert_eq!(again.session["session_id"], first.session["session_id"]);
        assert_eq!(again.session["roles"], json!(["user"]));
    });
}

/// Good tokens are checked at a bounded rate too; what is beyond it is refused and changes nothing.
#[test]
fn refreshes_are_rate_limited() {
    on_each_driver(&["--moves-per-second", "5"], |gateway| {
        let mut client = Json::player(gateway, "bob");
        let refresh = json!({"type": "system.authenticate", "token": token("bob", &[]), "correlation_id": "r"});
        let mut refused = 0;
        for _ in 0..100 {
            client.send(&refresh);
            let answer = client.read();
            match answer["code"].as_str() {
                Some(code) => {
                    assert_eq!((code, &answer["correlation_id"]), ("rate_limited", &json!("r")));
                    refused += 1;
                }
                None => drop(client.expect("system.ack")),
            }
        }
        assert!(refused > 0);
        client.is_alive();
    });
}
