"""Runs the rows of benches/measure.sh and prints them as a table with everything behind it. Standard library only.

A row is a list of runs; a run is one server and one `ringgate load` against it, kept as one JSON line. Runs that are
compared take turns, and a ratio is the median of the rounds' ratios.
"""

import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

TARGET = os.environ.get("CARGO_TARGET_DIR", "target")
RINGGATE = f"{TARGET}/release/ringgate"
RAW = f"{TARGET}/measure.jsonl"
SECRET = "measure-secret-of-32-bytes-or-more"
PORT, HEALTH = 19898, 19897
SECONDS = float(os.environ.get("SECONDS_PER_RUN", "3"))
# A tick of the delta row: 2 intervals are a bound of the server's histogram, whose buckets are powers of two.
DELTA_INTERVAL = 2**23 / 1e9
# Two players each; many, so that the service is never without a command.
ROLL_ROOMS = 500
ROLLS_TABLE = """[[command]]
type = "games.command.*"
topic = "games.commands"
key = "room_id"
require = "member:room_id"
rate = "100000/s"
"""


def newest_bench(name):
    """The executable of a bench that `cargo bench --no-run` built."""
    deps = f"{TARGET}/release/deps"
    names = [file for file in os.listdir(deps) if re.fullmatch(f"{name}-[0-9a-f]+", file)]
    if not names:
        raise SystemExit(f"measure: no bench {name} in {deps}; run `cargo bench --bench {name} --no-run`")
    return f"{deps}/{max(names, key=lambda file: os.path.getmtime(f'{deps}/{file}'))}"


class Server:
    """A server under test, pinned to core 0 unless it has two shards."""

    def __init__(self, kind, *flags, shards=1, secret=SECRET, variables=None):
        self.kind = kind
        pin = ["taskset", "-c", "0" if shards == 1 else "0,1"]
        if kind in ("bare-echo", "bare-fanout"):
            command = [newest_bench("limit"), kind.removeprefix("bare-"), "--port", str(PORT)]
        else:
            command = [RINGGATE, "serve", "--host", "127.0.0.1", "--port", str(PORT), "--health-port", str(HEALTH)]
            command += ["--shards", str(shards), "--dev", "--driver", kind, *flags]
        self.command = " ".join(command[1:])
        environment = os.environ | ({"JWT_SECRET": secret} if secret else {}) | (variables or {})
        # The listening sockets of the server before may stand for a moment after it was killed.
        for _ in range(50):
            self.process = subprocess.Popen(pin + command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True)
            if self.wait():
                return
            self.process.wait()
            time.sleep(0.1)
        raise SystemExit(f"measure: {self.command} does not start: {self.process.stdout.read()}")

    def wait(self):
        while self.process.poll() is None:
            try:
                if self.kind.startswith("bare"):
                    socket.create_connection(("127.0.0.1", PORT), 1).close()
                else:
                    urllib.request.urlopen(f"http://127.0.0.1:{HEALTH}/ready", timeout=1).close()
                return True
            except OSError:
                time.sleep(0.05)
        return False

    def metrics(self):
        """Sums over shards by name with the labels other than shard; for tick_max the maximum."""
        if self.kind.startswith("bare"):
            return {}
        text = urllib.request.urlopen(f"http://127.0.0.1:{HEALTH}/metrics", timeout=5).read().decode()
        found = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = re.sub(r'shard="\d+",?', "", name).replace(",}", "}").replace("{}", "")
                value = float(value)
                found[name] = max(found.get(name, 0), value) if "_max_" in name else found.get(name, 0) + value
        return found

    def end(self):
        if self.kind.startswith("bare"):
            # It prints what it sent when the last connection has ended.
            time.sleep(0.2)
        self.process.send_signal(signal.SIGKILL)
        return self.process.communicate()[0]


def run(row, variant, server, arguments, number=0, seconds=SECONDS, during=None, core="1"):
    """One run against a new server, appended to the raw results; `server` is a function that starts it."""
    server = server()
    try:
        secret = [] if "--token" in arguments else ["--secret", SECRET]
        command = ["taskset", "-c", core, RINGGATE, "load", *arguments.split(), "--url", f"ws://127.0.0.1:{PORT}", *secret]
        command += ["--pid", str(server.process.pid), "--duration", str(seconds), "--json"]
        before = server.metrics()
        load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        extra = during(server) if during else None
        out, errors = load.communicate(timeout=150)
        if not out:
            raise SystemExit(f"measure: {row} {variant}: {errors}")
        after = server.metrics()
        metrics = {name: value if "_max_" in name else value - before.get(name, 0) for name, value in after.items()}
    finally:
        text = server.end()
    sent = re.findall(r"limit: (\d+) sends, (\d+) bytes", text or "")
    record = {"row": row, "variant": variant, "round": number, "server": server.command, "load": arguments, "seconds": seconds,
              "code": load.returncode, "report": json.loads(out), "metrics": metrics, "extra": extra,
              "sent": [int(n) for n in sent[-1]] if sent else None}
    with open(RAW, "a") as file:
        file.write(json.dumps(record) + "\n")
    report = record["report"]
    cpu = report["server_cpu"]["us_per_delivery"] if report["server_cpu"] else 0
    p99 = report["latency"]["p99_us"] if report["latency"] else 0
    print(f"{row} {variant} {number}: {cpu:.3f} us per delivery, p99 {p99:.0f} us, intact {report['intact']}", file=sys.stderr)
    return record


def drivers(row, bare, arguments, rounds):
    for number in range(1, rounds + 1):
        for kind in (bare, "uring", "monoio"):
            run(row, kind.split("-")[0], lambda kind=kind: Server(kind), arguments, number)


def echo():
    drivers("echo", "bare-echo", "echo --connections 200", 5)


def fanout():
    drivers("fanout", "bare-fanout", "fanout --connections 500", 5)


def paced():
    # The same at a fixed rate: how often both sides fall asleep is then not part of the comparison.
    drivers("paced", "bare-fanout", "fanout --connections 500 --rate 300", 5)


def burst():
    drivers("burst", "bare-fanout", "burst --connections 500 --publishers 20 --in-flight 8", 2)
    for depth in (1, 2, 4, 16, 32, 64):
        load = f"burst --connections 500 --publishers 20 --in-flight {depth}"
        run("depth", f"{depth} in flight", lambda: Server("uring"), load, seconds=2)


def idle():
    for kind in ("uring", "monoio"):
        run("idle", kind, lambda kind=kind: Server(kind), "idle --connections 15000", seconds=1)


def slow():
    # 256 frames of 4 KiB are 1 MiB; what kernel and reader hold comes on top of what the queue may hold.
    flags = ("--queue-frames", "1000", "--queue-bytes", "4194304", "--queue-age-ms", "60000", "--history-bytes", "16777216")
    for kind in ("uring", "monoio"):
        load = "stalled --connections 1001 --stalled-share 0.999 --size 4096 --rate 100 --warmup 0 --drain 30"
        run("slow", kind, lambda kind=kind: Server(kind, *flags), load, seconds=3.2, during=waiting)


def waiting(server):
    """Reliable frames that wait in write queues, the most of many samples."""
    most = 0
    for _ in range(60):
        time.sleep(0.1)
        if server.process.poll() is None:
            found = server.metrics()
            pending = [value for name, value in found.items() if "pending" in name and 'class="reliable"' in name]
            most = max(most, *pending, 0)
    return {"waiting": most}


def stalled():
    for number in range(1, 11):
        for variant, load in (("alone", "stalled --connections 225 --stalled-share 0 --rate 200 --size 1024"),
                              ("beside", "stalled --connections 250 --stalled-share 0.1 --rate 200 --size 1024")):
            run("stalled", variant, lambda: Server("uring"), load, number, seconds=2.5)


def delta():
    # 16 keys, each once per interval; readers take a tenth of the bytes.
    rate, frame = 16 / DELTA_INTERVAL, 1024 + 36
    load = f"stalled --connections 51 --stalled-share 0.98 --rate 0.001 --size 1024 --delta-rate {rate:.3f} --delta-keys 16"
    speed = int(rate * frame / 10)
    for kind in ("uring", "monoio"):
        run("delta", f"kernel, {kind}", lambda kind=kind: Server(kind), f"{load} --reader-speed {speed} --warmup 3", seconds=4)
    rate, frame = 200, 100 + 36
    load = f"stalled --connections 51 --stalled-share 0.98 --rate 0.001 --size 100 --delta-rate {rate} --delta-keys 4"
    speed = int(rate * frame / 10)
    for variant, window in (("credit", " --delta-window 4"), ("no credit", "")):
        run("delta", variant, lambda: Server("uring"), f"{load} --reader-speed {speed} --warmup 2{window}", seconds=6)


def cross():
    for number in range(1, 6):
        for shards in (1, 2):
            load = "fanout --connections 500 --rate 100"
            run("cross", f"{shards} shards", lambda shards=shards: Server("uring", shards=shards), load, number)


def storm():
    load = "storm --connections 15000"
    run("storm", "bare", lambda: Server("bare-fanout"), load)
    run("storm", "uring, HS256", lambda: Server("uring"), load)
    run("storm", "monoio, HS256", lambda: Server("monoio"), load)
    token = subprocess.run([RINGGATE, "token", "mint", "--key-file", "tests/keys/rs256_private.pem", "--sub", "a", "--role", "publisher"],
                           capture_output=True, text=True, check=True).stdout.strip()
    key = ("--jwt-public-key-path", "tests/keys/rs256_public.pem")
    for kind in ("uring", "monoio"):
        run("storm", f"{kind}, RS256", lambda kind=kind: Server(kind, *key, secret=None), f"{load} --token {token}")


def json_fanout():
    # 100 B of payload each: a binary stamp behind a header of 24 B, or JSON with its place spliced in.
    for number in range(1, 6):
        for rate in ("", " --rate 300"):
            for dialect in ("frames", "json"):
                load = f"fanout --connections 500 --dialect {dialect}{rate}"
                run("json fan-out", dialect + rate.replace(" --rate", " at"), lambda: Server("uring"), load, number)


def json_echo():
    # Frames: the bare echo. JSON: a heartbeat of 100 B, parsed and answered with the time.
    for number in range(1, 6):
        for dialect in ("frames", "json"):
            run("json echo", dialect, lambda: Server("uring"), f"echo --connections 200 --dialect {dialect}", number)


def commands():
    # Roll to rolled: gateway, bus, service, bus, gateway, all in one process on core 0; 500 rooms. First as fast as they
    # may, then at shares of that.
    table = f"{TARGET}/measure.toml"
    with open(table, "w") as file:
        file.write(ROLLS_TABLE)
    for kind in ("uring", "monoio"):
        def at(variant, rate, kind=kind):
            load = f"rolls --connections {2 * ROLL_ROOMS} --rate {rate:.4f}"
            return run("commands", f"{kind}, {variant}", lambda: Server(kind, "--config", table), load)

        most = at("most", 0)["report"]["deliveries_per_s"]
        for percent in (10, 50, 80):
            at(f"{percent} %", most * percent / 100 / ROLL_ROOMS)


class Kafka:
    """A broker of its own with ringgate's topics, beside the load on core 1; with `worker` the services too."""

    def __init__(self, worker=False):
        self.folder = f"{TARGET}/measure-kafka"
        shutil.rmtree(self.folder, ignore_errors=True)
        host, port = self.script("start").split(":")
        self.variables = {"KAFKA_HOST": host, "KAFKA_PORT": port, "GATEWAY_ID": "measure", "JWT_SECRET": SECRET}
        environment = os.environ | self.variables
        subprocess.run([RINGGATE, "topics", "create"], env=environment, check=True, capture_output=True)
        self.worker = None
        if worker:
            command = ["taskset", "-c", "1", RINGGATE, "worker", "--health-port", str(HEALTH - 1)]
            self.worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.until_active()

    def until_active(self):
        while self.worker.poll() is None:
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{HEALTH - 1}/ready", timeout=1).read().decode()
                if "active" in answer:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("measure: ringgate worker does not start")

    def script(self, action):
        return subprocess.run(["taskset", "-c", "1", "tests/services/kafka.sh", action, self.folder],
                              check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def end(self):
        if self.worker:
            self.worker.kill()
            self.worker.wait()
        self.script("kill")
        shutil.rmtree(self.folder, ignore_errors=True)


def kafka_fanout():
    # 1 → 500 by relay: numbered by the home in memory, or appended to ringgate.relay and read again.
    broker = Kafka()
    try:
        for number in range(1, 4):
            for pace in (" --rate 300", " --rate 1000", ""):
                load = f"fanout --connections 500{pace}"
                what = pace.replace(" --rate", " at") or " by in-flight"
                run("kafka fan-out", "embedded" + what, lambda: Server("uring"), load, number)
                run("kafka fan-out", "kafka" + what, lambda: Server("uring", variables=broker.variables), load, number)
    finally:
        broker.end()


def kafka_commands():
    # Roll to rolled: gateway (core 0), Kafka, worker, Kafka, gateway; Kafka, worker and load share core 1.
    table = f"{TARGET}/measure.toml"
    with open(table, "w") as file:
        file.write(ROLLS_TABLE)
    broker = Kafka(worker=True)
    try:
        def at(variant, rate):
            load = f"rolls --connections {2 * ROLL_ROOMS} --rate {rate:.4f}"
            return run("kafka commands", variant, lambda: Server("uring", "--config", table, variables=broker.variables), load)

        most = at("most", 0)["report"]["deliveries_per_s"]
        for percent in (10, 50, 80):
            at(f"{percent} %", most * percent / 100 / ROLL_ROOMS)
    finally:
        broker.end()


def resume():
    for kind in ("uring", "monoio"):
        run("resume", kind, lambda kind=kind: Server(kind), "storm --connections 5000 --connect-concurrency 5000 --resume")


def log():
    """Appends of the log on disk, in a bench of its own."""
    found = subprocess.run([newest_bench("log"), "--bench"], capture_output=True, text=True, check=True).stdout
    for in_flight, writer, rate, p50, p99 in (line.split() for line in found.splitlines()[1:]):
        record = {"row": "log", "variant": f"{in_flight} in flight, {writer}", "round": 0,
                  "appends_per_s": int(rate), "p50_us": int(p50), "p99_us": int(p99)}
        with open(RAW, "a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"log {record['variant']}: {rate} appends/s, p99 {p99} us", file=sys.stderr)


def share():
    if not shutil.which("perf"):
        print("measure: share: no perf, left out", file=sys.stderr)
        return
    for kind in ("bare-fanout", "uring", "monoio"):
        run("share", kind.split("-")[0], lambda kind=kind: Server(kind), "fanout --connections 500", during=profile)


def profile(server):
    """Shares of kernel and user space, and the functions on top, while the load is steady."""
    time.sleep(1.2)
    data = f"{TARGET}/measure.perf"
    subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "4000", "-p", str(server.process.pid), "-o", data, "--", "sleep", "2"],
                   check=True, capture_output=True)
    command = ["perf", "report", "-i", data, "--stdio", "-q", "--no-children", "--sort", "sym", "--percent-limit", "0"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [re.match(r"\s*([\d.]+)%\s+\[([.k])\]\s+(.+?)\s*$", line) for line in lines]
    rows = [(float(m[1]), m[2], m[3]) for m in found if m]
    user = sum(percent for percent, kind, _ in rows if kind == ".")
    top = [(percent, name) for percent, kind, name in rows if kind == "."][:12]
    return {"user_percent": user, "top_user": top, "top": [(percent, name) for percent, _, name in rows[:60]]}


ROWS = {f.__name__: f for f in (echo, fanout, paced, burst, idle, slow, stalled, delta, cross, storm, json_fanout, json_echo, commands,
                                resume, log, share)}
# Those that need a broker, by their names alone.
SERVICE_ROWS = {f.__name__: f for f in (kafka_fanout, kafka_commands)}
# What a row's runs are called, if not like it.
RUNS = {"depth", "json fan-out", "json echo", "kafka fan-out", "kafka commands"}


class Results:
    """The raw results, and how they are compared."""

    def __init__(self):
        with open(RAW) as file:
            records = [json.loads(line) for line in file]
        # A row that was run again counts once, with its newest runs.
        newest = {(r["row"], r["variant"], r["round"]): r for r in records}
        self.records = [r for row in [*ROWS, *sorted(RUNS)] for r in newest.values() if r["row"] == row]

    def of(self, row, variant=None):
        return [r for r in self.records if r["row"] == row and variant in (None, r["variant"])]

    def ratios(self, row, over, under, value):
        """Each round's ratio of two variants."""
        one = {r["round"]: value(r) for r in self.of(row, over)}
        other = {r["round"]: value(r) for r in self.of(row, under)}
        return [one[n] / other[n] for n in sorted(one.keys() & other.keys()) if other[n]]

    def spread(self, row, over, under, value):
        ratios = self.ratios(row, over, under, value)
        if not ratios:
            return None
        if len(ratios) == 1:
            return f"{ratios[0]:.2f}"
        return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}–{max(ratios):.2f}, {len(ratios)} rounds)"


def cpu(record):
    return record["report"]["server_cpu"]["us_per_delivery"]


def rate(record):
    return record["report"]["deliveries_per_s"]


def p99(record):
    return record["report"]["latency"]["p99_us"]


def table(results):
    """Target and result of each row; rows without results are left out."""
    rows = []

    def add(what, target, found):
        if found is not None:
            rows.append((what, target, found))

    for row, name in (("echo", "echo, 200 connections, 100 B"), ("fanout", "fan-out 1 → 500, 100 B"), ("paced", "fan-out 1 → 500 at 300 messages/s"),
                      ("burst", "burst 20 × 8 → 500")):
        target = "-" if row == "burst" else "≤ 1.05"
        add(f"{name}: CPU per delivery, uring / bare TCP", target, results.spread(row, "uring", "bare", cpu))
        if row == "echo":
            add(f"{name}: rate, uring / bare TCP", "≥ 0.95", results.spread(row, "uring", "bare", rate))
        add(f"{name}: CPU per delivery, monoio / uring", "≤ 1.18", results.spread(row, "monoio", "uring", cpu))
    add("fan-out: sends per delivery, bytes per send: bare; uring", "equal", sends(results, "fanout"))
    single, burst_rate = [list(map(rate, results.of(row, "uring"))) for row in ("fanout", "burst")]
    if single and burst_rate:
        ratio = statistics.median(burst_rate) / statistics.median(single)
        add("burst: deliveries/s / its own single publisher", "≥ 20", f"{ratio:.0f}")
    depths = [(r["report"]["deliveries_per_s"] / 1e6, r["variant"]) for r in results.of("depth")]
    add("burst: M deliveries/s by messages in flight per publisher", "no cliff", ", ".join(f"{v.split()[0]}: {r:.1f}" for r, v in depths) or None)
    for record in results.of("share"):
        percent = record["extra"]["user_percent"]
        add(f"fan-out: user-space share, {record['variant']}", "≤ 5 %" if record["variant"] == "uring" else "-", f"{percent:.1f} %")
    for record in results.of("idle"):
        slope = record["report"]["server_rss_bytes_per_connection"]
        add(f"idle, {record['variant']}: resident bytes per connection, 2,000 → 15,000", "≤ 1,000", f"{slope:.0f}")
    add_slow(results, add)
    ratio = results.spread("stalled", "beside", "alone", p99)
    add("25 of 250 stalled: p99 of the others / the healthy alone", "≤ 1.1", ratio)
    add_delta(results, add)
    add("cross-core: CPU per delivery, 2 shards / 1", "≤ 1.15", results.spread("cross", "2 shards", "1 shards", cpu))
    for record in results.of("storm"):
        if record["variant"] != "bare":
            add(f"storm of 15,000, {record['variant']}: longest tick", "≤ 50 ms", f"{record['metrics']['ringgate_tick_max_seconds'] * 1e3:.1f} ms")
            target = "≤ 1.5 without verification" if "HS256" in record["variant"] else "-"
            add(f"storm, {record['variant']}: CPU per join, verification included / bare accept + upgrade", target,
                results.spread("storm", record["variant"], "bare", cpu))
    add_json(results, add)
    add_commands(results, add)
    add_kafka(results, add)
    for record in results.of("resume"):
        found = record["report"]
        add(f"resume of 5,000 clients at once, {record['variant']}: until all are served; longest tick, their first connect included", "- ; ≤ 50 ms",
            f"{5000 / found['resumes_per_s']:.2f} s ({found['resumes_per_s']:.0f}/s, {found['resumed']} resumed, {found['losses_told']} lost); "
            f"{record['metrics']['ringgate_tick_max_seconds'] * 1e3:.1f} ms")
    for record in results.of("log"):
        add(f"durable log, {record['variant']}: appends/s; append to acknowledged", "256 in flight ≥ 20 × 1",
            f"{record['appends_per_s']}; p50 {record['p50_us']}, p99 {record['p99_us']} µs")
    return rows


def add_json(results, add):
    for rate in ("", " at 300"):
        what = f"fan-out 1 → 500{rate and ' at 300 messages/s'}, 100 B of payload: CPU per delivery, JSON / frames"
        add(what, "≤ 1.1", results.spread("json fan-out", "json" + rate, "frames" + rate, cpu))
    add("200 connections, 100 B: CPU per answer, JSON heartbeat / bare echo", "≤ 1.1", results.spread("json echo", "json", "frames", cpu))


def add_commands(results, add):
    for record in results.of("commands"):
        found, latency = record["report"], record["report"]["latency"]
        add(f"command path, roll → rolled in {ROLL_ROOMS} rooms, one core, {record['variant']}: rolls/s; latency from when it was due", "-",
            f"{found['deliveries_per_s']:.0f}; p50 {latency['p50_us']:.0f}, p99 {latency['p99_us']:.0f} µs; {cpu(record):.1f} µs CPU per roll")


def add_kafka(results, add):
    for pace in (" at 300", " at 1000", " by in-flight"):
        add(f"fan-out 1 → 500{pace}: CPU per delivery, relay through Kafka / numbered by the home", "-",
            results.spread("kafka fan-out", "kafka" + pace, "embedded" + pace, cpu))
        for bus in ("embedded", "kafka"):
            found = results.of("kafka fan-out", bus + pace)
            if found:
                middle = lambda value: statistics.median(value(record) for record in found)
                latency = [middle(lambda record, at=at: record["report"]["latency"][at]) for at in ("p50_us", "p99_us")]
                add(f"fan-out 1 → 500{pace}, {bus}: events/s; latency", "-",
                    f"{middle(rate) / 500:.0f}; p50 {latency[0]:.0f}, p99 {latency[1]:.0f} µs")
    for record in results.of("kafka commands"):
        found, latency = record["report"], record["report"]["latency"]
        add(f"command → Kafka → worker → event → client, roll → rolled in {ROLL_ROOMS} rooms, {record['variant']}: rolls/s; latency from when it was due",
            "-", f"{found['deliveries_per_s']:.0f}; p50 {latency['p50_us'] / 1e3:.1f}, p99 {latency['p99_us'] / 1e3:.1f} ms; "
            f"{cpu(record):.1f} µs of the gateway's CPU per roll")


def sends(results, row):
    """Sends per delivery and bytes per send; the members' upgrade, welcome and join are in both."""
    found = []
    for variant in ("bare", "uring"):
        records = results.of(row, variant)
        if not records or (variant == "bare" and not records[-1]["sent"]):
            return None
        record = records[-1]
        got = record["report"]["reliable"] + record["report"]["deltas"]
        metrics = record["metrics"]
        count, size = record["sent"] or (metrics["ringgate_sends_total"], metrics["ringgate_sent_bytes_total"])
        wire = record["report"]["bytes_per_s"] / record["report"]["deliveries_per_s"]
        found.append(f"{count / got:.3f} and {size / count:.1f} B ({wire:.1f} B per delivery at the members)")
    return "; ".join(found)


def add_slow(results, add):
    for record in results.of("slow"):
        report, metrics = record["report"], record["metrics"]
        before, after = report["server_rss_samples"][-1][1], report["server_rss_bytes"]
        held = record["extra"]["waiting"]
        backlog = report["published"] * 1000 * (4096 + 30) / 1e6
        add(f"1,000 slow clients, {record['variant']}: growth of resident memory for {report['published']} frames of 4 KiB "
            f"({backlog:.0f} MB addressed to them; {held:.0f} frames, {held * 4126 / 1e6:.0f} MB, waited in queues)", "the shared frames, 1–2 MB, not 1,000 copies",
            f"{(after - before) / 1e6:.1f} MB; short sends {metrics['ringgate_short_sends_total']:.0f}")


def add_delta(results, add):
    for record in results.of("delta"):
        report, metrics = record["report"], record["metrics"]
        variant = record["variant"]
        if variant.startswith("kernel"):
            add(f"deltas, {variant}: age when handed to the kernel, in intervals of {DELTA_INTERVAL * 1e3:.1f} ms", "≤ 2",
                ages(metrics, DELTA_INTERVAL))
        slow = report["stalled_delta_latency"]
        if slow and not variant.startswith("kernel"):
            interval, stalled = 0.02, 50
            per_reader = report["stalled_deliveries"] / stalled / report["seconds"]
            trip = 4 / per_reader * 1e3 if variant == "credit" and per_reader else 0
            bound = f"≤ 2 intervals + round trip = {2 * interval * 1e3 + trip:.0f} ms" if trip else "-"
            add(f"deltas, {variant}: age at a reader of a tenth of the rate ({per_reader:.1f} deltas/s, keys = window = 4, interval 20 ms)", bound,
                f"p50 {slow['p50_us'] / 1e3:.0f}, p99 {slow['p99_us'] / 1e3:.0f}, max {slow['max_us'] / 1e3:.0f} ms")


def ages(metrics, interval):
    """How many deltas were at most 1, 2 intervals old; of all, those of the readers that keep up included."""
    buckets = {}
    for name, value in metrics.items():
        found = re.fullmatch(r'ringgate_delta_age_seconds_bucket\{le="([^"]+)"\}', name)
        if found:
            buckets[float(found[1])] = value
    everything = buckets.get(float("inf"), 0)
    upto = lambda bound: max(value for le, value in buckets.items() if le <= bound * 1.001)
    late = [le for le, value in sorted(buckets.items()) if value >= everything]
    return (f"{100 * upto(interval) / everything:.2f} % ≤ 1, {100 * upto(2 * interval) / everything:.3f} % ≤ 2, "
            f"all ≤ {late[0] / interval:.3g} ({everything:.0f} deltas)")


def report():
    results = Results()
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())[1]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"# End to end, {time.strftime('%Y-%m-%d')}\n")
    print(f"Kernel {platform.release().split('-')[0]}, {model}, {os.cpu_count()} cores, loopback; server pinned to core 0, load to core 1;"
          f" ringgate {commit}.\n\nCommand: `benches/measure.sh`. Only ratios within this run hold. A ratio is the median of the rounds'"
          " ratios, the runs\ntaking turns. Every run's integrity verdict is `intact` unless its line below says otherwise; that `load` exits"
          " non-zero\nagainst a server that drops, doubles or swaps one frame is tested (`src/cli/load/tests.rs`: `exit_codes`,"
          " `a_broken_promise_is_found`).\n")
    print("| row | target | measured here |\n|---|---|---|")
    for what, target, found in table(results):
        print(f"| {what} | {target} | {found} |")
    print("\n## Every run\n\nCPU in cores (`schedstat`, in the window), per delivery in µs, latency in µs. Server and load commands are"
          " `ringgate serve`\nand `ringgate load` (bare: `benches/limit`).\n")
    last = None
    for record in results.records:
        if "report" not in record:
            continue
        if record["row"] != last:
            last = record["row"]
            print(f"\n### {last}\n\n| variant | deliveries/s | server CPU | µs/delivery | load CPU | p50 | p99 | verdict | load |\n|---|---|---|---|---|---|---|---|---|")
        print(line(record))
    for record in results.of("share"):
        print(f"\n### Profile of the fan-out, {record['variant']}: user space {record['extra']['user_percent']:.1f} %\n\n```")
        for percent, name in record["extra"]["top_user"]:
            print(f"{percent:6.2f} %  {name[:110]}")
        print("```")


def line(record):
    found = record["report"]
    server = found["server_cpu"] or {"cores": 0, "us_per_delivery": 0}
    latency = found["latency"] or found["stalled_delta_latency"] or {"p50_us": 0, "p99_us": 0}
    verdict = "intact" if found["intact"] else f"BROKEN {found['faults']}"
    closed = "".join(f", closed {code}: {count}" for code, count in found["closes"].items())
    number = f" {record['round']}" if record["round"] else ""
    arguments = re.sub(r"--token \S+", "--token …", record["load"])
    return (f"| {record['variant']}{number} | {found['deliveries_per_s']:.0f} | {server['cores']:.2f} | {server['us_per_delivery']:.3f} | "
            f"{found['own_cpu_share']:.2f} | {latency['p50_us']:.0f} | {latency['p99_us']:.0f} | {verdict}{closed} | `{arguments} --duration {record['seconds']}` |")


def main():
    arguments = sys.argv[1:]
    if not arguments:
        if os.path.exists(RAW):
            os.remove(RAW)
        arguments = ["run", *ROWS]
        for name in ROWS:
            ROWS[name]()
        return report()
    if arguments[0] == "report":
        return report()
    for name in arguments[1:]:
        (ROWS | SERVICE_ROWS)[name]()


main()
