"""What is done to a running site while somebody wants it stopped. Each is taken back when its block ends."""

import contextlib
import mmap
import os
import random
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import zmq

from tests.world.stop.rig import LiveSite
from tidegate.runtime.api.blocking_client import Client, ClientError

GATEWAY, REMOTE = "tidegate.runtime.gateway", "tidegate.runtime.gateway.remote"
CONSOLE, SIDECAR, RECORDER = "tidegate.runtime.console", "tidegate.runtime.carbon", "tidegate.runtime.recording"
CORE = "tidegate.runtime.core.process"
Attack = Callable[[LiveSite], contextlib.AbstractContextManager[None]]
ATTACKS: dict[str, Attack] = {}


def attack(done: Callable[[LiveSite], Iterator[None]]) -> Callable[[LiveSite], Iterator[None]]:
    ATTACKS[done.__name__] = contextlib.contextmanager(done)
    return done


@contextlib.contextmanager
def beside(work: Callable[[], None], every_s: float = 0.0) -> Iterator[None]:
    """Do something again and again beside the test; what is refused is tried again, what is no attack at all fails."""
    end = threading.Event()
    broken: list[Exception] = []

    def turn() -> None:
        while not end.is_set():
            try:
                work()
            except (OSError, ClientError, zmq.ZMQError):
                pass
            except Exception as why:
                broken.append(why)
                return
            end.wait(every_s)

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(30)
    assert not broken, f"the attack broke off: {broken[0]!r}"


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes that stand still."""
    assert all(pids), "what is frozen has to be there"
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """A process that gets no more of something from now on."""
    assert pid
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, what, before)


def killed(pid: int) -> None:
    """End a process at once; one that is not there would be our own group to `kill`."""
    assert pid, "what is killed has to be there"
    os.kill(pid, signal.SIGKILL)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def size_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[0]) * mmap.PAGESIZE


def junk(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 300))


# ---- from other machines and from this one ----


@attack
def half_open_tcp(site: LiveSite) -> Iterator[None]:
    held = []
    for _ in range(1024):
        one = socket.socket()
        one.setblocking(False)
        with contextlib.suppress(OSError):
            one.connect(("127.0.0.1", site.port))
        held.append(one)
    try:
        yield
    finally:
        for one in held:
            one.close()


@attack
def junk_over_tcp(site: LiveSite) -> Iterator[None]:
    rng = random.Random(1)

    def work() -> None:
        with socket.create_connection(("127.0.0.1", site.port), 1.0) as one:
            one.sendall(b"\xff" + junk(rng))

    with beside(work):
        yield


@attack
def greetings_that_end_there(site: LiveSite) -> Iterator[None]:
    held: list[socket.socket] = []

    def work() -> None:
        one = socket.create_connection(("127.0.0.1", site.port), 1.0)
        one.sendall(b"\xff" + bytes(8) + b"\x7f\x03")
        held.append(one)
        if len(held) > 200:
            held.pop(0).close()

    with beside(work):
        yield
    for one in held:
        one.close()


@attack
def junk_on_unix_sockets(site: LiveSite) -> Iterator[None]:
    rng = random.Random(2)

    def work() -> None:
        for name in ("api", "stream", "door"):
            with socket.socket(socket.AF_UNIX) as one:
                one.settimeout(1.0)
                one.connect(str(site.runtime / name))
                one.sendall(junk(rng))

    with beside(work):
        yield


@attack
def connections_that_say_nothing_on_the_box(site: LiveSite) -> Iterator[None]:
    held = []
    for _ in range(300):
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        with contextlib.suppress(OSError):
            one.connect(str(site.runtime / "api"))
        held.append(one)
    try:
        yield
    finally:
        for one in held:
            one.close()


@attack
def subscriptions_without_end(site: LiveSite) -> Iterator[None]:
    with zmq.Context() as context:
        hoard = context.socket(zmq.SUB)
        hoard.setsockopt(zmq.LINGER, 0)
        hoard.connect(f"{site.endpoint}/stream")
        number = iter(range(10**9))

        def work() -> None:
            for _ in range(500):
                hoard.setsockopt(zmq.SUBSCRIBE, b"nothing %d" % next(number))

        with beside(work, 0.01):
            yield
        hoard.close(0)


@attack
def deaf_subscribers(site: LiveSite) -> Iterator[None]:
    with zmq.Context() as context:
        held = []
        for _ in range(16):
            one = context.socket(zmq.SUB)
            one.setsockopt(zmq.RCVHWM, 1)
            one.setsockopt(zmq.SUBSCRIBE, b"")
            one.connect(f"{site.endpoint}/stream")
            held.append(one)
        yield
        for one in held:
            one.close(0)


def raw(site: LiveSite, frames: Callable[[], bytes], every_s: float) -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def run() -> Iterator[None]:
        with zmq.Context() as context:
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(f"{site.endpoint}/api")

            def work() -> None:
                for _ in range(50):
                    dealer.send(frames(), zmq.DONTWAIT)
                while dealer.poll(0):
                    dealer.recv()

            with beside(work, every_s):
                yield
            dealer.close(0)

    return run()


@attack
def requests_without_end(site: LiveSite) -> Iterator[None]:
    import msgpack

    number = iter(range(10**9))
    with raw(site, lambda: msgpack.packb({"v": 2, "op": "health", "id": f"flood{next(number)}"}), 0.005):
        yield


@attack
def requests_that_are_junk(site: LiveSite) -> Iterator[None]:
    rng = random.Random(3)
    with raw(site, lambda: junk(rng), 0.005):
        yield


@attack
def the_same_id_for_everything(site: LiveSite) -> Iterator[None]:
    import msgpack

    with raw(site, lambda: msgpack.packb({"v": 2, "op": "mode", "mode": "arm", "id": "1"}), 0.1):
        yield


# ---- clients that want the opposite ----


@attack
def a_lease_that_is_renewed(site: LiveSite) -> Iterator[None]:
    with site.client() as client:
        try:
            lease = client.ask("lease", action="acquire", priority="maintenance", period_ms=3000)["lease"]
        except ClientError:
            lease = ""
        number = iter(range(10**9))

        def work() -> None:
            client.ask("setpoint", lease=lease, seq=next(number), setpoint_w=-8000.0, for_ms=3000)

        with beside(work, 0.05):
            yield


def repeated(site: LiveSite, order: Callable[[Client], object]) -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def run() -> Iterator[None]:
        with site.client() as client, beside(lambda: order(client) and None, 0.1):
            yield

    return run()


@attack
def somebody_who_acknowledges_again_and_again(site: LiveSite) -> Iterator[None]:
    with repeated(site, lambda client: client.ack()):
        yield


@attack
def a_plan_that_is_sent_again_and_again(site: LiveSite) -> Iterator[None]:
    now = int(time.time())
    with repeated(site, lambda client: client.schedule([(now, -7000.0)], now + 3600)):
        yield


# ---- processes ----


@attack
def gateway_frozen(site: LiveSite) -> Iterator[None]:
    with stopped(site.started(GATEWAY)):
        yield


@attack
def gateway_dies_again_and_again(site: LiveSite) -> Iterator[None]:
    def work() -> None:
        pid = site.pid(GATEWAY)
        if pid:
            os.kill(pid, signal.SIGKILL)

    work()
    with beside(work, 8.0):
        yield


@attack
def supervisor_frozen(site: LiveSite) -> Iterator[None]:
    with stopped(site.process.pid):
        yield


@attack
def supervisor_killed(site: LiveSite) -> Iterator[None]:
    site.process.kill()
    site.process.wait()
    yield


@attack
def console_frozen(site: LiveSite) -> Iterator[None]:
    with stopped(site.started(CONSOLE)):
        yield


@attack
def console_killed(site: LiveSite) -> Iterator[None]:
    killed(site.pid(CONSOLE))
    yield


@attack
def sidecar_frozen(site: LiveSite) -> Iterator[None]:
    with stopped(site.started(SIDECAR)):
        yield


@attack
def sidecar_killed_for_memory(site: LiveSite) -> Iterator[None]:
    killed(site.pid(SIDECAR))
    yield


@attack
def recorder_frozen(site: LiveSite) -> Iterator[None]:
    with stopped(site.started(RECORDER)):
        yield


@attack
def remote_frozen(site: LiveSite) -> Iterator[None]:
    with stopped(site.started(REMOTE)):
        yield


@attack
def remote_killed(site: LiveSite) -> Iterator[None]:
    killed(site.pid(REMOTE))
    yield


@attack
def all_frozen_but_core_and_supervisor(site: LiveSite) -> Iterator[None]:
    with stopped(*(site.started(one) for one in (GATEWAY, CONSOLE, REMOTE, SIDECAR, RECORDER))):
        yield


# ---- what the machine refuses ----


@attack
def disk_full(site: LiveSite) -> Iterator[None]:
    with limited(site.pid(GATEWAY), resource.RLIMIT_FSIZE, 0), limited(site.process.pid, resource.RLIMIT_FSIZE, 0):
        yield


@attack
def no_descriptors_in_the_gateway(site: LiveSite) -> Iterator[None]:
    pid = site.pid(GATEWAY)
    with limited(pid, resource.RLIMIT_NOFILE, descriptors(pid)):
        yield


@attack
def no_descriptors_in_the_supervisor(site: LiveSite) -> Iterator[None]:
    pid = site.process.pid
    with limited(pid, resource.RLIMIT_NOFILE, descriptors(pid)):
        yield


@attack
def no_descriptors_in_the_core(site: LiveSite) -> Iterator[None]:
    pid = site.pid(CORE)
    with limited(pid, resource.RLIMIT_NOFILE, descriptors(pid)):
        yield


@attack
def no_memory_in_the_gateway(site: LiveSite) -> Iterator[None]:
    pid = site.pid(GATEWAY)
    with limited(pid, resource.RLIMIT_AS, size_bytes(pid)):
        yield


@attack
def no_memory_in_the_supervisor(site: LiveSite) -> Iterator[None]:
    pid = site.process.pid
    with limited(pid, resource.RLIMIT_AS, size_bytes(pid)):
        yield


@attack
def no_processor_time(site: LiveSite) -> Iterator[None]:
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for one in hogs:
            one.kill()
            one.wait()


# ---- files and clock ----


@attack
def state_folder_gone(site: LiveSite) -> Iterator[None]:
    away = site.folder / "away"
    os.rename(site.state, away)
    try:
        yield
    finally:
        shutil.rmtree(site.state, ignore_errors=True)
        os.rename(away, site.state)


@attack
def journal_that_cannot_be_written(site: LiveSite) -> Iterator[None]:
    folder = next(site.state.rglob("journal"))
    os.rename(folder, folder.with_name("journal-away"))
    folder.write_text("in the way")
    try:
        yield
    finally:
        folder.unlink()
        os.rename(folder.with_name("journal-away"), folder)


@attack
def records_of_latches_and_stops_are_nonsense(site: LiveSite) -> Iterator[None]:
    for path in [*site.state.rglob("latches*"), *site.runtime.rglob("latches*"), *site.state.rglob("stop*")]:
        if path.is_file():
            path.write_bytes(b"nonsense")
    yield


@attack
def sockets_of_the_gateway_gone(site: LiveSite) -> Iterator[None]:
    for name in ("api", "stream"):
        (site.runtime / name).unlink(missing_ok=True)
    yield


@attack
def lock_file_is_nonsense(site: LiveSite) -> Iterator[None]:
    path = site.runtime / "lock"
    before = path.read_bytes()
    path.write_bytes(b"nonsense")
    try:
        yield
    finally:
        path.write_bytes(before)


@attack
def table_of_keys_is_nonsense(site: LiveSite) -> Iterator[None]:
    path = site.folder / "keys/roles.toml"
    path.write_text("nonsense")
    yield
    path.unlink()


@attack
def junk_at_the_console(site: LiveSite) -> Iterator[None]:
    rng = random.Random(4)

    def work() -> None:
        noise = bytes(one for one in junk(rng) if one not in b"\r\n\x03\x04")
        with contextlib.suppress(BlockingIOError):
            os.write(site.console, noise[:20] + b"\r")

    with beside(work, 0.5):
        yield


@attack
def wall_clock_steps(site: LiveSite) -> Iterator[None]:
    steps = iter([10**9, -(10**9), 10**18, -(10**17), 0] * 1000)

    def work() -> None:
        (site.folder / "clock").open("r+b").write(struct.pack("q", next(steps)))

    try:
        with beside(work, 0.3):
            yield
    finally:
        (site.folder / "clock").open("r+b").write(struct.pack("q", 0))
