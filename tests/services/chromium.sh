#!/bin/sh
# Debian's Chromium, and `playwright-core` for Node.js to drive it, in target/services/browser. Prints the directory to
# give as NODE_PATH; does nothing else if both are there already.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target/services
# Tests run beside each other: one installs, the others wait.
exec 9>target/services/lock
flock 9
version=1.55.0
home=$PWD/target/services/browser

installed() { grep -q "\"version\": \"$version\"" "$home/node_modules/playwright-core/package.json" 2>/dev/null; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

if ! command -v chromium >/dev/null || ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo 'installing chromium, nodejs and npm' >&2
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        chromium nodejs npm fonts-dejavu-core >&2
fi
if ! installed; then
    mkdir -p "$home"
    # The library alone: it would download a browser of its own only if asked to.
    npm install --prefix "$home" --no-save --no-package-lock --no-audit --no-fund --silent "playwright-core@$version" >&2
    installed
fi
echo "$home/node_modules"
