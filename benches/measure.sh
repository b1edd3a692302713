#!/usr/bin/env bash
# The end-to-end rows of the performance table (DESIGN §10): server on core 0, load on core 1, beside the bare TCP server.
#
#     cargo build --release && cargo bench --bench limit --bench log --no-run
#     benches/measure.sh > benches/results/DATE-end-to-end.md       all rows, about 18 minutes
#     benches/measure.sh run echo fanout; benches/measure.sh report  some rows, then all that are there
#     benches/measure.sh run kafka_fanout kafka_commands             with a broker that tests/services/kafka.sh starts
#
# Goal of each row: a ratio within one run; absolute figures move by 2-3 x between hours. Raw results of `run` collect
# in target/measure.jsonl; a run of all rows begins anew. `share` needs perf and is left out without it.
set -euo pipefail
cd "$(dirname "$0")/.."
# 15,000 connections at each end; one client address has about 28,000 ports.
ulimit -Sn "$(ulimit -Hn)"
[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge 16384 ] || {
    echo "open files: the hard limit is $(ulimit -n); raise it to 16384 or more" >&2
    exit 1
}
exec python3 benches/measure.py "$@"
