#!/bin/sh
# Debian's PostgreSQL, a server of its own with the user `ringgate` and the databases `ringgate` (its own) and `postgres`.
#
#   postgres.sh install                   installs it if it is missing
#   postgres.sh start [DIR [OPTION...]]   starts it in DIR (default target/services/postgres) and prints its port once it
#                                         answers; its data stay there from one start to the next; options: --port N,
#                                         --password TEXT (of ringgate, asked for from then on), --tls (asked for; the
#                                         authority that signed is DIR/ca.crt)
#   postgres.sh stop [DIR]                stops it
#   postgres.sh kill [DIR]                ends all its processes at once
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target/services
. tests/services/debian.sh

# PostgreSQL refuses to be root.
as_owner() { if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }

binaries() {
    for at in /usr/lib/postgresql/*/bin; do
        [ ! -x "$at/initdb" ] || found=$at
    done
    echo "${found:-}"
}

has_all() { [ -n "$(binaries)" ] && command -v openssl >/dev/null; }

install() { install_unless has_all postgresql openssl; }

alive() { [ -s "$1/data/postmaster.pid" ] && kill -0 "$(head -n 1 "$1/data/postmaster.pid")" 2>/dev/null; }

# Data, user and database.
make() {
    password=$2 tls=$3
    mkdir -p "$1/data"
    own "$1/data"
    as_owner "$bin/initdb" -D "$1/data" -U postgres -E UTF8 --locale=C.UTF-8 --auth=trust >"$1/initdb.log" 2>&1
    {
        echo "host${tls:+ssl} all postgres 127.0.0.1/32 trust"
        echo "host${tls:+ssl} all all 127.0.0.1/32 $([ -n "$password" ] && echo scram-sha-256 || echo trust)"
    } | as_owner tee "$1/data/pg_hba.conf" >/dev/null
    {
        echo "CREATE ROLE ringgate LOGIN PASSWORD '${password:-none}';"
        echo 'CREATE DATABASE ringgate OWNER ringgate;'
    } | as_owner "$bin/postgres" --single -D "$1/data" postgres >>"$1/initdb.log" 2>&1
}

own() { [ "$(id -u)" -ne 0 ] || chown -R postgres "$1"; }

start() {
    dir=${1:-target/services/postgres}
    [ $# -eq 0 ] || shift
    port='' password='' tls=''
    while [ $# -gt 0 ]; do
        case $1 in
            --port) port=$2; shift 2 ;;
            --password) password=$2; shift 2 ;;
            --tls) tls=1; shift ;;
            *) echo "postgres.sh: no option $1" >&2; exit 2 ;;
        esac
    done
    install
    bin=$(binaries)
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ -s "$dir/port" ] && alive "$dir"; then
        cat "$dir/port"
        return
    fi
    [ -z "$tls" ] || certificates "$dir" postgres
    own "$dir"
    as_owner test -x "$dir" || { echo "the user postgres cannot enter $dir: give another folder, e.g. below /tmp" >&2; exit 1; }
    [ -e "$dir/data/PG_VERSION" ] || make "$dir" "$password" "$tls"
    [ -n "$port" ] || port=$(cat "$dir/port" 2>/dev/null || true)
    attempt=0
    while [ "$attempt" -lt 20 ]; do
        attempt=$((attempt + 1))
        at=${port:-$(draw)}
        # What is given to the kernel outlives a killed server: tests are about processes, not about power.
        options="-h 127.0.0.1 -p $at -c unix_socket_directories= -c fsync=off -c shared_buffers=16MB"
        [ ! -e "$dir/postgres.crt" ] || options="$options -c ssl=on -c ssl_cert_file=$dir/postgres.crt -c ssl_key_file=$dir/postgres.key"
        if as_owner "$bin/pg_ctl" -D "$dir/data" -l "$dir/postgres.log" -w -t 30 -s -o "$options" start >/dev/null 2>&1; then
            echo "$at" | tee "$dir/port"
            return
        fi
    done
    echo "PostgreSQL does not start; see $dir/postgres.log and initdb.log" >&2
    exit 1
}

# How: fast, or immediate.
stop() {
    dir=${2:-target/services/postgres}
    alive "$dir" || return 0
    bin=$(binaries)
    dir=$(cd "$dir" && pwd)
    as_owner "$bin/pg_ctl" -D "$dir/data" -m "$1" -w -t 30 -s stop >/dev/null
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
    install) install ;;
    start) start "$@" ;;
    stop) stop fast "$@" ;;
    kill) stop immediate "$@" ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
