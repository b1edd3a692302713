//! Every bound of the system: its unit, its reason, and the relations that must hold between them.
//! A value that operators may change is the default of a configuration key; the rest are fixed here.

use std::time::Duration;

/// Shards of one node; a shard set is one 64-bit word.
pub const SHARDS_MAX: usize = 64;
/// Bytes of a room id (PROTOCOLS D).
pub const ROOM_ID_BYTES_MAX: usize = 64;
/// Bytes of a user id or user name; they are kept per session and copied into envelopes.
pub const USER_ID_BYTES_MAX: usize = 256;

/// Brackets that a JSON text may have open at once where a parser descends into it, once per bracket: whoever wrote the
/// text must not choose the depth of a stack. Ours need 4.
pub const JSON_DEPTH_MAX: usize = 32;

/// Whether a text has more than [`JSON_DEPTH_MAX`]. Follows strings as simd-json's first stage does, which takes a backslash
/// outside of strings for an escape too.
#[must_use]
pub fn is_deep_json(text: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    text.iter().any(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > JSON_DEPTH_MAX
    })
}

/// Bytes of a JWT: no longer than a request head that carries it.
pub const TOKEN_BYTES_MAX: usize = HANDSHAKE_BYTES;
/// Bytes of a set of token keys: a set of the most keys, with certificates beside them, has less.
pub const KEY_SET_BYTES_MAX: usize = 512 * 1024;
/// How long reading a set of token keys may take, the lookup of its host included.
pub const KEY_SET_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a set is read again, by default: providers show a new key for hours before they sign with it.
pub const KEY_SET_INTERVAL: Duration = Duration::from_secs(300);
/// How soon a set that could not be read is tried again.
pub const KEY_SET_RETRY: Duration = Duration::from_secs(10);
/// After a reading that a stranger's token caused, none causes another for so long.
pub const KEY_WISH_REST: Duration = Duration::from_secs(10);
/// Keys of a set that are used; providers rotate among a handful.
pub const KEY_SET_KEYS_MAX: usize = 64;
/// Roles of a token; they are kept per session and copied into envelopes.
pub const ROLES_MAX: usize = 32;

/// Reliable frames that may wait for a slow connection (D4).
pub const QUEUE_FRAMES: usize = 256;
/// Bytes, reliable and delta, that may wait for a slow connection (D4).
pub const QUEUE_BYTES: usize = 1 << 20;
/// How long the oldest reliable frame may wait for a slow connection (D4).
pub const QUEUE_AGE: Duration = Duration::from_secs(10);
/// Keys that may wait in a slow connection's delta ring (DELIVERY §3).
pub const DELTA_KEYS: usize = 1024;
/// Bytes of the delta ring: half the queue, so that deltas never crowd out reliable frames.
pub const DELTA_BYTES: usize = QUEUE_BYTES / 2;
/// Answers that may wait before the connection's reading pauses (D7).
pub const ANSWER_FRAMES: usize = 64;
/// Bytes of answers that may wait before the connection's reading pauses (D7).
pub const ANSWER_BYTES: usize = 256 << 10;

/// Reliable frames a stream's history keeps (DELIVERY §4).
pub const HISTORY_EVENTS: usize = 1024;
/// Bytes a stream's history keeps.
pub const HISTORY_BYTES: usize = 1 << 20;
/// Bytes all histories of a shard keep together; beyond it the longest idle go first.
pub const HISTORY_TOTAL_BYTES: usize = 256 << 20;
/// Streams of users and sessions that a shard keeps, some 650 B each and their frames; beyond it the longest idle go, so
/// that a storm of short sessions, each with an answer of a service, cannot fill memory (120 MiB with what is remembered
/// of those that went).
pub const OWN_STREAMS: usize = 1 << 17;
/// Newest delta values a home keeps per stream.
pub const HOME_DELTA_KEYS: usize = 4096;
/// Bytes of them per stream: whoever joins gets a copy of them all.
pub const HOME_DELTA_BYTES: usize = 4 << 20;
/// Messages of one connection that cannot be read, within [`FAULTS_TIME`]: this one closes it (PROTOCOLS).
pub const FAULTS: usize = 3;
/// See [`FAULTS`].
pub const FAULTS_TIME: Duration = Duration::from_secs(10);
/// Bytes of user ids and names in an answer about a room's members: some hundreds of them.
pub const MEMBERS_ANSWER_BYTES: usize = 40 << 10;
/// Questions of one connection about rooms' members that wait for an answer; more are refused.
pub const LOOKS_WAITING: usize = 8;
/// Commands of one connection that wait for the bus's answer; more are refused.
pub const COMMANDS_UNANSWERED: usize = 256;
/// User ids in an event's `only` or `except`: a large room's worth; more is a fault of the backend.
pub const AUDIENCE_IDS: usize = 1_024;
/// How long a home keeps a key's newest value.
pub const HOME_DELTA_AGE: Duration = Duration::from_secs(60);

/// How long a session outlives its connection.
pub const RESUME_WINDOW: Duration = Duration::from_secs(300);
/// A connection without message, heartbeat or pong for this long is closed 4410.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the server pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// From accept to the end of the upgrade request.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the upgrade to a successful HELLO.
pub const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one address and shard that have not authenticated. A reconnect storm behind one NAT must pass, so it is
/// no less than the storm of DESIGN §10; one host cannot take all places of a larger node.
pub const NEWCOMERS: u32 = 16_384;
/// HELLOs with a bad token before the connection is closed 4401.
pub const AUTHENTICATION_ATTEMPTS: u8 = 3;
/// From `SHUT_WR` to the hard close.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Grace behind a token's `exp` before 4401.
pub const TOKEN_GRACE: Duration = Duration::from_secs(30);
/// From SIGTERM to the end of the process.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a paused publisher waits before its command is refused or it is closed 1013 (DELIVERY §5).
pub const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Input kept for a paused publisher (DELIVERY §5).
pub const STASH_BYTES: usize = 64 << 10;
/// What the stashes of a shard may hold beyond `STASH_BYTES` each, together: what one wait brings behind a pause has
/// been sent before its client could know of it, so it must close nobody. Three times the receive buffers of a driver,
/// 1.1 MiB; clients that do not read get nothing of it.
pub const STASH_RESERVE_BYTES: usize = 4 << 20;

/// A client's message, all dialects; above it 1009.
pub const MAX_FRAME: usize = 64 << 10;
/// The upgrade request's head; above it 431, a longer request line 414.
pub const HANDSHAKE_BYTES: usize = 8 << 10;
/// Headers of an upgrade request; above it 431.
pub const HANDSHAKE_HEADERS: usize = 64;
/// Rooms of one session.
pub const ROOMS_MAX: usize = 64;
/// JOINs and LEAVEs of one connection, together: each makes its home seal a stream and presence write a record, and no
/// person changes rooms that fast.
pub const MOVES_PER_SECOND: u32 = 20;
/// COMMANDs to a room's publishers (dialect D, kind >= 0x8000) of one connection: input at 60 Hz three times over. Each
/// is a reliable frame, and a room's game servers must not be closed 4408 for what one player sends.
pub const PLAYER_COMMANDS_PER_SECOND: u32 = 200;
/// Positions a client may send with HELLO: every stream of every room it may have, and its own.
pub const POSITIONS_MAX: usize = 1024;
/// Payload of dialect D's PING.
pub const PING_BYTES: usize = 125;

/// A home seals a stream's pending frames when they reach this, however long the tick still runs.
pub const BATCH_BYTES: usize = 256 << 10;
/// Messages of one ring between two nodes of the mesh.
pub const RING_SLOTS: usize = 1024;
/// Messages an outbox holds behind a full ring before the sender stops taking input from its source.
pub const OUTBOX_MESSAGES: usize = 256;
/// JWT verification per tick (DESIGN §10, reconnect storm).
pub const VERIFY_BUDGET: Duration = Duration::from_millis(2);
/// Descriptors left for listeners, rings, logs and the admin side.
pub const RESERVED_DESCRIPTORS: u64 = 64;
/// Backlog the kernel hides per connection (`TCP_NOTSENT_LOWAT`), bytes.
pub const NOTSENT_LOWAT: u32 = 16 << 10;

/// Connections of the admin port; more wait in the kernel's backlog.
pub const ADMIN_CONNECTIONS: u32 = 64;
/// A request's head on the admin port; above it 431.
pub const ADMIN_HEAD_BYTES: usize = 16 << 10;
/// Headers of a request on the admin port; above it 431.
pub const ADMIN_HEADERS: usize = 64;
/// The life of an admin connection, one request: slow clients keep neither a place nor memory.
pub const ADMIN_REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a stopping admin side waits for answers under way; within the drain timeout.
pub const ADMIN_STOP_TIME: Duration = Duration::from_secs(1);
/// A body of the server API; above it 413. A batch of events, or one of the largest with room for its envelope.
pub const API_BODY_BYTES: usize = 1 << 20;
/// Events of one batch; above it 413, since each takes a line of the answer.
pub const API_EVENTS: usize = 1024;
/// Events of one batch that are on their way to the bus at once.
pub const API_EVENTS_UNDER_WAY: usize = 32;
/// Questions of the server API that shards and peers have not answered; fewer than a ring and its outbox hold, so that
/// answers never make a shard pause.
pub const API_CALLS: usize = 128;
/// How long a question may stay unanswered; then 503.
pub const API_CALL_TIME: Duration = Duration::from_secs(5);
/// Log streams at once; they keep their admin connection, the others stay for short requests.
pub const API_STREAMS: usize = 16;
/// How long a log stream's reader may take nothing before it is cut off.
pub const API_STREAM_STALL: Duration = Duration::from_secs(30);
/// Silence of a log stream after which a heartbeat is sent, milliseconds.
pub const API_HEARTBEAT_MS: u64 = 15_000;
/// About this many bytes of a log stream are made at a time, and only when its reader has taken the ones before.
pub const API_CHUNK_BYTES: usize = 64 << 10;
/// Records of a topic that a log stream looks at at a time.
pub const API_CHUNK_RECORDS: usize = 64;
/// Connections that one answer lists.
pub const API_CONNECTIONS: usize = 1000;
/// Members of a room that one answer lists.
pub const API_MEMBERS: usize = 10_000;
/// Frames of a stream's history in one answer; its bytes are bounded by `HISTORY_BYTES`.
pub const API_HISTORY_FRAMES: usize = 1000;
/// Wrong keys that an address may try at once; one more every `API_GUESS_INTERVAL`. Beyond it 429.
pub const API_GUESSES: u32 = 10;
/// See `API_GUESSES`.
pub const API_GUESS_INTERVAL: Duration = Duration::from_secs(6);
/// Addresses whose wrong keys are counted; beyond it the one that was quiet for longest is forgotten.
pub const API_ADDRESSES: usize = 1024;
/// Bytes of an API key, at least: what cannot be guessed at any rate the port allows.
pub const API_KEY_BYTES_MIN: usize = 16;
/// Bytes of an API key, at most.
pub const API_KEY_BYTES_MAX: usize = 256;
/// Bytes of an `idempotency_key`.
pub const IDEMPOTENCY_KEY_BYTES: usize = 256;
/// Session records that embedded presence looks at for one answer about a room: well below a millisecond.
pub const PRESENCE_LOOK: usize = 4096;
/// Sessions without a connection that embedded presence keeps; beyond it the longest detached expire early, so that a
/// storm of short connections cannot fill memory (about 100 MiB).
pub const DETACHED_SESSIONS: usize = 1 << 18;
/// Requests whose records embedded presence writes in one transaction: a storm costs few of them, and nobody waits long
/// for the others of a group.
pub const PRESENCE_GROUP: usize = 256;
/// Expired session records that embedded presence removes from its store at a time: some milliseconds.
pub const PRESENCE_SWEEP: usize = 1024;
/// How long a resume waits for a living former owner to stop (DELIVERY §6).
pub const TAKEOVER_WAIT: Duration = Duration::from_secs(1);
/// A gateway's lease in Redis (PROTOCOLS "Redis keys"); when it has run out, others reap what the gateway left.
pub const GATEWAY_LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed: two renewals may be lost.
pub const GATEWAY_RENEWAL: Duration = Duration::from_secs(5);
/// How long Redis may take to answer or to be connected to; then it is away, and whoever waits is told.
pub const REDIS_TIMEOUT: Duration = Duration::from_secs(3);
/// The first pause before Redis is connected to again; each is twice the one before.
pub const REDIS_RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest of these pauses.
pub const REDIS_RETRY_MAX: Duration = Duration::from_secs(2);
/// Calls that may wait for Redis: one each of a storm's newcomers, and what is said of sessions.
pub const REDIS_CALLS: usize = 2 * NEWCOMERS as usize;
/// Calls that are sent in one piece.
pub const REDIS_PIPELINE: usize = 256;
/// Writes of sessions on their way to Redis; those beyond wait as state, so that a newer one takes an older one's place.
pub const REDIS_WRITES: usize = 1024;
/// Notices of Redis that wait for presence; then reading them pauses, and at last Redis closes the connection.
pub const REDIS_NOTICES: usize = 4096;

/// Records an embedded topic keeps in memory: a minute of 1,000 events/s. A reader may lag by half of it.
pub const BUS_TOPIC_RECORDS: usize = 65_536;
/// Bytes an embedded topic keeps in memory, keys and values: 1 KiB for each of its records.
pub const BUS_TOPIC_BYTES: usize = 64 << 20;
/// Records of `gateway.presence` an embedded bus keeps, about 1 MiB; what does not fit waits as state.
pub const PRESENCE_TOPIC_RECORDS: usize = 2048;
/// Topics of an embedded bus: the built-in ones and those that the type table names.
pub const BUS_TOPICS: usize = 64;
/// Records a peer or worker takes from a topic per turn, so that it comes back to its mailbox.
pub const BUS_READ_RECORDS: usize = 256;
/// Appends of one thread that may be on their way to the bus; then it takes no more commands, which pauses who sends
/// them (DELIVERY §5).
pub const BUS_PENDING: usize = 4096;
/// Frames of one publisher that are on their way to the bus's relay topic; then its reading pauses (DELIVERY §5). At 5 ms
/// until a cluster has accepted one, 12,800 a second.
pub const RELAY_UNANSWERED: usize = 64;
/// Bytes of them.
pub const RELAY_UNANSWERED_BYTES: usize = 1 << 20;
/// The time within which a publisher's frames that are on their way were sent; another one waits until all are answered.
/// Long beside the 5 ms, of which it costs one wait each, and short beside what a frame may wait for Kafka.
pub const RELAY_SPAN: Duration = Duration::from_millis(250);
/// Publishers in rooms of all gateways that a gateway knows of, some 150 B each; commands to others are `unavailable`.
pub const RELAY_PUBLISHERS: usize = 65_536;
/// Gateways' processes of which the reader of a relay partition remembers the last record, 16 B each; beyond it all are
/// forgotten, and a record that is said again just then comes twice.
pub const RELAY_PROCESSES: usize = 4096;
/// How soon it is said again that a publisher is in a room when the bus has not taken it.
pub const RELAY_NOTICE_AGAIN: Duration = Duration::from_secs(1);
/// Events whose ids the bus peer remembers, to drop a repeated one (DELIVERY §7).
pub const SEEN_EVENTS: usize = 65_536;
/// How long a command may wait to be accepted by Kafka before it is answered `unavailable`: no longer than a paused
/// publisher waits.
pub const KAFKA_DELIVERY_TIMEOUT: Duration = PAUSE_TIMEOUT;
/// How long a start waits until Kafka answers.
pub const KAFKA_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one request to Kafka may take.
pub const KAFKA_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often topics are looked at for new partitions and new ids.
pub const KAFKA_WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// How often a gateway says on Kafka that it is there.
pub const KAFKA_HERALD_INTERVAL: Duration = Duration::from_secs(3);
/// After so long a silence it is not: it missed three times.
pub const KAFKA_HERALD_SILENCE: Duration = Duration::from_secs(10);
/// How long a start listens for other gateways at most.
pub const KAFKA_HERALD_LOOK: Duration = Duration::from_secs(20);
/// How soon Kafka is asked again when it has not answered.
pub const KAFKA_WATCH_AGAIN: Duration = Duration::from_millis(250);
/// Appends of a node that wait for Kafka: those of the bus peer, of presence and of services.
pub const KAFKA_QUEUE_RECORDS: usize = 4 * BUS_PENDING;
/// Bytes of them.
pub const KAFKA_QUEUE_BYTES: usize = 64 << 20;
/// Commands on their way to one partition; a quarter of all, so that one without leader leaves room for others.
pub const KAFKA_PARTITION_PENDING: usize = BUS_PENDING / 4;
/// Relayed frames on their way to one partition: half of all. Publishers wait for their own frames, so that it takes 32
/// that send as fast as they can to be refused more.
pub const KAFKA_RELAY_PENDING: usize = BUS_PENDING / 2;
/// Bytes of a record: Kafka's own default (`message.max.bytes`), less what a batch adds.
pub const KAFKA_RECORD_BYTES: usize = 1_000_000;
/// Records fetched ahead of their reader, for each partition.
pub const KAFKA_AHEAD_RECORDS: usize = 8192;
/// Bytes of them.
pub const KAFKA_AHEAD_BYTES: usize = 8 << 20;
/// How long the end of a process waits until Kafka has what it was given.
pub const KAFKA_FLUSH_TIME: Duration = Duration::from_secs(2);
/// How long a worker that vanished keeps its place, so that another stands by; Kafka's least by default.
pub const KAFKA_LEASE_TIME: Duration = Duration::from_secs(6);
/// How long a transaction of the services' records may take before Kafka gives it up.
pub const KAFKA_TRANSACTION_TIME: Duration = Duration::from_secs(10);
/// How long a worker waits for Kafka's word on the services' records before it says that there is none.
pub const KAFKA_STATE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a segment of the services' records: those of the newest one are not compacted, and a takeover reads them.
pub const KAFKA_STATE_SEGMENT_BYTES: u64 = 16 << 20;
/// How long a batch of the history in PostgreSQL may take, the way there included.
pub const POSTGRES_TIMEOUT: Duration = Duration::from_secs(5);
/// The same of one that took too long before: a room with very many messages ends in one batch.
pub const POSTGRES_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// How long PostgreSQL waits in a transaction for a worker's next word, and a worker for a connection: both leave the other
/// time for a second attempt.
pub const POSTGRES_SILENCE: Duration = Duration::from_secs(2);
/// After so long without a word the way to PostgreSQL is tried.
pub const POSTGRES_KEEPALIVE: Duration = Duration::from_secs(30);
/// How often a worker measures how far it is behind.
pub const WORKER_LAG_INTERVAL: Duration = Duration::from_secs(5);
/// How long a worker that is told to end may take.
pub const WORKER_STOP_TIME: Duration = Duration::from_secs(8);
/// Bytes of a topic's name (Kafka allows 249).
pub const TOPIC_BYTES_MAX: usize = 255;
/// Bytes of records that one write and one fdatasync of the log on disk take: few milliseconds of a plain disk.
pub const LOG_BATCH_BYTES: usize = 4 << 20;
/// Records that may wait for the log's disk: those of the bus peer, and of services.
pub const LOG_PENDING_RECORDS: usize = 4 * BUS_PENDING;
/// Bytes that may wait for the log's disk.
pub const LOG_PENDING_BYTES: usize = 64 << 20;
/// Bytes of a segment of the log; retention drops whole ones.
pub const LOG_SEGMENT_BYTES: u32 = 64 << 20;
/// How long the log on disk keeps records: a day to look back on, far more than any session can lack.
pub const LOG_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Bytes the log on disk keeps; reading them all once is what a start costs.
pub const LOG_RETENTION_BYTES: u64 = 1 << 30;
/// How long a log that cannot be written waits before it tries again.
pub const LOG_RETRY: Duration = Duration::from_millis(500);
/// Commands whose ids a service remembers, to do a repeated one once (DELIVERY §7).
pub const SEEN_COMMANDS: usize = 65_536;

/// Records a worker takes from each partition of its topics per batch; a batch is one transaction of the store.
pub const SERVICE_BATCH_RECORDS: usize = 64;
/// Records of a batch, of all partitions of these topics together.
pub const SERVICE_TURN_RECORDS: usize = 4 * SERVICE_BATCH_RECORDS;
/// Rooms of the rooms service; a few KiB each.
pub const ROOMS_TOTAL: usize = 65_536;
/// Rooms of the rooms service that one user may be in.
pub const ROOMS_PER_USER: usize = 16;
/// Characters of a room's name.
pub const ROOM_NAME_CHARS: usize = 64;
/// Players of a room that does not say how many it takes (PROTOCOLS B).
pub const ROOM_PLAYERS: u32 = 10;
/// Players of any room.
pub const ROOM_PLAYERS_MAX: u32 = 100;
/// Sessions with which one player may sit in a room; beyond it the one that sat down first is forgotten.
pub const SEATS_PER_PLAYER: usize = 8;
/// Rooms in an answer to `list_rooms`, the newest; about 30 KiB.
pub const ROOMS_LISTED: usize = 100;
/// Characters of a chat message (PROTOCOLS B).
pub const CHAT_CHARS: usize = 2000;
/// Bytes of a room's password; hashing does not take longer for more, but they are kept while it waits.
pub const PASSWORD_BYTES: usize = 128;
/// Passwords that wait to be hashed; beyond it `unavailable`.
pub const PASSWORD_QUEUE: usize = 256;
/// Wrong passwords a user may try on a room within [`GUESS_WINDOW`].
pub const GUESSES_PER_USER: u32 = 5;
/// Passwords that all users together may try on a room within [`GUESS_WINDOW`].
pub const GUESSES_PER_ROOM: u32 = 60;
/// How long guesses count.
pub const GUESS_WINDOW: Duration = Duration::from_secs(60);
/// When a wrong password is answered, counted from the command: later than hashing takes, so that the time says nothing.
pub const WRONG_PASSWORD_DELAY: Duration = Duration::from_secs(1);
/// Argon2id's memory, KiB, and passes (OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes, 1 lane).
pub const PASSWORD_MEMORY_KIB: u32 = 19 << 10;
/// See [`PASSWORD_MEMORY_KIB`].
pub const PASSWORD_PASSES: u32 = 2;
/// Characters of a player's display name in a hub.
pub const DISPLAY_NAME_CHARS: usize = 64;
/// Body of a call of the rooms API; above it 413.
pub const ROOMS_BODY_BYTES: u64 = 4 << 10;
/// Calls of the rooms API that one address and shard may make in a minute: a school class behind one NAT, no more.
pub const ROOMS_CALLS_PER_MINUTE: u32 = 120;
/// Addresses whose calls are counted; beyond it others wait a minute.
pub const ROOMS_CALLERS: usize = 16_384;
/// Chat messages that who connects to a hub gets (PROTOCOLS B).
pub const HUB_MESSAGES: usize = 50;
/// Bytes of them: with 100 members the first message still fits the answers' share.
pub const HUB_MESSAGES_BYTES: usize = 160 << 10;
/// Bytes of the messages that presence keeps of all hubs; beyond it the oldest go.
pub const HUB_MESSAGES_TOTAL_BYTES: usize = 64 << 20;
/// What hubs have to tell the rooms service while the bus takes nothing; beyond it no room is made or joined.
pub const HUB_CHANGES_WAITING: usize = 4096;
/// Questions of one connection for a hub's state that wait for an answer.
pub const HUB_QUESTIONS: usize = 8;
/// Chat messages that a store in memory keeps: 130 MB if all are as long as they may be, usually a tenth of that.
pub const MESSAGES_IN_MEMORY: u64 = 16_384;
/// Chat messages that a store on disk keeps.
pub const MESSAGES_ON_DISK: u64 = 1_000_000;

/// Battles that run at once.
pub const BATTLES: usize = 4096;
/// Timeline events of one battle; an hour at 250/s.
pub const BATTLE_EVENTS: u64 = 1_000_000;
/// Milliseconds between timeline events.
pub const BATTLE_INTERVAL_MS: u64 = 60_000;

/// How long a home keeps a stream's frames: a client's last position may be older than its disconnect by the idle
/// timeout and a ping (DELIVERY §4).
pub const HISTORY_TIME: Duration = Duration::from_secs(RESUME_WINDOW.as_secs() + IDLE_TIMEOUT.as_secs() + 30);

const _: () = assert!(HISTORY_TIME.as_secs() == 390);
const _: () =
    assert!(MEMBERS_ANSWER_BYTES * 6 < ANSWER_BYTES, "an answer fits its share, even if all of it is escaped");
const _: () = assert!(LOG_RETENTION.as_secs() >= HISTORY_TIME.as_secs(), "histories are rebuilt from the log");
const _: () = assert!(LOG_BATCH_BYTES <= LOG_PENDING_BYTES && LOG_BATCH_BYTES < LOG_SEGMENT_BYTES as usize);
const _: () = assert!(GATEWAY_RENEWAL.as_millis() * 2 + REDIS_TIMEOUT.as_millis() < GATEWAY_LEASE.as_millis());
const _: () = assert!(REDIS_TIMEOUT.as_millis() < AUTHENTICATION_TIMEOUT.as_millis());
const _: () = assert!(REDIS_WRITES + REDIS_PIPELINE <= REDIS_CALLS);
const _: () = assert!(RELAY_UNANSWERED * 32 <= KAFKA_RELAY_PENDING && KAFKA_RELAY_PENDING < BUS_PENDING);
const _: () =
    assert!(RELAY_SPAN.as_millis() * 20 <= KAFKA_DELIVERY_TIMEOUT.as_millis(), "an outage refuses frames together");
const _: () = assert!(POSTGRES_SILENCE.as_millis() * 2 < POSTGRES_TIMEOUT.as_millis());
const _: () = assert!(POSTGRES_TIMEOUT.as_millis() < WORKER_STOP_TIME.as_millis());
const _: () = assert!(DELTA_BYTES <= QUEUE_BYTES);
const _: () = assert!(2 * (MAX_FRAME + 64) <= QUEUE_BYTES, "a queue's half holds the largest frame");
const _: () = assert!(MAX_FRAME + 64 <= ANSWER_BYTES, "an echo of the largest frame fits the answers' share");
const _: () =
    assert!(PING_INTERVAL.as_secs() * 2 < IDLE_TIMEOUT.as_secs(), "an idle client is pinged twice before it is closed");
const _: () =
    assert!(QUEUE_FRAMES <= HISTORY_EVENTS, "a connection closed 4408 finds in the history what its queue lost");
const _: () = assert!(QUEUE_BYTES <= HISTORY_BYTES);
const _: () = assert!(SERVICE_BATCH_RECORDS * 2 <= PRESENCE_TOPIC_RECORDS);
const _: () = assert!(PASSWORD_QUEUE * 2 <= BUS_TOPIC_RECORDS, "what waits for its password stays on the bus");
const _: () = assert!(HUB_MESSAGES_BYTES + ROOM_PLAYERS_MAX as usize * (DISPLAY_NAME_CHARS * 6 + 128) <= ANSWER_BYTES);
const _: () = assert!(HANDSHAKE_BYTES + ROOMS_BODY_BYTES as usize <= STASH_BYTES);
const _: () = assert!(BATCH_BYTES < u32::MAX as usize);
const _: () = assert!(HANDSHAKE_BYTES <= STASH_BYTES);
const _: () = assert!(STASH_BYTES <= STASH_RESERVE_BYTES);
const _: () = assert!(ADMIN_HEAD_BYTES >= 8 << 10, "hyper takes no smaller buffer");
const _: () = assert!(ADMIN_STOP_TIME.as_millis() < DRAIN_TIMEOUT.as_millis());
const _: () = assert!(API_CALL_TIME.as_millis() < ADMIN_REQUEST_TIME.as_millis());
const _: () = assert!(API_STREAMS * 2 <= ADMIN_CONNECTIONS as usize);
const _: () = assert!(API_EVENTS_UNDER_WAY <= API_CALLS && API_CALLS <= OUTBOX_MESSAGES && SHARDS_MAX <= API_CALLS);
const _: () = assert!(API_BODY_BYTES >= 2 * MAX_FRAME);
const _: () = assert!(API_HEARTBEAT_MS * 2 <= API_STREAM_STALL.as_millis() as u64);
const _: () = assert!(BUS_TOPIC_BYTES / 2 >= 4 * MAX_FRAME, "half a topic holds the largest command, even in base64");
const _: () =
    assert!(BUS_READ_RECORDS * 2 <= BUS_TOPIC_RECORDS, "a reader that reads one page at a time is not behind");
