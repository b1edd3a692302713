#!/usr/bin/env bash
# The end-to-end rows of the performance table: server on core 0, load on core 1, beside the bare TCP server.
# Usage: benches/measure.sh > benches/results/DATE-NAME.md     (release binary and `cargo bench --bench limit --no-run` first)
# Goal of each row: a ratio within one run of this script; absolute figures move by 2-3 x between hours.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
ringgate=$target/release/ringgate
limit=$(ls -t "$target"/release/deps/limit-* | grep -v '\.d$' | head -n 1)
secret=measure-secret-of-32-bytes-or-more
seconds=${SECONDS_PER_ROW:-5}
# 15,000 connections at each end; one client address has about 28,000 ports.
ulimit -Sn "$(ulimit -Hn)"
[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge 16384 ] || {
    echo "open files: the hard limit is $(ulimit -n); raise it to 16384 or more" >&2
    exit 1
}
pid=

serve() { # driver, extra flags
    JWT_SECRET=$secret taskset -c 0 "$ringgate" serve --host 127.0.0.1 --port 19898 --health-port 19897 --shards 1 \
        --dev --driver "$1" >/dev/null 2>&1 &
    pid=$!
    until curl -fsS -o /dev/null http://127.0.0.1:19897/ready 2>/dev/null; do
        sleep 0.1
        # The ring of the server before may hold the port for a moment after it was killed.
        kill -0 "$pid" 2>/dev/null || { serve "$1"; return; }
    done
}
bare() { # mode
    taskset -c 0 "$limit" "$1" --port 19898 >/dev/null 2>&1 &
    pid=$!
    until (exec 3<>/dev/tcp/127.0.0.1/19898) 2>/dev/null; do sleep 0.1; done
}
end() { kill -KILL "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; pid=; }
trap '[ -z "$pid" ] || kill -KILL "$pid"' EXIT
row() { # title, load arguments
    local title=$1
    shift
    printf '\n### %s\n\n`ringgate load %s`\n\n```\n' "$title" "$*"
    timeout 120 taskset -c 1 "$ringgate" load "$@" --url ws://127.0.0.1:19898 --secret "$secret" --pid "$pid" \
        --duration "$seconds" 2>&1 || echo "exit code $?"
    printf '```\n'
}

printf '# End to end, %s\n\nKernel %s, %s, %s cores, loopback; server pinned to core 0 (`--shards 1`), load to core 1; ringgate %s.\n' \
    "$(date +%F)" "$(uname -r | cut -d- -f1)" "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" \
    "$(git rev-parse --short HEAD)"
for round in 1 2; do
    bare echo; row "echo, bare TCP, round $round" echo --connections 200; end
    serve uring; row "echo, uring, round $round" echo --connections 200; end
    serve monoio; row "echo, monoio, round $round" echo --connections 200; end
    bare fanout; row "fan-out 1 -> 500, bare TCP, round $round" fanout --connections 500; end
    serve uring; row "fan-out 1 -> 500, uring, round $round" fanout --connections 500; end
    serve monoio; row "fan-out 1 -> 500, monoio, round $round" fanout --connections 500; end
done
bare fanout; row "burst 20 x 8 -> 500, bare TCP" burst --connections 500 --publishers 20 --in-flight 8; end
serve uring; row "burst 20 x 8 -> 500, uring" burst --connections 500 --publishers 20 --in-flight 8; end
serve monoio; row "burst 20 x 8 -> 500, monoio" burst --connections 500 --publishers 20 --in-flight 8; end
# "per connection" is the slope of the server's resident memory from 2,000 to all.
serve uring; row "idle 15,000, uring" idle --connections 15000; end
serve monoio; row "idle 15,000, monoio" idle --connections 15000; end
serve uring; row "storm 8,000" storm --connections 8000; end
bare fanout; row "storm 8,000, bare TCP accept and upgrade" storm --connections 8000; end
serve uring; row "healthy alone: 225 members, 200 msg/s of 1 KiB" stalled --connections 225 --stalled-share 0 --rate 200 --size 1024; end
serve uring; row "25 of 250 stalled, 200 msg/s of 1 KiB" stalled --connections 250 --stalled-share 0.1 --reader-speed 0 --rate 200 --size 1024; end
