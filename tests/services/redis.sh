#!/bin/sh
# Debian's Redis server on a port of its own, without persistence.
#
#   redis.sh install                      installs it if it is missing
#   redis.sh start [DIR [OPTION...]]      starts it in DIR (default target/services/redis) and prints its port once it
#                                         answers; one that runs there is left as it is; options: --port N,
#                                         --password TEXT, --tls (the authority that signed is DIR/ca.crt); the
#                                         others are given to redis-server
#   redis.sh stop [DIR]                   stops it
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target/services
. tests/services/debian.sh

has_all() { command -v redis-server >/dev/null && command -v openssl >/dev/null; }

install() { install_unless has_all redis-server openssl; }

start() {
    dir=${1:-target/services/redis}
    [ $# -eq 0 ] || shift
    port='' password='' tls=''
    while [ $# -gt 0 ]; do
        case $1 in
            --port) port=$2; shift 2 ;;
            --password) password=$2; shift 2 ;;
            --tls) tls=1; shift ;;
            *) break ;;
        esac
    done
    install
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ -s "$dir/port" ] && kill -0 "$(cat "$dir/redis.pid" 2>/dev/null)" 2>/dev/null; then
        cat "$dir/port"
        return
    fi
    [ -z "$tls" ] || certificates "$dir" redis
    attempt=0
    while [ "$attempt" -lt 20 ]; do
        attempt=$((attempt + 1))
        at=${port:-$(draw)}
        if [ -n "$tls" ]; then
            listen="--port 0 --tls-port $at --tls-cert-file $dir/redis.crt --tls-key-file $dir/redis.key \
                --tls-ca-cert-file $dir/ca.crt --tls-auth-clients no"
            client="--tls --cacert $dir/ca.crt"
        else
            listen="--port $at"
            client=''
        fi
        # Options are words without spaces; passwords come last, quoted.
        # shellcheck disable=SC2086
        redis-server --bind 127.0.0.1 --dir "$dir" --pidfile "$dir/redis.pid" --logfile "$dir/redis.log" \
            --daemonize yes --save '' --appendonly no $listen ${password:+--requirepass "$password"} "$@" >/dev/null 2>&1
        tries=0
        while [ "$tries" -lt 100 ]; do
            tries=$((tries + 1))
            # shellcheck disable=SC2086
            answer=$(REDISCLI_AUTH=$password redis-cli -h 127.0.0.1 -p "$at" $client ping 2>/dev/null || true)
            # Another server may have the port; ours has written its process id.
            if [ "$answer" = PONG ] && [ -s "$dir/redis.pid" ] && kill -0 "$(cat "$dir/redis.pid")" 2>/dev/null; then
                echo "$at" | tee "$dir/port"
                return
            fi
            sleep 0.05
        done
    done
    echo "redis-server does not start; see $dir/redis.log" >&2
    exit 1
}

stop() {
    dir=${1:-target/services/redis}
    [ -s "$dir/redis.pid" ] || return 0
    pid=$(cat "$dir/redis.pid")
    kill "$pid" 2>/dev/null || true
    tries=0
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.05
    done
    rm -f "$dir/redis.pid" "$dir/port"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    install) install ;;
    start) start "$@" ;;
    stop) stop "$@" ;;
    *)
        sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
