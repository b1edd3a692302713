#!/bin/sh
# Apache Kafka, one broker in KRaft mode, on this machine's loopback.
#
#   tests/services/kafka.sh                  installs it in target/services/kafka and prints that folder
#   tests/services/kafka.sh start [FOLDER [OPTION]]
#                                            starts a broker with its data there, waits until it answers, prints
#                                            HOST:PORT; one that was stopped comes back on its port with its data
#   tests/services/kafka.sh stop [FOLDER]    ends it, as an operator does; the data stay
#   tests/services/kafka.sh kill [FOLDER]    ends it at once
#
# FOLDER is target/services/kafka-data if none is given; its files `address` and `pid` say what runs there.
# Options, for a broker's first start:
#   --beside OTHER   it is the second broker of the cluster whose first one runs in the folder OTHER
#   --secure         it has three more listeners, whose addresses are in the files `tls` (a client needs a certificate),
#                    `sasl-tls` and `sasl` (PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, user ringgate, password `secret of
#                    the tests`). Its certificate is for localhost and 127.0.0.1; ca.crt signed it, and client.crt
#                    with client.key
set -eu
version=4.1.1
cd "$(dirname "$0")/../.."
mkdir -p target/services
home=$PWD/target/services/kafka
action=${1:-install}
folder=${2:-$PWD/target/services/kafka-data}
password='secret of the tests'

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
need() {
    command -v "$1" >/dev/null && return
    echo "installing $2" >&2
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >&2
}

install() {
    # Tests run beside each other: one installs, the others wait.
    exec 9>target/services/kafka.lock
    flock 9
    need python3 python3
    need java default-jre-headless
    if ! [ -e "$home/$version" ]; then
        need mvn maven
        mkdir -p "$home"
        cat >"$home/pom.xml" <<EOF
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ringgate.tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
EOF
        rm -rf "$home/libs"
        mvn -q -B -f "$home/pom.xml" dependency:copy-dependencies -DoutputDirectory="$home/libs" >&2
        touch "$home/$version"
    fi
    exec 9>&-
}

# So many ports that nobody uses.
ports() {
    python3 -c '
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in sockets])' "$1"
}

# Whether the broker lists itself in an answer to a Metadata request (key 3, version 1, no topics).
answers() {
    python3 -c '
import socket, struct, sys
body = struct.pack(">hhihi", 3, 1, 7, -1, 0)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1) as s:
    s.settimeout(2)
    s.sendall(struct.pack(">i", len(body)) + body)
    head = s.recv(12, socket.MSG_WAITALL)
sys.exit(len(head) < 12 or struct.unpack(">iii", head)[1:] < (7, 1))' "$1" 2>/dev/null
}

exec_java() { exec java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$home/libs/*" "$@"; }

# What all brokers have in common, and who is this one: its number, its roles, its port, the controller's.
properties() {
    cat <<EOF
process.roles=$2
node.id=$1
controller.quorum.voters=1@127.0.0.1:$4
listeners=BROKER://127.0.0.1:$3$5
advertised.listeners=BROKER://127.0.0.1:$3
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
log.dirs=$folder/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
EOF
}

# Listeners by TLS, by SASL, by both.
secure() {
    certificates
    # shellcheck disable=SC2046 # words
    set -- $(ports 3)
    for name in tls sasl-tls sasl; do
        echo "127.0.0.1:$1" >"$folder/$name"
        shift
    done
    tls=$(cat "$folder/tls") both=$(cat "$folder/sasl-tls") sasl=$(cat "$folder/sasl")
    sed -i -e "s|^\\(advertised\\.\\)\\{0,1\\}listeners=.*|&,TLS://$tls,SASLTLS://$both,SASL://$sasl|" \
        -e 's/^listener.security.protocol.map=.*/&,TLS:SSL,SASLTLS:SASL_SSL,SASL:SASL_PLAINTEXT/' \
        "$folder/server.properties"
    cat >>"$folder/server.properties" <<EOF
ssl.keystore.type=PEM
ssl.keystore.location=$folder/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$folder/ca.crt
listener.name.tls.ssl.client.auth=required
EOF
    for name in sasltls sasl; do
        cat >>"$folder/server.properties" <<EOF
listener.name.$name.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.$name.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ringgate="$password";
listener.name.$name.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.$name.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
EOF
    done
}

# Keys and certificates of the broker and of a client, and the authority that signed them.
certificates() (
    need openssl openssl
    cd "$folder"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ringgate-test-ca \
        -keyout ca.key -out ca.crt 2>/dev/null
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >names
    for name in broker client; do
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
            -keyout "$name.key" -out "$name.csr" 2>/dev/null
        openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names \
            -out "$name.crt" 2>/dev/null
    done
    cat broker.key broker.crt >broker.pem
)

# Its files, and its data's first ones.
prepare() {
    option=$1 other=$2
    set --
    if [ "$option" = --beside ]; then
        port=$(ports 1)
        properties 2 broker "$port" "$(sed -n 's/.*CONTROLLER:..127.0.0.1:\([0-9]*\).*/\1/p' "$other/server.properties" | head -n 1)" '' \
            >"$folder/server.properties"
        id=$(sed -n 's/^cluster.id=//p' "$other/data/meta.properties")
    else
        # shellcheck disable=SC2046 # two words
        set -- $(ports 2)
        port=$1
        properties 1 broker,controller "$1" "$2" ",CONTROLLER://127.0.0.1:$2" >"$folder/server.properties"
        # The cluster's id is 16 bytes in base64, random but for the first: a leading dash would be taken for an option.
        id=$(python3 -c 'import base64, os; print(base64.urlsafe_b64encode(b"r" + os.urandom(15)).decode().rstrip("="))')
        set --
    fi
    echo "127.0.0.1:$port" >"$folder/address"
    if [ "$option" = --secure ]; then
        secure
        for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
            set -- "$@" --add-scram "$mechanism=[name=ringgate,password=$password]"
        done
    fi
    (exec_java kafka.tools.StorageTool format -t "$id" -c "$folder/server.properties" "$@") >"$folder/log" 2>&1 || {
        tail -n 5 "$folder/log" >&2
        rm -f "$folder/server.properties"
        exit 1
    }
}

start() {
    mkdir -p "$folder"
    [ -e "$folder/server.properties" ] || prepare "$@"
    # In the background it is a process to itself, whose id is Java's.
    exec_java kafka.Kafka "$folder/server.properties" >>"$folder/log" 2>&1 </dev/null &
    echo $! >"$folder/pid"
    port=$(sed 's/.*://' "$folder/address")
    tries=0
    until answers "$port"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 600 ] || ! kill -0 "$(cat "$folder/pid")" 2>/dev/null; then
            echo "Kafka did not start; $folder/log ends with:" >&2
            tail -n 20 "$folder/log" >&2
            exit 1
        fi
        sleep 0.1
    done
    cat "$folder/address"
}

# One that runs there is left as it is.
running() {
    kill -0 "$(cat "$folder/pid" 2>/dev/null)" 2>/dev/null && answers "$(sed 's/.*://' "$folder/address")"
}
if [ "$action" = start ] && running; then
    cat "$folder/address"
    exit
fi

stop() {
    pid=$(cat "$folder/pid" 2>/dev/null) || return 0
    rm -f "$folder/pid"
    # One that was frozen could not end.
    kill -CONT "$pid" 2>/dev/null || return 0
    kill "-$1" "$pid" 2>/dev/null || true
    tries=0
    while kill -0 "$pid" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -ne 100 ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.1
    done
}

case $action in
    install) install && echo "$home" ;;
    start) install && start "${3:-}" "${4:-}" ;;
    stop) stop TERM ;;
    kill) stop KILL ;;
    *) echo "usage: $0 [start|stop|kill [FOLDER [--beside OTHER|--secure]]]" >&2 && exit 2 ;;
esac
