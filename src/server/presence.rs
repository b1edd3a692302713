//! Which presence the node has.

use std::sync::Arc;

use crate::config::Config;
use crate::limits;
use crate::message::GatewayLife;
use crate::ports::{Durability, Lease, Presence};
use crate::presence::{EmbeddedPresence, GatewaySettings, RedisPresence, RedisSettings};
use crate::router::Wake;
use crate::shard::driver::syscall;
use crate::time::WallMillis;

/// Presence as it is configured, on its way to its thread.
pub enum NodePresence {
    /// This process's own.
    Embedded(Box<EmbeddedPresence>),
    /// Shared with other gateways.
    Redis(Box<RedisSettings>, Box<GatewaySettings>, Arc<Lease>),
}

impl NodePresence {
    /// Presence in Redis, if that is configured.
    ///
    /// # Errors
    /// One line: what is wrong with this Redis. One that cannot be reached now may be later: the node starts, and tells
    /// its clients `unavailable` until then.
    pub fn in_redis(
        config: &Config,
        gateway: GatewaySettings,
        lease: Arc<Lease>,
        durability: Durability,
    ) -> Result<Option<Self>, String> {
        let Some(redis) = config.redis.settings() else { return Ok(None) };
        match redis.check() {
            Ok(version) => tracing::info!(host = redis.host, port = redis.port, version, "redis is reached"),
            Err(error) if error.refused => return Err(error.text),
            Err(error) => tracing::warn!("{error}"),
        }
        if durability != Durability::Kafka {
            // Whoever cannot be asked has no lease that counts.
            let others = redis.other_gateways(&gateway.gateway_id).unwrap_or_default();
            if let Some(other) = others.first() {
                return Err(format!(
                    "redis {}:{}: gateway {other} is here already, and without Kafka events of one gateway reach no \
                     other; configure Kafka on all of them, or give this one a Redis (or redis.database) of its own",
                    redis.host, redis.port
                ));
            }
        }
        Ok(Some(Self::Redis(Box::new(redis), Box::new(gateway), lease)))
    }

    /// When the process whose sessions it took back was last alive, if it keeps any.
    #[must_use]
    pub fn former_alive(&self) -> Option<WallMillis> {
        match self {
            Self::Embedded(presence) => presence.former_alive(),
            Self::Redis(..) => None,
        }
    }

    /// Starts it on the calling thread, which `wake` unparks.
    pub fn start(self, wake: Arc<dyn Wake>) -> Box<dyn Presence> {
        match self {
            Self::Embedded(presence) => presence,
            Self::Redis(redis, gateway, lease) => Box::new(RedisPresence::start(&redis, *gateway, lease, wake)),
        }
    }
}

/// What the gateway is to Redis.
pub fn gateway_settings(config: &Config, gateway_id: &str, life: GatewayLife, seed: u64) -> GatewaySettings {
    GatewaySettings {
        gateway_id: gateway_id.to_owned(),
        nonce: life.nonce,
        incarnation: life.incarnation,
        resume_window: config.delivery.resume_window,
        history_time: super::history_time(config),
        detached_max: limits::DETACHED_SESSIONS,
        seed,
        wall: syscall::wall,
    }
}
