"""Each process of a site, confined by its own `main`, tries to step over: into another's files, processes and calls.

In the place of what it would do next stands a list of tries, so that what is tried is the process as it is shipped.
The same tries all succeed in a process that nobody confined.
"""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.ext.abi.shared import Shared
from tidegate.ext.cycle.recorder import Ring
from tidegate.runtime.console.__main__ import EXIT_ANOTHER_PORT
from tidegate.runtime.core import process
from tidegate.runtime.core.sealed import sealed
from tidegate.runtime.state import sandbox, syscalls

ROOT = Path(__file__).resolve().parents[3]
SITE = ROOT / "config/sites/simulated.toml"

TRIES = """
import json, os, socket, subprocess, sys
from pathlib import Path
STATE, RUN, SITE, PARENT = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
def put(path):
    made = path.with_name("." + path.name + ".try")
    made.write_text("x")
    made.unlink()
def family(kind): socket.socket(kind, socket.SOCK_STREAM).close()
def process():
    if os.fork() == 0: os._exit(0)
    os.wait()
TRIES = {
    "ledger": lambda: put(STATE / "carbon/ledger.db"),
    "latches": lambda: put(STATE / "held/latches.json"),
    "journal": lambda: put(STATE / "journal/meter-0000000000.seg"),
    "recordings": lambda: put(STATE / "recordings/a.mcap"),
    "telemetry": lambda: put(STATE / "telemetry/telemetry.db"),
    "users": lambda: put(STATE / "console/users.json"),
    "page": lambda: put(STATE / "web/tokens.json"),
    "messages": lambda: put(STATE / "notify/notify.sqlite"),
    "keys": lambda: put(STATE / "keys/server.key"),
    "device key": lambda: put(STATE / "carbon-key.pem"),
    "site file": lambda: put(SITE),
    "sockets": lambda: put(RUN / "api"),
    "the pipe to stop by": lambda: os.close(os.open(RUN / "halt", os.O_WRONLY | os.O_NONBLOCK)),
    "descriptors": lambda: os.close(os.open(f"/proc/{PARENT}/fd/0", os.O_RDONLY)),
    "memory": lambda: os.close(os.open(f"/proc/{PARENT}/mem", os.O_RDWR)),
    "a device": lambda: os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)),
    "start a program": lambda: subprocess.run(["true"]),
    "start a process": process,
    "end others": lambda: os.kill(PARENT, 18),
    "order others to stop": lambda: os.kill(PARENT, 10),
    "tcp": lambda: family(socket.AF_INET),
    "unix": lambda: family(socket.AF_UNIX),
}
def tries(*_, **__):
    done = []
    for name, what in TRIES.items():
        try: what(); done.append(name)
        except OSError: pass
    print("tried", json.dumps(done), flush=True)
    os._exit(0)
import contextlib, mmap, types
"""
FOLDERS = ["--runtime-dir", "{run}", "--state-dir", "{state}"]
PROCESSES = {
    "free": ("tries()", []),
    "gateway": (
        "import tidegate.runtime.gateway.__main__ as one; one.Gateway = tries",
        ["--program-fd", "{program}", "--shared-fd", "{shared}", *FOLDERS],
    ),
    "remote": (
        "import tidegate.runtime.gateway.remote as one; one.Remote = tries",
        ["--program-fd", "{program}", *FOLDERS],
    ),
    "recorder": (
        "import types; import tidegate.runtime.recording.__main__ as one\n"
        "one.recorder = types.SimpleNamespace(Ring=tries)",
        ["--program-fd", "{program}", "--ring-fd", "{ring}", "--endpoint", "ipc://{run}", "--state-dir", "{state}"],
    ),
    "sidecar": (
        "import tidegate.runtime.carbon.__main__ as one\n"
        "from tidegate.ext.abi import program\n"
        "one.site_of_gateway = lambda *_: program.describe(os.pread({program}, 1 << 24, 0))\n"
        "one.open_ledger = tries",
        ["--endpoint", "ipc://{run}", "--state-dir", "{state}", "--site", "{site}"],
    ),
    "telemetry": (
        "import tidegate.runtime.telemetry.__main__ as one; one.EnergyStore = tries",
        ["--state-dir", "{state}", "--site", "{site}"],
    ),
    "console": (
        "import tidegate.runtime.console.__main__ as one; one.Client = tries",
        ["--endpoint", "ipc://{run}", "--state-dir", "{state}", "--site", "{site}", "--port", "/dev/null"],
    ),
    "web": (
        "import tidegate.runtime.web.web_process as one\n"
        "served = one.Served('ipc://{run}', STATE, '127.0.0.1', 45873, site_file=SITE)\n"
        "one.main = lambda: (one.confine(served), tries())",
        [],
    ),
    "notify": (
        "import tidegate.runtime.cli.notify_commands as one\n"
        "import tidegate.runtime.notify.message_queue as queues; queues.MessageQueue = tries\n"
        "one._read = lambda path: ('state', types.SimpleNamespace(to=()), SITE.parent)\n"
        "one.main = lambda: one.run.callback(SITE, STATE.parent)",
        [],
    ),
    "core": (
        "import tidegate.runtime.core.process as one; one.Shared = tries",
        ["--program-fd", "{program}", "--shared-fd", "{shared}"],
    ),
}
REMOTE = '\n[gateway]\nendpoint = "tcp://127.0.0.1:45871"\n'
# What each does at its work; everything else of TRIES is refused.
MAY = {
    "gateway": {"latches", "journal", "sockets", "the pipe to stop by", "unix"},
    "remote": {"keys", "sockets", "the pipe to stop by", "unix", "tcp"},
    "recorder": {"recordings", "unix"},
    "sidecar": {"ledger", "unix", "tcp"},
    "telemetry": {"telemetry", "unix", "tcp"},
    "console": {"users", "site file", "unix", "order others to stop", "the pipe to stop by"},
    # What it starts, a replay or a check of the site file, is behind the same walls.
    "web": {"page", "users", "unix", "tcp", "start a program", "start a process"},
    "notify": {"messages", "unix", "tcp"},
}
# The core is bounded in its calls and by what it was handed, not by Landlock: it opens the buses, whatever their names.
CORE_MAY_NOT = {"start a program", "start a process", "end others", "order others to stop"}
ALL = {
    "ledger", "latches", "journal", "recordings", "telemetry", "users", "page", "messages", "keys", "device key",
    "site file", "sockets", "the pipe to stop by", "descriptors",
    "memory", "a device", "start a program", "start a process", "end others", "order others to stop",
    "tcp", "unix",
}  # fmt: skip
HELPER = "import signal, sys; signal.signal(10, lambda *_: None); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A site's folders as a running site has them, and the descriptors that the supervisor hands on."""
    root = tmp_path_factory.mktemp("site")
    (root / "etc").mkdir()
    site = root / "etc" / "hall.toml"
    site.write_text(SITE.read_text() + REMOTE)
    state, run = root / "state", root / "run"
    for folder in ("carbon", "held", "journal", "recordings", "telemetry", "console", "web", "notify", "keys"):
        (state / folder).mkdir(parents=True, mode=0o700)
    run.mkdir()
    os.mkfifo(run / "halt")
    pipe = os.open(run / "halt", os.O_RDWR | os.O_NONBLOCK)
    program = sealed("tidegate-program", compile_site(load_site(site)))
    _, shared = Shared.memfd()
    ring = Ring.memfd(2)
    yield {"site": site, "state": state, "run": run, "program": program, "shared": shared, "ring": ring}
    for fd in (program, shared, ring, pipe):
        os.close(fd)


def done_by(name: str, place: dict[str, object]) -> set[str]:
    """What a process of the site succeeds in once its `main` has confined it."""
    setup, words = PROCESSES[name]
    setup = setup.replace("{program}", str(place["program"]))
    code = f"{TRIES}\n{setup}\nsys.argv = ['x', *sys.argv[5:]]\nsys.exit(one.main())\n"
    with subprocess.Popen([sys.executable, "-c", HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        given = [place["state"], place["run"], place["site"], parent.pid]
        fds = [place["program"], place["shared"], place["ring"]]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, given), *(word.format(**place) for word in words)],
            pass_fds=fds, capture_output=True, text=True, timeout=120,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        assert parent.poll() is None, "whoever was signalled lives"
        parent.stdin.close()
    said = [line for line in done.stdout.splitlines() if line.startswith("tried ")]
    assert said, done.stderr
    assert "threads were there before" not in done.stderr, done.stderr
    return set(json.loads(said[0].removeprefix("tried ")))


needs = pytest.mark.skipif(
    sandbox.version() < 6 or syscalls.machine() is None, reason="this kernel cannot take it all away"
)


@needs
def test_nobody_confined_could_do_all_of_it(place):
    assert done_by("free", place) >= ALL


@needs
@pytest.mark.parametrize("name", list(MAY))
def test_a_process_reaches_its_own_and_nothing_else(name, place):
    assert done_by(name, place) == MAY[name]


@needs
def test_the_core_starts_nothing_and_signals_nobody(place):
    assert done_by("core", place) & CORE_MAY_NOT == set()


def test_the_page_says_the_same():
    folders = {"latches": "held/", "journal": "journal/", "keys": "keys/", "recordings": "recordings/",
               "ledger": "carbon/", "telemetry": "telemetry/", "users": "console/",
               "page": "web/", "messages": "notify/"}  # fmt: skip
    text = (ROOT / "docs/architecture.md").read_text().partition("### What each process may")[2].partition("###")[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    told = {row[0].strip(): set(re.findall(r"`(\w+/)`", row[1])) for row in rows}
    assert {name: told[name] for name in MAY} == {
        name: {folders[what] for what in may if what in folders} for name, may in MAY.items()
    }


def test_what_two_processes_write_is_what_they_have_to_share():
    """The folder of the sockets, and the table of users, to which the page adds logins. Latches and stops have a second
    writer too: the supervisor, which is not confined.
    """
    writers = {
        what: [name for name, may in MAY.items() if what in may]
        for what in ALL - {"unix", "tcp", "the pipe to stop by"}
    }
    assert {what: names for what, names in writers.items() if len(names) > 1} == {
        "sockets": ["gateway", "remote"],
        "users": ["console", "web"],
    }


@needs
def test_a_core_beside_a_bus_that_is_a_process_may_start_it_and_says_so(place, capfd):
    class Bus:
        name, interface = "bms", "slcan:/dev/ttyACM0"

    class Site:
        can = (Bus,)

    process.give_up(Site, {})
    assert "no filter of calls: slcan:/dev/ttyACM0" in capfd.readouterr().err
    subprocess.run(["true"], check=True)


@needs
@pytest.mark.parametrize("there_before", [True, False])
def test_a_port_that_comes_later_is_opened_by_a_new_console(tmp_path, there_before):
    """The right to a device is given once, by what its name leads to then; the supervisor starts the next process."""
    master, slave = pty.openpty()
    port = tmp_path / "port"
    if there_before:
        port.symlink_to(os.ttyname(slave))
    words = ["--endpoint", f"ipc://{tmp_path}/run/site", "--state-dir", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", "tidegate.runtime.console", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as one:
        try:
            assert one.stdout is not None
            first = one.stdout.readline()
            if there_before:
                assert first.startswith(b"console: ready on")
            else:
                assert first == b"console: waiting\n"
                port.symlink_to(os.ttyname(slave))
                assert one.wait(60) == EXIT_ANOTHER_PORT
        finally:
            one.kill()
            for fd in (master, slave):
                os.close(fd)
