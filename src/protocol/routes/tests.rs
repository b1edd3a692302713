//! The laws of the table, each broken; lookups against a plain walk.

use super::*;
use proptest::prelude::*;

fn command(pattern: &str, d_kind: Option<u16>) -> CommandRoute {
    CommandRoute {
        pattern: pattern.into(),
        destination: Destination::Topic("t".into()),
        key: PartitionKey::User,
        require: Require::Authenticated,
        rate: Rate::per_second(1),
        payload: PayloadForm::Raw,
        d_kind,
    }
}

fn find<'a>(routes: &'a Routes, name: &str) -> Option<&'a str> {
    routes.command(name).map(|(_, row)| &*row.pattern)
}

/// The longest pattern wins; a prefix needs its dot and something behind it.
#[test]
fn the_longest_pattern_wins() {
    let rows = ["a.*", "a.b.*", "a.b.c", "a.bc"].map(|pattern| command(pattern, None));
    let routes = Routes::new(rows.to_vec(), Vec::new()).unwrap();
    for (name, pattern) in [
        ("a.b.c", Some("a.b.c")),
        ("a.b.c.d", Some("a.b.*")),
        ("a.b.d", Some("a.b.*")),
        ("a.bc", Some("a.bc")),
        ("a.bcd", Some("a.*")),
        ("a.b", Some("a.*")),
        ("a.", None),
        ("a", None),
        ("ab", None),
        ("", None),
    ] {
        assert_eq!(find(&routes, name), pattern, "{name}");
    }
}

/// A configured row replaces the compiled-in one of its pattern, others stay; new kinds are found.
#[test]
fn configured_rows_overlay_the_defaults() {
    let rows = vec![command("games.command.*", None), command("games.command.chess.move", Some(256))];
    let routes = Routes::with(rows, Vec::new()).unwrap();
    assert_eq!(routes.command("games.command.go.move").unwrap().1.payload, PayloadForm::Raw);
    assert_eq!(routes.command("games.command.join_room").unwrap().1.payload, PayloadForm::Enriched);
    assert_eq!(&*routes.command_of_kind(256).unwrap().1.pattern, "games.command.chess.move");
    assert_eq!(routes.commands().len(), Routes::default().commands().len() + 1);
}

fn delta(pattern: &str) -> EventRoute {
    EventRoute { pattern: pattern.into(), ..Routes::default().event("world.delta").unwrap().clone() }
}

fn event(pattern: &str) -> EventRoute {
    EventRoute {
        pattern: pattern.into(),
        kind: Some(PLAIN_EVENT),
        ..Routes::default().event("games.event.turn_changed").unwrap().clone()
    }
}

/// The only error of these rows, its field.
fn field(commands: &[CommandRoute], events: &[EventRoute]) -> &'static str {
    let errors = Routes::with(commands.to_vec(), events.to_vec()).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(!errors[0].problem.is_empty() && !errors[0].remedy.is_empty());
    errors[0].field
}

/// Each law of command rows is broken once and named by the field to change.
#[test]
fn breaches_of_commands_are_named() {
    for bad in ["", "*", ".*", "a*", "a.*.b", "a b", "ä"] {
        assert_eq!(field(&[command(bad, None)], &[]), "type", "{bad}");
    }
    let with = |change: &dyn Fn(&mut CommandRoute)| {
        let mut row = command("a.b", None);
        change(&mut row);
        field(&[row], &[])
    };
    let topic = |name: &str| Destination::Topic(name.into());
    assert_eq!(field(&[command("a.*", None), command("a.*", None)], &[]), "type");
    assert_eq!(field(&[command("a.*", Some(300))], &[]), "kind");
    assert_eq!(field(&[command("a", Some(300)), command("b", Some(300))], &[]), "kind");
    for kind in [0, 1, 255, 0x8000] {
        assert_eq!(with(&|row| row.d_kind = Some(kind)), "kind", "{kind}");
    }
    for name in ["", "a b", "games.events", "ringgate.dead", "gateway.presence", ".."] {
        assert_eq!(with(&|row| row.destination = topic(name)), "topic", "{name}");
    }
    assert_eq!(with(&|row| row.destination = Destination::Gateway), "answer");
    assert_eq!(with(&|row| row.destination = Destination::Relay), "require");
    assert_eq!(with(&|row| row.require = Require::None), "require");
    assert_eq!(with(&|row| row.require = Require::Member("a b".into())), "require");
    assert_eq!(with(&|row| row.require = Require::Role("".into())), "require");
    assert_eq!(with(&|row| row.key = PartitionKey::Field("player.id".into())), "key");
    for own in ["system.anything", "rooms.command.history"] {
        assert_eq!(with(&|row| row.pattern = own.into()), "type");
    }
    let relay = |row: &mut CommandRoute| {
        (row.destination, row.require) = (Destination::Relay, Require::Member("room_id".into()));
        row.d_kind = Some(300);
    };
    assert_eq!(with(&relay), "kind");
    let many: Vec<_> = (0..80)
        .map(|n| CommandRoute { destination: topic(&format!("t{n}")), ..command(&format!("a.b{n}"), None) })
        .collect();
    assert!(Routes::with(many, Vec::new()).unwrap_err().iter().all(|error| error.field == "topic"));
}

/// Each law of event rows is broken once and named by the field to change.
#[test]
fn breaches_of_events_are_named() {
    let breach = |row: EventRoute, change: &dyn Fn(&mut EventRoute)| {
        let mut row = row;
        change(&mut row);
        field(&[], &[row])
    };
    let kind = |frame_type, kind| Some(FrameKind { frame_type, kind });
    let (e, d) = (|| event("a.e"), || delta("a.d"));
    assert_eq!(breach(e(), &|row| row.coalesce = Some("id".into())), "coalesce");
    assert_eq!(breach(e(), &|row| row.kind = kind(32, 0)), "d_type");
    assert_eq!(breach(e(), &|row| row.kind = kind(3, 0)), "d_type");
    assert_eq!(breach(e(), &|row| row.kind = kind(35, 14)), "kind", "another type's");
    assert_eq!(breach(e(), &|row| row.kind = kind(35, 255)), "kind");
    assert_eq!(
        field(&[], &[EventRoute { kind: kind(35, 256), ..e() }, EventRoute { kind: kind(35, 256), ..event("a.f") }]),
        "kind"
    );
    assert_eq!(breach(e(), &|row| row.source = Source::Topic("elsewhere".into())), "topic");
    assert_eq!(breach(e(), &|row| row.effect = Some(RouteEffect::Kick)), "effect");
    assert_eq!(breach(e(), &|row| row.effect = Some(RouteEffect::Join("room_id".into()))), "effect");
    assert_eq!(breach(e(), &|row| row.effect = Some(RouteEffect::Forget("id".into()))), "effect", "no delta there");
    assert_eq!(breach(e(), &|row| row.target = Some("a.b".into())), "target");
    assert_eq!(breach(e(), &|row| (row.to, row.target) = (To::Everyone, Some("id".into()))), "target");
    assert_eq!(breach(d(), &|row| row.coalesce = None), "coalesce");
    assert_eq!(breach(d(), &|row| row.effect = Some(RouteEffect::Forget("id".into()))), "effect");
    assert_eq!(breach(d(), &|row| row.kind = kind(35, 0)), "d_type");
    assert_eq!(breach(d(), &|row| row.to = To::Session), "to");
    assert_eq!(breach(d(), &|row| row.target = Some("room_id".into())), "target");
    let forget = Some(RouteEffect::Forget("entity_id".into()));
    let despawn = EventRoute { source: Source::Relay, effect: forget, ..event("world.despawn") };
    assert!(Routes::with(Vec::new(), vec![despawn.clone()]).is_ok());
    assert_eq!(breach(despawn.clone(), &|row| row.kind = None), "d_type");
    let mut joins = despawn;
    (joins.effect, joins.to) = (Some(RouteEffect::Join("room_id".into())), To::Session);
    let errors = Routes::with(Vec::new(), vec![joins]).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.field).collect::<Vec<_>>(), ["to", "effect"], "all at once");
}

fn relay(pattern: &str) -> CommandRoute {
    let require = Require::Member("lobby_id".into());
    CommandRoute { destination: Destination::Relay, require, ..command(pattern, None) }
}

/// A relayed command has the class of the relay's event row of its type, else it is reliable; other commands are not
/// relayed, and an event row that the class would be lost in is refused.
#[test]
fn relayed_commands_have_the_class_of_their_event() {
    let despawn = EventRoute {
        source: Source::Relay,
        effect: Some(RouteEffect::Forget("entity_id".into())),
        kind: Some(FrameKind { frame_type: 35, kind: 300 }),
        ..event("party.despawn")
    };
    let routes = Routes::with(vec![relay("party.*")], vec![delta("party.position"), despawn]).unwrap();
    let plain = Relayed { room: "lobby_id", class: Class::Reliable, coalesce: None, forget: None, kind: PLAIN_EVENT };
    assert_eq!(routes.relayed("party.emote"), Some(plain));
    let position = routes.relayed("party.position").unwrap();
    assert_eq!((position.class, position.coalesce, position.kind.frame_type), (Class::Delta, Some("entity_id"), 32));
    let despawn = routes.relayed("party.despawn").unwrap();
    assert_eq!((despawn.class, despawn.forget, despawn.kind.kind), (Class::Reliable, Some("entity_id"), 300));
    assert_eq!(routes.relayed("games.command.chess.move"), None);
    assert_eq!(routes.relayed("nobody.knows"), None);
    assert_eq!(field(&[relay("party.*")], &[event("party.position")]), "topic");
}

/// A row keeps its name in another table, whatever comes before it, and no other row has it.
#[test]
fn rows_keep_their_names_across_tables() {
    let (before, after) = (Routes::default(), Routes::with(vec![command("a.b", None)], Vec::new()).unwrap());
    let name = |routes: &Routes, of: &str| routes.command(of).unwrap().0;
    for row in before.commands() {
        assert_eq!(name(&before, &row.pattern), name(&after, &row.pattern));
    }
    let names: std::collections::HashSet<_> = after.commands().iter().map(|row| name(&after, &row.pattern)).collect();
    assert_eq!(names.len(), after.commands().len());
}

proptest! {
    /// Lookups agree with a walk over all rows that takes the longest match.
    #[test]
    fn lookups_agree_with_a_walk(name in "(games|chat|system|rooms|x)(\\.(command|event))?(\\.[a-z_]{0,12}){0,2}") {
        let routes = Routes::default();
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
            None => pattern == name,
        };
        let patterns = routes.commands().iter().map(|row| &*row.pattern);
        prop_assert_eq!(find(&routes, &name), patterns.filter(|p| matches(p)).max_by_key(|p| (!p.ends_with('*'), p.len())));
        let patterns = routes.events().iter().map(|row| &*row.pattern);
        let expected = patterns.filter(|p| matches(p)).max_by_key(|p| (!p.ends_with('*'), p.len()));
        prop_assert_eq!(routes.event(&name).map(|row| &*row.pattern), expected);
    }
}
