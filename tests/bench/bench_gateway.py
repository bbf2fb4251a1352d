"""What the gateway does to itself and to the loop: every figure that docs/api.md names.

    python tests/bench/bench_gateway.py latency                command to setpoint in the image, over ipc
    python tests/bench/bench_gateway.py fuzz [--count N]       decoder against random and mutated messages (10^7)
    python tests/bench/bench_gateway.py stream                 1 kHz snapshots to 4 subscribers
    python tests/bench/bench_gateway.py footprint              resident memory and CPU of the gateway at 10 Hz
    python tests/bench/bench_gateway.py hostile [--seconds S]  floods, half-open connections, slow subscribers
    [--out DIR] [--smoke]

Several may be named; without a name all but fuzz, as in make bench. All but fuzz run the real processes over the
simulated demo site, in folders of their own. One JSON object a figure.
"""

import contextlib
import inspect
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import harness
import msgpack
import zmq

from tidegate.config.site import load_site
from tidegate.ext.abi.shared import Shared
from tidegate.runtime.api import messages
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.gateway import ops
from tidegate.runtime.supervisor.supervisor import Supervisor

ATTACK = str(Path(__file__).with_name("attack.py"))
ARM_S = 30.0  # a full run waits so long for the cabinet to be armed
DEMO = Path(str(files("tidegate.config").joinpath("demo/site.toml")))


FIGURES: list[dict[str, Any]] = []


def report(name: str, **figures: Any) -> None:
    """Print one figure, and keep it for --out."""
    FIGURES.append({"figure": name, **figures})
    print(json.dumps(FIGURES[-1]), flush=True)


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@contextlib.contextmanager
def running(**changes: Any) -> Any:
    """The demo site with all its processes but the sidecar; changes to [site] and [gateway]."""
    site = load_site(DEMO)
    update: dict[str, Any] = {}
    if "snapshot_hz" in changes:
        update["site"] = site.site.model_copy(update={"snapshot_hz": changes["snapshot_hz"]})
    if "gateway" in changes:
        update["gateway"] = site.gateway.model_copy(update=changes["gateway"])
    folder = site.folder
    site = site.model_copy(update=update)
    site._folder = folder
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        with Supervisor(site, runtime=root / "run", state=root / "state", sidecar=False, out=lambda line: None) as one:
            with one.client() as client:
                client.timeout_s = 20
                until = time.monotonic() + ARM_S
                while client.why()["mode"] not in ("run", "derated") and time.monotonic() < until:
                    time.sleep(0.1)
            yield one


def status_kib(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- latency ----


def latency(count: int = 1000) -> None:
    """From the client's send to the first image whose cycle has taken the order over, less one cycle."""
    with running() as site, site.client() as client:
        memory: Shared = site.shared
        times: list[float] = []
        answers: list[float] = []
        with client.lease(period_s=3.0) as lease:
            for number in range(count):
                before = memory.order(1).seq
                sent = time.monotonic_ns()
                result: list[float] = []

                def look(before: int = before, sent: int = sent, result: list[float] = result) -> None:
                    while memory.order(1).seq == before:
                        time.sleep(0.00005)
                    seq = memory.order(1).seq
                    while memory.applied(1) < seq:
                        time.sleep(0.00005)
                    result.append((time.monotonic_ns() - sent) / 1e6)

                watcher = threading.Thread(target=look)
                watcher.start()
                lease.setpoint(float(number % 100), 5.0)
                answers.append((time.monotonic_ns() - sent) / 1e6)
                watcher.join()
                times.append(result[0])
                time.sleep(0.021)
        period_ms = site.site.site.period_us / 1000
        over = [one - period_ms for one in times]
        report(
            "command to setpoint in the image, ms above one cycle",
            p50=round(statistics.median(over), 3), p99=round(percentile(over, 99), 3), max=round(max(over), 3),
            answer_p50=round(statistics.median(answers), 3), count=count, asked={"p50": 2, "p99": 5},
        )  # fmt: skip


# ---- fuzz ----


def fuzz(count: int = 10_000_000, seed: int = 1) -> None:
    """Random bytes, mutated valid requests and grammar-made maps; anything but a request or a Refused is a finding."""
    dice = random.Random(seed)
    valid = [
        msgpack.packb(body)
        for body in (
            {"v": 1, "id": "a", "op": "get", "points": ["site.grid_w"]},
            {"v": 1, "id": "b", "op": "setpoint", "lease": "0" * 32, "seq": 1, "setpoint_w": 5.5, "for_ms": 100},
            {"v": 1, "id": "c", "op": "lease", "action": "acquire", "priority": "ems", "period_ms": 100},
            {"v": 1, "id": "d", "op": "limit", "import_w_max": 1000.0, "for_ms": 1000, "not_after_t_ns": 5},
            {"v": 1, "id": "e", "op": "schedule", "steps": [{"start_utc_s": 1, "setpoint_w": 2.0}], "end_utc_s": 9},
            {"v": 1, "id": "f", "op": "replay", "stream": "meter", "boot": "0" * 32, "seq": 4, "count": 9},
            {"v": 1, "id": "g", "op": "mode", "mode": "stop"},
        )
    ]
    odd = [
        float("nan"),
        float("inf"),
        -0.0,
        1e308,
        2**63,
        -(2**60),
        None,
        True,
        b"x",
        [],
        {},
        "",
        "x" * 300,
        [[[[[[[1]]]]]]],
    ]
    findings = accepted = refused = 0
    began = time.monotonic()
    parse = ops.parse
    for number in range(count):
        how = number % 4
        if how == 0:
            data = dice.randbytes(dice.randrange(0, 40))
        elif how in (1, 2):
            raw = bytearray(valid[dice.randrange(len(valid))])
            for _ in range(dice.randrange(1, 4)):
                at = dice.randrange(len(raw))
                fate = dice.random()
                if fate < 0.6:
                    raw[at] = dice.randrange(256)
                elif fate < 0.8:
                    del raw[at]
                else:
                    raw.insert(at, dice.randrange(256))
                if not raw:
                    break
            data = bytes(raw)
        else:
            body = msgpack.unpackb(valid[dice.randrange(len(valid))])
            body[dice.choice([*body, "other"])] = odd[dice.randrange(len(odd))]
            data = msgpack.packb(body)
        try:
            request = parse(data)
            accepted += 1
            power = getattr(request, "setpoint_w", 0.0)
            if not -1e9 <= power <= 1e9:
                raise AssertionError(f"accepted {request}")
        except messages.Refused:
            refused += 1
        except BaseException as why:
            findings += 1
            report("finding", data=data.hex(), why=repr(why))
            if isinstance(why, KeyboardInterrupt):
                break
    report("fuzz of the command decoder", messages=count, seed=seed, findings=findings, accepted=accepted,
        refused=refused, seconds=round(time.monotonic() - began),
        asked={"messages": 10_000_000, "findings": 0})  # fmt: skip


# ---- stream ----


def stream(seconds: float = 20.0, hz: float = 1000.0, subscribers: int = 4) -> None:
    """Snapshots at 1 kHz to four subscriber processes on ipc; drops by sequence at each and at the gateway."""
    with running(snapshot_hz=hz) as site, site.client() as client:
        client.timeout_s = 20
        pid = site.children["gateway"].pid
        before, cpu, began = client.health()["gateway"], cpu_s(pid), time.monotonic()
        words = [sys.executable, ATTACK, "listen", site.endpoint, str(seconds)]
        others = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(subscribers)]
        told = [json.loads(other.communicate()[0]) for other in others]
        after = client.health()["gateway"]
        report(
            "snapshots at 1 kHz to 4 subscribers on ipc",
            hz=hz, seconds=seconds, got=[one["got"] for one in told], lost=[one["lost"] for one in told],
            dropped_at_gateway=after["snapshots_dropped"] - before["snapshots_dropped"],
            gateway_cpu=round((cpu_s(pid) - cpu) / (time.monotonic() - began), 3), asked={"lost": 0},
        )  # fmt: skip


def footprint(seconds: float = 30.0) -> None:
    """Resident memory and CPU share of the gateway at 10 Hz with one subscriber."""
    with running(snapshot_hz=10.0) as site, site.client() as client:
        pid = site.children["gateway"].pid
        heard = client.subscribe("snapshot", "meter", "event")
        time.sleep(2)
        cpu, began = cpu_s(pid), time.monotonic()
        while time.monotonic() - began < seconds:
            heard.receive(0.5)
        report(
            "gateway at 10 Hz",
            rss_kib=status_kib(pid, "VmRSS"), peak_kib=status_kib(pid, "VmHWM"),
            cpu_share=round((cpu_s(pid) - cpu) / (time.monotonic() - began), 4),
            asked={"rss_kib": 48 * 1024, "cpu_share": 0.1},
        )  # fmt: skip


# ---- hostile ----


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def half_open(host: str, port: int, path: str, count: int, end: threading.Event) -> None:
    """Connections that say nothing, half of them TCP and half on the UNIX socket, opened anew as they are closed."""
    held: list[socket.socket] = []
    while not end.is_set():
        while len(held) < count and not end.is_set():
            family = socket.AF_INET if len(held) % 2 else socket.AF_UNIX
            one = socket.socket(family)
            one.setblocking(False)
            with contextlib.suppress(OSError):
                one.connect((host, port) if family == socket.AF_INET else path)
            held.append(one)
        end.wait(0.5)
        still = []
        for one in held:
            try:
                gone = one.recv(64, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
            except BlockingIOError:
                gone = False
            except OSError:
                gone = True
            one.close() if gone else still.append(one)
        held = still
    for one in held:
        one.close()


def attack(*words: Any) -> subprocess.Popen[str]:
    """Start an attacker; it is niced, for the question is what it does through the gateway and not through the CPU."""
    shown = [str(word) for word in words]
    return subprocess.Popen(["nice", "-n", "10", sys.executable, ATTACK, *shown], stdout=subprocess.PIPE, text=True)


def hostile(seconds: float = 40.0, malformed: int = 1_000_000) -> None:
    """All attacks at once beside a lease holder; the loop's lateness and work before and during them."""
    port = free_port()
    options = {
        "endpoint": f"tcp://127.0.0.1:{port}",
        "publish": f"tcp://127.0.0.1:{free_port()}",
        "plain_loopback": True,
    }
    with running(gateway=options) as site, site.client() as client:
        client.timeout_s = 20
        memory: Shared = site.shared
        pid = site.children["gateway"].pid
        names = ("lateness", "work")

        def span(length: float) -> dict[str, dict[str, float]]:
            before = {name: memory.histogram(name) for name in names}
            time.sleep(length)
            return {name: memory.histogram(name).since(before[name]).summary() for name in names}

        with client.lease(period_s=2.0) as lease:
            lease.setpoint(0.0, 3600.0)
            quiet = span(seconds)
            rss = status_kib(pid, "VmRSS")
            order = memory.order(1)
            end = threading.Event()
            opener = threading.Thread(
                target=half_open, args=("127.0.0.1", port, f"{site.runtime}/api", 1000, end), daemon=True
            )
            opener.start()
            slow = []
            context = zmq.Context()
            for _ in range(8):  # subscribers that never read
                deaf = context.socket(zmq.SUB)
                deaf.setsockopt(zmq.RCVHWM, 1)
                deaf.setsockopt(zmq.SUBSCRIBE, b"")
                deaf.connect(f"ipc://{site.runtime}/stream")
                slow.append(deaf)
            api = f"ipc://{site.runtime}/api"
            attackers = [attack("malformed", api, malformed // 2, seconds + 20) for _ in range(2)]
            valid = attack("valid", f"tcp://127.0.0.1:{port}", 10_000, seconds)
            attacked = span(seconds)
            health_s = time.monotonic()
            try:
                answered = client.health()["core"]["running"]
            except ClientError as why:
                answered = str(why)
            health_s = time.monotonic() - health_s
            kept = memory.order(1).value == order.value and not lease.lost
            sent = [json.loads(one.communicate()[0])["sent"] for one in attackers]
            commands = json.loads(valid.communicate()[0])
            rss_after = status_kib(pid, "VmRSS")
            counts = client.health()["requests"]
            end.set()
            opener.join()
            context.destroy(0)
        report(
            "hostile load: loop beside it",
            **{f"{name}_p999_us": [round(one[name]["p999"] / 1e3, 1) for one in (quiet, attacked)] for name in names},
            **{f"{name}_p50_us": [round(one[name]["p50"] / 1e3, 1) for one in (quiet, attacked)] for name in names},
            ratio={name: round(attacked[name]["p999"] / max(1.0, quiet[name]["p999"]), 2) for name in names},
            asked={"ratio": 1.1},
        )  # fmt: skip
        report(
            "hostile load: gateway after it",
            malformed_sent=sent, valid=commands, setpoint_kept=kept,
            same_process=site.children["gateway"].pid == pid, answered=answered, answer_s=round(health_s, 3),
            rss_kib=[rss, rss_after], requests=counts,
        )  # fmt: skip


JOBS: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {  # and what a smoke run gives them
    "latency": (latency, {"count": 20}),
    "stream": (stream, {"seconds": 1.0, "subscribers": 2}),
    "footprint": (footprint, {"seconds": 1.0}),
    "hostile": (hostile, {"seconds": 2.0, "malformed": 10_000}),
    "fuzz": (fuzz, {"count": 5_000}),
}


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("figures", nargs="*", choices=[*JOBS, []], help="all but fuzz when none is named")
    parser.add_argument("--count", type=int, help="messages of fuzz, commands of latency")
    parser.add_argument("--seconds", type=float, help="of stream, footprint and hostile")
    args = parser.parse_args()
    global ARM_S
    if args.smoke:
        ARM_S = 0.0
    with harness.conditions(args) as given:
        given.peer("all processes", "ordinary priority but for the core, which asks for what a site's core asks for")
        for name in args.figures or ([*JOBS] if args.smoke else [*JOBS][:-1]):
            job, short = JOBS[name]
            taken = inspect.signature(job).parameters
            said = {key: value for key in ("count", "seconds") if (value := getattr(args, key)) and key in taken}
            job(**((short if args.smoke else {}) | said))
    harness.write(args, "gateway", FIGURES, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
