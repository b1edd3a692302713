#!/bin/sh
# The `ws` library for Node.js in target/services/node, for tests/examples/*.mjs. Prints the directory to give as
# NODE_PATH; does nothing else if it is there already.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target/services
# Tests run beside each other: one installs, the others wait.
exec 9>target/services/lock
flock 9
version=8.18.3
home=$PWD/target/services/node

installed() { grep -q "\"version\": \"$version\"" "$home/node_modules/ws/package.json" 2>/dev/null; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo 'installing nodejs and npm' >&2
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >&2
fi
if ! installed; then
    mkdir -p "$home"
    npm install --prefix "$home" --no-save --no-package-lock --no-audit --no-fund --silent "ws@$version" >&2
    installed
fi
echo "$home/node_modules"
