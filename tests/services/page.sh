#!/bin/sh
# The page's JavaScript against scripted gateways, on Node with the `ws` library that node.sh installs. Arguments are
# given to `node --test`, for example --test-name-pattern=resume.
set -eu
cd "$(dirname "$0")/../.."
NODE_PATH=$(tests/services/node.sh)
export NODE_PATH
exec node --test "$@" tests/page/*.test.mjs
