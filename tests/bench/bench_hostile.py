"""The loop's lateness beside 200 hostile connections to the operator's page, in rounds that alternate with quiet ones.

    python tests/bench/bench_hostile.py [--seconds 20] [--rounds 6]

The simulated site runs at 1 kHz with its page and ten viewers at 10 Hz on it in every round. In every other round a
program of its own holds 200 connections from eight addresses, each of one kind, opened again when closed:

- silent: connected, and nothing more
- half TLS: the first bytes of a ClientHello
- garbage: random bytes before and behind the handshake
- slow: a request head, one byte every 50 ms
- huge head: one header that does not end
- flood: requests for what is not there, as fast as they are answered
- guess: logins with a wrong password
- upgrade: WebSocket handshakes, which the page does not speak
- streams: event streams, as somebody with a login of the role read

Prints p99.9 of both kinds of rounds, the ratio of their medians, the page's memory and processor in both, and what its
viewers and a new visitor get meanwhile. The attackers run on the same machine, so what they cost its processors is in
the ratio too.
"""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import random
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path

import harness
from bench_web import CPU_MAX, HZ, OF_A_LOGIN, RSS_MIB_MAX, VIEWERS, cpu_s, held_mib, login

from tidegate.config.site import load_site
from tidegate.runtime.supervisor.supervisor import Supervisor

CONNECTIONS, ADDRESSES = 200, 8
RATIO_MAX = 1.1
REST_S = 2.0
THERE_S = 120.0
KINDS = ("silent", "half TLS", "garbage", "slow", "huge head", "flood", "guess", "upgrade", "streams")
PERIOD_US = 1000
GUESS = json.dumps({"user": "anna0", "password": "not this one"}).encode()


def head(verb, path, *more, length=0):
    lines = [f"{verb} {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json",
             f"content-length: {length}", *more]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


async def act(kind, reader, writer, cookie, counts):
    """What one connection of a kind does, until the page ends it or the kind has no more to send."""
    if kind == "half TLS":
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(40))
    elif kind == "garbage":
        writer.write(random.randbytes(2000))
    elif kind == "slow":
        for byte in b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"y" * 400:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
    elif kind == "huge head":
        writer.write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ")
        for _ in range(64):
            writer.write(b"y" * 4096)
            await writer.drain()
    elif kind == "upgrade":
        more = ("sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==")
        writer.write(head("GET", "/live", "connection: Upgrade", "upgrade: websocket", *more))
    elif kind == "streams":
        writer.write(head("GET", f"/live?hz={HZ}", f"cookie: {cookie}"))
    while kind in ("flood", "guess"):
        if kind == "guess":
            writer.write(head("POST", "/session/login", length=len(GUESS)) + GUESS)
        else:
            writer.write(head("GET", f"/{random.randrange(1 << 30)}"))
        if not await reader.read(4096):
            return
        counts[f"{kind} answered"] += 1
        await asyncio.sleep(0.02)
    while await reader.read(4096):
        pass


async def one(kind, port, source, cookie, counts):
    """A connection of its kind, again and again."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    turn = 0
    while True:
        turn += 1
        plain = kind in ("silent", "half TLS") or (kind == "garbage" and turn % 2)
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=None if plain else context, local_addr=(source, 0)
            )
            counts[kind] += 1
            try:
                await act(kind, reader, writer, cookie, counts)
            finally:
                writer.close()
        await asyncio.sleep(0.1)


async def attack(port, cookie):
    """All of them until SIGTERM; says when every kind has been there, and at the end how often each came."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # that the page closes them is what it should do
    counts = Counter()
    places = [(KINDS[n % len(KINDS)], f"127.0.0.{2 + n % ADDRESSES}") for n in range(CONNECTIONS)]
    tasks = [asyncio.create_task(one(kind, port, source, cookie, counts)) for kind, source in places]
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    until = time.monotonic() + THERE_S
    while sum(counts[kind] for kind in KINDS) < CONNECTIONS or not all(counts[kind] for kind in KINDS):
        if time.monotonic() > until:
            print(f"not there after {THERE_S:.0f} s: {dict(counts)}", flush=True)
            os._exit(1)
        await asyncio.sleep(0.1)
    print("there", flush=True)
    await end.wait()
    print(json.dumps(counts), flush=True)
    os._exit(0 if tasks else 1)  # not by cancelling: a handshake that hangs is what this program makes


class Viewer(threading.Thread):
    """One viewer on the page all the time; counts the frames it got."""

    def __init__(self, context, port, cookie):
        super().__init__(daemon=True)
        self.frames = 0
        self._held = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
        self._held.request("GET", f"/live?hz={HZ}", headers={"cookie": cookie})
        self._answer = self._held.getresponse()
        assert self._answer.status == 200, self._answer.read()

    def run(self):
        with contextlib.suppress(OSError):
            while line := self._answer.readline():
                self.frames += line.startswith(b"event: values")


def visit(context, port):
    """How long a new visitor waits for the page, s."""
    began = time.monotonic()
    held = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
    held.request("GET", "/")
    answer = held.getresponse()
    assert answer.status == 200 and answer.read()
    held.close()
    return time.monotonic() - began


def one_round(supervisor, page, viewers, context, port, seconds):
    """(p99.9 of the loop's lateness in us, the page's share of a core, RSS in MiB, frames a second and viewer, a visit
    in s)."""
    before, used, frames = supervisor.shared.histogram("lateness"), cpu_s(page.pid), sum(one.frames for one in viewers)
    began = time.monotonic()
    waited_s = visit(context, port)
    time.sleep(seconds)
    took_s = time.monotonic() - began
    late_us = supervisor.shared.histogram("lateness").since(before).summary()["p999"] / 1e3
    share = (cpu_s(page.pid) - used) / took_s
    seen = (sum(one.frames for one in viewers) - frames) / len(viewers) / took_s
    rss_mib = held_mib(page.pid, "VmRSS")
    return {"late_us": late_us, "cpu": share, "rss_mib": rss_mib, "frames": seen, "visit_s": waited_s}


def measured(folder, seconds, rounds):
    """Rounds of both kinds, what the attackers did, the most memory of the page in MiB."""
    path = Path(str(files("tidegate.config").joinpath("sites/simulated.toml")))
    site = load_site(path)
    site = site.model_copy(update={"site": site.site.model_copy(update={"period_us": PERIOD_US})})
    site._folder = path.parent
    env = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(folder / "run"), "TIDEGATE_STATE_DIR": str(folder / "state"),
           "PYTHONUNBUFFERED": "1"}  # fmt: skip
    command = [sys.executable, "-m", "tidegate.runtime.cli", "web", "--site", "simulated", "serve", "--port", "0"]
    quiet, hostile, done = [], [], Counter()
    supervisor = Supervisor(site, runtime=folder / "run", state=folder / "state", sidecar=False)
    with supervisor, subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as page:
        port = int(page.stdout.readline().rpartition(":")[2])
        state = folder / "state" / "simulated"
        context = ssl.create_default_context(cafile=str(state / "web" / "ca.pem"))
        cookies = [login(context, port, state, f"anna{n}") for n in range(VIEWERS // OF_A_LOGIN)]
        insider = login(context, port, state, "rita")
        viewers = [Viewer(context, port, cookies[n // OF_A_LOGIN]) for n in range(VIEWERS)]
        for viewer in viewers:
            viewer.start()
        for at in range(2 * rounds):
            # Which comes first changes from pair to pair: what drifts meets both alike.
            if at % 4 not in (1, 2):
                time.sleep(REST_S)
                quiet.append(one_round(supervisor, page, viewers, context, port, seconds))
                continue
            words = [sys.executable, __file__, "--attack", str(port)]
            with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attacker:
                attacker.stdin.write(f"{insider}\n")
                attacker.stdin.flush()
                heard = attacker.stdout.readline()
                assert heard == "there\n", heard
                time.sleep(REST_S)
                hostile.append(one_round(supervisor, page, viewers, context, port, seconds))
                attacker.terminate()
                done.update(json.loads(attacker.communicate(timeout=120)[0]))
            time.sleep(REST_S)
        peak_mib = held_mib(page.pid, "VmHWM")
        page.terminate()
        page.wait(60)
    return quiet, hostile, done, peak_mib


def report(what, value, asked="no figure"):
    print(f"{what:50} {value:34} {asked}", flush=True)


def main():
    parser = harness.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--attack", type=int, default=0, help="be the attackers of this port")
    args = parser.parse_args()
    if args.attack:
        asyncio.run(attack(args.attack, sys.stdin.readline().strip()))
        return 0
    if args.smoke:
        args.seconds, args.rounds = 2.0, 1
    with harness.conditions(args) as given, tempfile.TemporaryDirectory(prefix="tg") as name:
        given.peer("viewers", f"{VIEWERS} at {HZ} Hz in every round")
        given.peer("attackers", f"{CONNECTIONS} connections from {ADDRESSES} addresses, one process")
        quiet, hostile, done, peak_mib = measured(Path(name), args.seconds, args.rounds)
    of = lambda rounds, what: statistics.median(one[what] for one in rounds)  # noqa: E731
    ratio = of(hostile, "late_us") / of(quiet, "late_us")
    for rounds, kind in ((quiet, "quiet"), (hostile, "hostile")):
        report(f"{kind}: lateness p99.9, each round", ", ".join(f"{one['late_us']:.0f}" for one in rounds) + " us")
    report("ratio of their medians", f"{ratio:.2f}", f"at most {RATIO_MAX}")
    for rounds, kind in ((quiet, "quiet"), (hostile, "hostile")):
        bound = f"at most {CPU_MAX:.0%}" if kind == "quiet" else "no figure"
        report(f"{kind}: processor of the page, of a core", f"{of(rounds, 'cpu'):.1%}", bound)
        report(f"{kind}: frames a second and viewer", f"{of(rounds, 'frames'):.1f}", f"{HZ}")
        report(f"{kind}: a new visitor waits, at most", f"{max(one['visit_s'] for one in rounds) * 1e3:.0f} ms")
    report("memory of the page, RSS, before any attack", f"{quiet[0]['rss_mib']:.0f} MiB", f"at most {RSS_MIB_MAX} MiB")
    most_mib = max(one["rss_mib"] for one in hostile)
    report("with the attackers; the most, at a login", f"{most_mib:.0f}, {peak_mib:.0f} MiB")
    report("what the attackers did", ", ".join(f"{kind} {n}" for kind, n in sorted(done.items())))
    figures = {"quiet": quiet, "hostile": hostile, "ratio": ratio, "attack": done, "peak_mib": peak_mib}
    harness.write(args, "hostile", figures, given)
    good = ratio <= RATIO_MAX and of(quiet, "cpu") <= CPU_MAX and quiet[0]["rss_mib"] <= RSS_MIB_MAX
    ran = all(done[kind] for kind in KINDS) and of(hostile, "frames") > 0
    return 0 if ran and (good or args.smoke) else 1


if __name__ == "__main__":
    sys.exit(main())
