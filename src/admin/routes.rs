//! The table of routes: the router is built from it, and `openapi.json` is held against it.

/// A row of the table.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// As in the description; at most one parameter, at its end.
    pub(super) path: &'static str,
    /// The description's `operationId`.
    pub(super) name: &'static str,
    /// Whether it wants an API key.
    pub(super) keyed: bool,
    /// Parameters of the query.
    pub(super) query: &'static [&'static str],
    /// What it may answer.
    pub(super) statuses: &'static [u16],
    pub(super) operation: Operation,
}

/// The methods in use; who answers GET answers HEAD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    Get,
    Post,
}

/// What a route does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Health,
    Ready,
    Metrics,
    Description,
    Publish,
    Log,
    Disconnect,
    Presence,
    History,
    Connections,
}

impl Route {
    /// The path up to its parameter, and the parameter's name.
    pub(super) fn parameter(&self) -> Option<(&'static str, &'static str)> {
        let (prefix, rest) = self.path.split_once('{')?;
        Some((prefix, rest.strip_suffix('}')?))
    }

    /// The path as the router wants it: names of streams have a slash in them, which may stand as it is.
    pub(super) fn pattern(&self) -> String {
        self.path.replace("{stream}", "{*stream}")
    }
}

/// All routes of the port.
pub(super) static ROUTES: [Route; 10] = {
    use Method::{Get, Post};
    use Operation as O;
    const fn open(path: &'static str, name: &'static str, statuses: &'static [u16], operation: O) -> Route {
        Route { method: Get, path, name, keyed: false, query: &[], statuses, operation }
    }
    const fn keyed(
        method: Method,
        path: &'static str,
        name: &'static str,
        query: &'static [&'static str],
        statuses: &'static [u16],
        operation: O,
    ) -> Route {
        Route { method, path, name, keyed: true, query, statuses, operation }
    }
    [
        open("/health", "health", &[200, 400], O::Health),
        open("/ready", "ready", &[200, 400, 503], O::Ready),
        open("/metrics", "metrics", &[200, 400], O::Metrics),
        open("/api/openapi.json", "description", &[200, 400], O::Description),
        keyed(Post, "/api/events", "publish", &[], &[200, 400, 401, 413, 429, 503], O::Publish),
        keyed(
            Get,
            "/api/log/{topic}",
            "log",
            &["from", "epoch", "heartbeat_ms"],
            &[200, 400, 401, 404, 409, 429, 503],
            O::Log,
        ),
        keyed(Post, "/api/disconnect", "disconnect", &[], &[200, 400, 401, 404, 413, 429, 503], O::Disconnect),
        keyed(Get, "/api/presence/{room}", "presence", &["limit"], &[200, 400, 401, 429, 503], O::Presence),
        keyed(
            Get,
            "/api/history/{stream}",
            "history",
            &["after", "epoch", "limit"],
            &[200, 400, 401, 404, 409, 429, 503],
            O::History,
        ),
        keyed(Get, "/api/connections", "connections", &["sort", "limit"], &[200, 400, 401, 429, 503], O::Connections),
    ]
};
