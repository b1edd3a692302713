# What redis.sh and postgres.sh have in common: servers of Debian's packages. Read by them, from the checkout's root.

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# install_unless CHECK PACKAGE...: installs the packages if the check fails.
install_unless() (
    check=$1
    shift
    # Tests run beside each other: one installs, the others wait.
    exec 9>target/services/lock
    flock 9
    if ! "$check"; then
        echo "installing $*" >&2
        as_root apt-get update -qq >&2
        # Such a package starts a server of its own: nobody asked for that.
        printf '#!/bin/sh\nexit 101\n' >target/services/policy
        chmod +x target/services/policy
        if [ -e /usr/sbin/policy-rc.d ]; then kept=1; else kept=; as_root cp target/services/policy /usr/sbin/policy-rc.d; fi
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
        [ -n "$kept" ] || as_root rm -f /usr/sbin/policy-rc.d
    fi
)

# certificates DIR NAME: a key and a certificate for localhost, NAME.key and NAME.crt, and the authority that signed it.
certificates() (
    cd "$1"
    [ -e "$2.crt" ] && return
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ringgate-test-ca \
        -keyout ca.key -out ca.crt 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
        -keyout "$2.key" -out "$2.csr" 2>/dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >"$2.ext"
    openssl x509 -req -in "$2.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$2.ext" \
        -out "$2.crt" 2>/dev/null
)

# A number that differs between processes and tries; ports below 32768 are not handed out to clients.
draw() { echo $((20000 + ($(od -An -N2 -tu2 /dev/urandom)) % 12000)); }
