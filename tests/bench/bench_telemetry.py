"""CPU and memory of the telemetry process: 200 PDUs with 40 outlets each 10 s, 2,000 GPUs each second, on one core.

    python tests/bench/bench_telemetry.py [--seconds 60]

The agents are another process: a UDP responder with the objects of APC rPDU2 on 200 loopback addresses, and an HTTP
server with the two vectors of a Prometheus. Prints the load of the process alone, with the figures that it should keep.
"""

import json
import multiprocessing
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import harness

from tidegate.runtime.telemetry import snmp_codec as codec
from tidegate.runtime.telemetry.energy_store import opened

PDUS, OUTLETS, CARDS = 200, 40, 2000
CPU_MAX, RSS_MIB_MAX = 0.25, 150
ROWS = {(1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 4, 3, 1, 5, 1): 1000} | {
    (1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 9, 4, 3, 1, 7, number): 250 for number in range(1, OUTLETS + 1)
}
ORDER = sorted(ROWS)


def bound(oid, value):
    """One object of an answer."""
    known = codec.integer(value) if value is not None else bytes((codec.END_OF_VIEW, 0))
    return codec.wrapped(codec.SEQUENCE, codec._oid(oid) + known)


def reply(data, kept):
    """An agent's answer to a GET or a GETBULK of one object."""
    at, end = codec.expect(data, 0, len(data), codec.SEQUENCE)
    _, at = codec.number_at(data, at, end)
    _, at = codec.expect(data, at, end, codec.OCTETS)
    tag, at, end = codec.element(data, at, end)
    number, at = codec.number_at(data, at, end)
    _, at = codec.number_at(data, at, end)
    _, at = codec.number_at(data, at, end)
    rest = bytes(data[at:end])
    if (tag, rest) not in kept:
        at, end = codec.expect(rest, 0, len(rest), codec.SEQUENCE)
        asked = []
        while at < end:
            inner, stop = codec.expect(rest, at, end, codec.SEQUENCE)
            start, after = codec.expect(rest, inner, stop, codec.OID)
            asked.append(codec._oid_of(rest, start, after))
            at = stop
        if tag == codec.GET_BULK:
            found = [oid for oid in ORDER if oid > asked[0]][:24]
            rows = [bound(oid, ROWS[oid]) for oid in found] or [bound(asked[0], None)]
        else:
            rows = [bound(oid, ROWS[oid]) for oid in asked]
        kept[tag, rest] = codec.wrapped(codec.SEQUENCE, b"".join(rows))
    head = codec.integer(number) + codec.integer(0) + codec.integer(0)
    pdu = codec.wrapped(codec.RESPONSE, head + kept[tag, rest])
    return codec.wrapped(codec.SEQUENCE, codec.integer(1) + codec.wrapped(codec.OCTETS, b"public") + pdu)


def agents(ports):
    """Serve PDUs and cards until killed. ports : gets (UDP port, HTTP port)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    selector, kept = selectors.DefaultSelector(), {}
    port = 0
    for number in range(PDUS):
        one = socket.socket(type=socket.SOCK_DGRAM)
        one.bind((f"127.0.{1 + number // 200}.{1 + number % 200}", port))
        port = one.getsockname()[1]
        selector.register(one, selectors.EVENT_READ)
    vectors = {}
    for name, value in (("POWER", "412.5"), ("UTIL", "93")):
        result = [
            {
                "metric": {
                    "__name__": f"DCGM_FI_DEV_{name}", "gpu": str(n % 8), "UUID": f"GPU-{n:08x}-0000-0000",
                    "job": "gpus", "device": f"nvidia{n % 8}", "modelName": "NVIDIA H100 80GB HBM3",
                    "Hostname": f"node{n // 8:03d}", "instance": f"10.0.0.{n // 8}:9400",
                    "exported_pod": f"train-{n // 64}-abcde", "exported_namespace": f"team-{n // 512}",
                },
                "value": [1_700_000_000.123, value],
            }
            for n in range(CARDS)
        ]  # fmt: skip
        answer = {"status": "success", "data": {"resultType": "vector", "result": result}}
        vectors[name] = json.dumps(answer).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = vectors["POWER" if "POWER" in self.path else "UTIL"]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    threading.Thread(target=server.serve_forever, daemon=True).start()
    ports.send((port, server.server_address[1]))
    while True:
        for key, _ in selector.select():
            data, addr = key.fileobj.recvfrom(4096)
            key.fileobj.sendto(reply(data, kept), addr)


def site(folder, udp, http):
    hosts = ", ".join(f'"127.0.{1 + n // 200}.{1 + n % 200}:{udp}"' for n in range(PDUS))
    demo = files("tidegate.config").joinpath("demo/site.toml").read_text(encoding="utf-8")
    path = folder / "site.toml"
    path.write_text(
        f'{demo}\n[[telemetry]]\nname = "pdus"\nkind = "snmp"\nmodel = "apc-rpdu2"\nevery_s = 10\nhosts = [{hosts}]\n'
        f'[[telemetry]]\nname = "gpus"\nkind = "prometheus"\nexporter = "dcgm"\nevery_s = 1\n'
        f'url = "http://127.0.0.1:{http}"\n'
    )
    return path


def status(pid, field):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1])


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


FIGURES = []


def report(what, value, asked):
    """Print one figure beside the one asked for, and keep it for --out."""
    FIGURES.append({"figure": what, "measured": value, "asked": asked})
    print(f"{what:40} {value:44} {asked}", flush=True)


def measured(folder, seconds, settle_s):
    """(CPU share of the process, peak RSS in MiB, things counted by level, hosts that answer by source)."""
    ours, theirs = multiprocessing.Pipe()
    serving = multiprocessing.Process(target=agents, args=(theirs,), daemon=True)
    serving.start()
    words = [sys.executable, "-m", "tidegate.runtime.telemetry", "--site", str(site(folder, *ours.recv())),
             "--state-dir", str(folder)]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(settle_s)  # tables walked, first write done
        before, began = cpu_s(process.pid), time.monotonic()
        time.sleep(seconds)
        used, elapsed = cpu_s(process.pid) - before, time.monotonic() - began
        rss_mib = status(process.pid, "VmHWM") / 1024
        process.terminate()
        process.wait(60)
    serving.kill()
    store = opened(folder)
    rows, states = list(store.rows(0, 2**40)), store.states()
    store.close()
    levels = {level: len({row.name for row in rows if row.level == level}) for level in ("pdu", "card")}
    return used / elapsed, rss_mib, levels, {state[0]: state[2] - state[3] for state in states}


def main():
    parser = harness.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    settle_s = 20.0
    if args.smoke:
        args.seconds, settle_s = 10.0, 15.0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with harness.conditions(args) as given, tempfile.TemporaryDirectory() as name:
        given.peer("agents", "200 UDP addresses of 127.0/16 and an HTTP server, in a process of their own")
        share, rss_mib, levels, heard = measured(Path(name), args.seconds, settle_s)
    report("hosts that answer", ", ".join(f"{source} {count}" for source, count in sorted(heard.items())), "200 and 1")
    report("things counted", f"{levels['pdu']} PDUs, {levels['card']} cards", f"{PDUS} and {CARDS}")
    report("processor, of one core", f"{share:.1%}", f"at most {CPU_MAX:.0%}")
    report("memory, peak RSS", f"{rss_mib:.0f} MiB", f"at most {RSS_MIB_MAX} MiB")
    harness.write(args, "telemetry", FIGURES, given)
    whole = levels == {"pdu": PDUS, "card": CARDS}
    return 0 if args.smoke or (whole and share <= CPU_MAX and rss_mib <= RSS_MIB_MAX) else 1


if __name__ == "__main__":
    sys.exit(main())
