//! `ringgate topics`: makes the topics on Kafka.

use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Failure, Surroundings, flags};
use crate::server;

/// The grammar.
pub(super) fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("NUMBER").value_parser(value_parser!(u32).range(1..=100_000)).help(help)
    };
    let create = Command::new("create")
        .about("Makes the topics of the configuration that are not there; those that are stay as they are")
        .arg(
            number(
                PARTITIONS,
                "Partitions of each topic; system.events, rooms.events, ringgate.dead and ringgate.state have one",
            )
            .default_value("12"),
        )
        .arg(number(REPLICATION, "Copies of each partition; without it the cluster's default"))
        .arg(number(
            MIN_INSYNC,
            "Copies that must have a record before it is accepted; without it the cluster's default",
        ))
        .arg(
            Arg::new(RETENTION)
                .long(RETENTION)
                .value_name("SECONDS")
                .value_parser(value_parser!(u64).range(60..=31_536_000))
                .default_value("86400")
                .help("How long records are kept"),
        )
        .args(flags::args());
    Command::new("topics")
        .about("Makes the topics on Kafka")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(create)
}

/// Carries it out.
pub(super) fn run(matches: &ArgMatches, surroundings: &Surroundings) -> Result<String, Failure> {
    let Some(("create", matches)) = matches.subcommand() else {
        return Err(Failure::usage("topics: give create; see `ringgate topics --help`".to_owned()));
    };
    let loaded = flags::Reading::new(matches, surroundings).load()?;
    let number = |name: &str| matches.get_one::<u32>(name).copied();
    let wish = server::TopicWish {
        partitions: number(PARTITIONS).unwrap_or(1),
        replication: number(REPLICATION),
        min_insync_replicas: number(MIN_INSYNC),
        retention: Duration::from_secs(matches.get_one::<u64>(RETENTION).copied().unwrap_or(0)),
    };
    let lines = server::create_topics(&loaded.config, &wish).map_err(|lines| Failure { code: 1, lines })?;
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

const PARTITIONS: &str = "partitions";
const REPLICATION: &str = "replication";
const MIN_INSYNC: &str = "min-insync-replicas";
const RETENTION: &str = "retention-s";
