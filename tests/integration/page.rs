//! Dev mode's page: the start line's URL, the files it loads, tokens for guests, and nobody else's.

use ringgate::page::ASSETS;
use serde_json::Value;

use crate::json::Json;
use crate::node::{DRIVERS, Gateway, command, on_each_driver};
use crate::raw::{Raw, request};

/// A gateway that made its key up.
fn dev(driver: &str) -> Gateway {
    let mut command = command(&["--dev", "--driver", driver]);
    command.env_remove("JWT_SECRET");
    Gateway::spawn(command)
}

/// An ordinary request: status, head, body.
fn get(gateway: &Gateway, method: &str, target: &str, changes: &[(&str, &str)]) -> (u16, String, Vec<u8>) {
    let mut raw = Raw::connect(gateway);
    let host = gateway.address.to_string();
    let mut fields = vec![("Host", &*host), ("Upgrade", "-"), ("Connection", "-")];
    fields.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    fields.extend(changes);
    raw.write(request(target, &fields).replacen("GET", method, 1).as_bytes());
    let (status, head) = raw.response();
    (status, head, raw.rest())
}

/// Every file of the page comes whole with its type and the headers that fence it in, many at once; HEAD gives the head
/// alone; what is not there is not found.
#[test]
fn the_page_is_served() {
    on_each_driver(&["--dev"], |gateway| {
        let gateway = &*gateway;
        std::thread::scope(|scope| {
            for asset in ASSETS {
                scope.spawn(move || {
                    let (status, head, body) = get(gateway, "GET", asset.path, &[]);
                    assert_eq!(status, 200, "{}", asset.path);
                    assert!(body == asset.body, "{}", asset.path);
                    for field in [
                        &*format!("Content-Type: {}", asset.content_type),
                        &*format!("Content-Length: {}", asset.body.len()),
                        "Connection: close",
                        "Cache-Control: no-cache",
                        "X-Content-Type-Options: nosniff",
                        "Content-Security-Policy: default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; \
                         frame-ancestors 'none'; form-action 'self'",
                    ] {
                        assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} in {head}");
                    }
                    let (status, only, body) = get(gateway, "HEAD", asset.path, &[]);
                    assert_eq!((status, only, body), (200, head, Vec::new()));
                });
            }
        });
        for (method, target, status) in [
            ("GET", "/?version=2", 200),
            ("GET", "/app/", 404),
            ("GET", "/app/../app.js", 404),
            ("GET", "/mod.rs", 404),
            ("GET", "/nowhere", 404),
            ("HEAD", "/nowhere", 405),
            ("POST", "/", 405),
            ("GET", "/dev/token?name=Ann", 404),
        ] {
            assert_eq!(get(gateway, method, target, &[]).0, status, "{method} {target}");
        }
    });
    on_each_driver(&[], |gateway| {
        for path in ["/", "/app.js", "/dev/token?name=Ann"] {
            assert_eq!(get(gateway, "GET", path, &[]).0, 404, "{path} outside dev mode");
        }
    });
}

/// The start line's URL carries a token that the gateway takes; a guest's token is for the name that it was asked for,
/// the same name is the same user, and a guest is no publisher.
#[test]
fn guests_get_tokens() {
    for driver in DRIVERS {
        let mut gateway = dev(driver);
        let line = gateway.line_with("open in a browser:");
        let (url, token) = line.split_once("#token=").unwrap();
        assert!(url.ends_with(&format!("http://{}/", gateway.address)), "{line}");
        assert_eq!(Json::with_token(&gateway, token).session["user_id"], "player");

        let guest = |name: &str| {
            let (status, head, body) = get(&gateway, "GET", &format!("/dev/token?name={name}"), &[]);
            assert_eq!(status, 200, "{name}");
            assert!(head.contains("\r\nCache-Control: no-store\r\n"), "{head}");
            assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        let ann = guest("Ann%20O%27Neill");
        let user = &ann["user_id"];
        assert_eq!(guest("+Ann+O'Neill+")["user_id"], *user);
        assert_ne!(guest("Bob")["user_id"], *user);
        guest(&"%C3%B6".repeat(32));
        let session = Json::with_token(&gateway, ann["token"].as_str().unwrap()).session;
        assert_eq!(session["user_id"], *user);
        assert_eq!(session["username"], "Ann O'Neill");
        assert_eq!(session["roles"], serde_json::json!(["user"]));
    }
}

/// No token is made for a name that is none, for another origin's page, or for a domain that was pointed here.
#[test]
fn strangers_get_no_token() {
    for driver in DRIVERS {
        let gateway = dev(driver);
        let own = gateway.address.to_string();
        let origin = format!("http://{own}");
        for (target, fields, status) in [
            ("", &[][..], 400),
            ("?name=", &[], 400),
            ("?name=%20%20", &[], 400),
            ("?name=a%0Ab", &[], 400),
            ("?name=%FF", &[], 400),
            ("?name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &[], 400),
            ("?name=a", &[("Origin", &*origin)], 200),
            ("?name=a", &[("Origin", "http://localhost:5173")], 200),
            ("?name=a", &[("Origin", "https://evil.example")], 403),
            ("?name=a", &[("Origin", "null")], 403),
            ("?name=a", &[("Host", "evil.example:9998")], 403),
            ("?name=a", &[("Host", "evil.example"), ("Origin", "http://evil.example")], 403),
            ("?name=a", &[("Host", "localhost:9998")], 200),
        ] {
            let (answered, _, body) = get(&gateway, "GET", &format!("/dev/token{target}"), fields);
            let text = String::from_utf8(body).unwrap();
            assert_eq!(answered, status, "{target} {fields:?}: {text}");
            assert_eq!(text.contains("token\":"), status == 200, "{text}");
        }
    }
}
