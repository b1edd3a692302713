//! The real binary on real sockets, both drivers: tungstenite as a client that is not ours, and bare sockets for what
//! no decent client does. Each test runs once per driver and must count the same on both.

/// Starts the binary, watches it from outside, kills it.
mod node;

/// A client of the server API.
mod http;

/// A tungstenite client that holds every stream to its `prev` chain.
mod client;
/// The rooms API, and a tungstenite client of dialect B.
mod hub;
/// A tungstenite client of dialect A.
mod json;
/// A bare socket with frames made by hand.
mod raw;

/// The server API: every route, every error, two backends at once.
mod api;
/// A game's backend in Python, from `tests/examples`.
#[cfg(feature = "real-services")]
mod backend;
/// RFC 6455, section by section.
mod conformance;
/// `ringgate connect` on `/ws`, in a pipe.
mod console;
/// `data_dir`: kill -9, restarts, folders that cannot be used.
mod disk;
/// Signals, exit codes, what a failed start says.
mod drain;
mod effects;
/// Dialect D end to end: rooms, frames, commands, battles, errors, close codes.
mod gateway;
/// Dialect A: all that a client must not send, and what it is told.
mod gateway_faults;
/// Dialect A with the reference services, and what the gateway answers of rooms.
mod gateway_lookups;
/// Dialect A in rooms: relayed commands, places, deltas, credit, beside members of dialect D.
mod gateway_rooms;
/// Dialect A: what the reference services refuse.
mod gateway_services;
/// Dialect A, its way in: authentication, refresh, expiry, resume.
mod gateway_session;
/// Clients that break the rules, beside one that keeps them.
mod hostile;
/// Dialect B end to end: tokens, chat, hidden events, resume, restarts.
mod hubs;
/// The rooms API: every status, CORS, rates, slow bodies.
mod hubs_http;
/// What an idle connection costs.
mod idle;
/// Token keys that a provider publishes and rotates.
mod keys;
/// Thousands of connection lives leave nothing behind.
mod leak;
/// `ringgate load` in JSON.
mod load;
/// Dev mode's page and its guests' tokens.
mod page;
/// Publishers that wait for a full ring.
mod paused;
/// SIGHUP: the type table and the keys.
mod reload;
/// `data_dir`: sessions of every dialect over kill -9 and drains.
mod restart;
/// Resets, stalls and takeovers lose and double nothing.
mod resume;
/// Rooms, chat and dice through dialect D, bus and services.
mod rooms;
/// Without io_uring: a fallback that says why, or a refusal that says what to do.
mod seccomp;
/// The reference documents' own messages, literally.
mod seeds;
/// The clocks of a connection.
mod timeouts;
