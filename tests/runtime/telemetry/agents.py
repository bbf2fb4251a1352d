"""Agents for the tests: net-snmp's own snmpd over recorded objects, a real Prometheus, a Redfish stub.

The Redfish one is a stub of ours: its bodies have the shapes of DMTF's published mock-ups (DSP2043), cut to the fields
that are read. snmpd and Prometheus are the real programs of Debian; the objects and series behind them are ours.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"

# A persistent `pass` program of snmpd: OID -> (type, value), walked in the order of the numbers.
PASS_SCRIPT = """
import json, sys
rows = {tuple(map(int, key.split("."))): value for key, value in json.load(open(sys.argv[1])).items()}
order = sorted(rows)
for line in iter(sys.stdin.readline, ""):
    word = line.strip()
    if word == "PING":
        print("PONG", flush=True)
        continue
    asked = tuple(map(int, sys.stdin.readline().strip().strip(".").split(".")))
    found = asked if word == "get" and asked in rows else None
    if word == "getnext":
        found = next((one for one in order if one > asked), None)
    if found is None:
        print("NONE", flush=True)
    else:
        kind, value = rows[found]
        print("." + ".".join(map(str, found)), kind, value, sep="\\n", flush=True)
"""


def eventually(ask, good, seconds=60.0):
    until = time.monotonic() + seconds
    got = None
    while time.monotonic() < until:
        try:
            got = ask()
            if good(got):
                return got
        except OSError as why:
            got = why
        time.sleep(0.1)
    raise AssertionError(f"never good: {got}")


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(type=kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def apc(outlets=8, watts=250, total=None):
    """Objects of an APC rPDU2, as snmpwalk shows them."""
    rows = {"1.3.6.1.4.1.318.1.1.26.4.3.1.5.1": ("integer", outlets * watts // 10 if total is None else total)}
    for number in range(1, outlets + 1):
        rows[f"1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.{number}"] = ("integer", watts)
    rows["1.3.6.1.4.1.318.1.1.26.10.2.2.1.8.1"] = ("integer", 239)
    rows["1.3.6.1.4.1.318.1.1.26.10.2.2.1.10.1"] = ("integer", 41)
    return rows


def raritan(outlets=4, watts=300.5):
    """Objects of a Raritan PX3 with one inlet and one decimal digit, beside current and voltage of each outlet."""
    base, rows = "1.3.6.1.4.1.13742.6", {}
    sensors = [("2.3.1.4.1.1", "3.4.1.7.1.1", round(outlets * watts))]
    sensors += [(f"4.3.1.4.1.{n}", f"5.4.1.7.1.{n}", watts) for n in range(1, outlets + 1)]
    for value_at, digits_at, number in sensors:
        for kind, digits in ((1, 3), (4, 0), (5, 1)):
            rows[f"{base}.5.{value_at}.{kind}"] = ("gauge", round(number * 10) if kind == 5 else 230)
            rows[f"{base}.3.{digits_at}.{kind}"] = ("gauge", digits)
    for sensor, (kind, value) in {1: (10, 243), 2: (11, 38)}.items():
        rows[f"{base}.5.5.3.1.4.1.{sensor}"] = ("gauge", value)
        rows[f"{base}.3.6.3.1.2.1.{sensor}"] = ("integer", kind)
        rows[f"{base}.3.6.3.1.17.1.{sensor}"] = ("gauge", 1 if kind == 10 else 0)
    return rows


@contextlib.contextmanager
def snmpd(folder, rows, root=".1.3.6.1.4.1", community="rack", users=()):
    """net-snmp's agent on a port of this machine. -> HOST:PORT. Skips where it is not installed.

    users : of v3, each (name, hash as snmpd writes it, password, password of AES or "").
    """
    program = shutil.which("snmpd", path=PATH)
    if program is None:
        pytest.skip("snmpd is not installed")
    port = free_port(socket.SOCK_DGRAM)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "serve.py").write_text(PASS_SCRIPT)
    v3 = "".join(
        f'createUser {name} {auth} "{password}"{f" AES {chr(34)}{privacy}{chr(34)}" if privacy else ""}\n'
        f"rouser {name} {'priv' if privacy else 'auth'}\n"
        for name, auth, password, privacy in users
    )
    (folder / "snmpd.conf").write_text(
        f"rocommunity {community} 127.0.0.1\n{v3}"
        f"pass_persist {root} {sys.executable} {folder}/serve.py {folder}/rows.json\n"
    )
    words = [program, "-f", "-Lf", str(folder / "log"), "-C", "-c", str(folder / "snmpd.conf"), "-p",
             str(folder / "pid"), f"udp:127.0.0.1:{port}"]  # fmt: skip
    with subprocess.Popen(words, env={"SNMP_PERSISTENT_DIR": str(folder), "PATH": PATH}) as process:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


class Web:
    """An HTTP server whose pages the test sets: path -> bytes or a function of the path."""

    def __init__(self):
        self.pages, self.asked, self.authorized = {}, [], None
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                web.asked.append(self.path)
                if web.authorized is not None and self.headers.get("Authorization") != web.authorized:
                    self.send_error(401)
                    return
                page = web.pages.get(self.path.partition("?")[0])
                if page is None:
                    self.send_error(404)
                    return
                body = page(self.path) if callable(page) else page
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def redfish(web, watts=412, new=False):
    """A BMC's tree: one chassis with Power and Thermal, or with EnvironmentMetrics as newer ones have it."""
    link = lambda path: {"@odata.id": path}  # noqa: E731
    chassis = {"@odata.id": "/redfish/v1/Chassis/1U", "Id": "1U", "Name": "Computer System Chassis"}
    if new:
        chassis["EnvironmentMetrics"] = link("/redfish/v1/Chassis/1U/EnvironmentMetrics")
    else:
        chassis |= {"Power": link("/redfish/v1/Chassis/1U/Power"), "Thermal": link("/redfish/v1/Chassis/1U/Thermal")}
    pages = {
        "/redfish/v1/Chassis": {"Members@odata.count": 1, "Members": [link("/redfish/v1/Chassis/1U")]},
        "/redfish/v1/Chassis/1U": chassis,
        "/redfish/v1/Chassis/1U/Power": {
            "Id": "Power",
            "PowerControl": [
                {"MemberId": "0", "Name": "Server Power Control", "PowerConsumedWatts": watts},
                {"MemberId": "1", "Name": "CPU Power Control", "PowerConsumedWatts": 90},
            ],
        },
        "/redfish/v1/Chassis/1U/Thermal": {
            "Temperatures": [
                {"Name": "Inlet Temp", "ReadingCelsius": 24, "PhysicalContext": "Intake"},
                {"Name": "CPU1 Temp", "ReadingCelsius": 61.5, "PhysicalContext": "CPU"},
                {"Name": "DIMM Temp", "ReadingCelsius": None, "PhysicalContext": "Memory"},
            ]
        },
        "/redfish/v1/Chassis/1U/EnvironmentMetrics": {
            "PowerWatts": {"Reading": watts}, "TemperatureCelsius": {"Reading": 25.5},
            "HumidityPercent": {"Reading": 44.0},
        },
    }  # fmt: skip
    web.pages.update({path: json.dumps(page).encode() for path, page in pages.items()})


@contextlib.contextmanager
def prometheus(folder, web):
    """A real Prometheus that scrapes `web` each second. -> its URL. Skips where it is not installed."""
    program = shutil.which("prometheus", path=PATH)
    if program is None:
        pytest.skip("prometheus is not installed")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "p.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: gpus\n    static_configs:\n"
        f'      - targets: ["{web.host}"]\n'
    )
    words = [program, f"--config.file={folder}/p.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]  # fmt: skip
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def dcgm(cards=4, watts=300.0, pod="train-0", namespace="ml", idle=1):
    """Text of a DCGM exporter: cards of one host, the last ones claimed by nobody."""
    lines = []
    for gpu in range(cards):
        claimed = gpu < cards - idle
        labels = f'gpu="{gpu}",UUID="GPU-{gpu}",Hostname="n1",modelName="NVIDIA H100"'
        labels += f',exported_pod="{pod}",exported_namespace="{namespace}"' if claimed and pod else ""
        lines.append(f"DCGM_FI_DEV_POWER_USAGE{{{labels}}} {watts if claimed else 70.0}")
        lines.append(f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} {97 if claimed else 0}")
    return ("\n".join(lines) + "\n").encode()


def card_vector(path):
    """What a Prometheus answers of two cards, one of them claimed by nobody."""
    value = "300" if "POWER" in path else "95"
    result = [
        {"metric": {"gpu": "0", "UUID": "GPU-0", "Hostname": "n1", "exported_pod": "train-0",
                    "exported_namespace": "ml"}, "value": [1000.0, value]},
        {"metric": {"gpu": "1", "UUID": "GPU-1", "Hostname": "n1"}, "value": [1000.0, value]},
    ]  # fmt: skip
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
