#!/bin/sh
# A Python with the libraries `websockets` and `confluent-kafka` in target/services/python, for tests/examples/*.py. Prints
# the interpreter's path; does nothing else if it is there already.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p target/services
# Tests run beside each other: one installs, the others wait.
exec 9>target/services/lock
flock 9
websockets=15.0.1
kafka=2.12.2
home=$PWD/target/services/python
python=$home/bin/python

installed() {
    "$python" -c 'import sys, confluent_kafka, websockets.version
sys.exit([websockets.version.version, confluent_kafka.__version__] != sys.argv[1:])' "$websockets" "$kafka" 2>/dev/null
}
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
venv() { rm -rf "$home" && python3 -m venv "$home"; }

if ! installed; then
    mkdir -p target/services
    # Debian's python3 comes without the part of venv that installs pip.
    if ! venv >&2; then
        echo 'installing python3-venv' >&2
        as_root apt-get update -qq >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >&2
        venv >&2
    fi
    "$python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "websockets==$websockets" "confluent-kafka==$kafka" >&2
    installed
fi
echo "$python"
