#!/bin/sh
# Builds the backend in Go, tests/examples/chess_kafka, with the versions of its go.mod and go.sum, and prints the
# program's path. Any Go from 1.19 on will do; without one Debian's is installed.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target/services
# Tests run beside each other: one builds, the others wait.
exec 9>target/services/go.lock
flock 9
program=$PWD/target/services/go/chess_kafka

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# Where Go's own installer puts it, which not every PATH names.
command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
if ! command -v go >/dev/null; then
    echo 'installing golang-go' >&2
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go >&2
fi
# The checkout may be of another user, so nothing is asked of git. Without cgo no C compiler is needed.
export CGO_ENABLED=0
(cd tests/examples/chess_kafka && go vet . && go build -buildvcs=false -mod=readonly -trimpath -o "$program" .) >&2
echo "$program"
