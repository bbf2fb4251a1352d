"""A core that is only its shared memory, and a gateway beside it, for tests of everything above the core."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate.ext.abi import program, shared
from tidegate.hal.description import described
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.gateway.app import Gateway
from tidegate.runtime.gateway.remote import Remote

DEVICE_POINTS = [
    {"name": "grid.import_wh", "unit": "Wh"},
    {"name": "grid.power_w", "unit": "W"},
    {"name": "bms1.soc", "unit": ""},
    {"name": "bms1.temp_c", "unit": "degC"},
]
GOOD, NEVER = 1, 0


class FakeCore:
    """The core's side of the shared memory, moved by the test."""

    def __init__(self, folder: Path, n_points_more: int = 0, units: tuple[str, ...] = ("cabinet",)) -> None:
        extra = [{"name": f"extra.p{i}", "unit": "V"} for i in range(n_points_more)]
        self.blob = program.pack(
            {
                "units": [{"name": name} for name in units],
                "points": [*DEVICE_POINTS, *extra],
                "describe": {
                    "site": {"name": "test-site"},
                    "limits": {"connection_import_w_max": 48_000.0},
                    "faults": [{"id": "bms_silent"}, {"id": "bms_alarm"}],
                    "ports": [],
                    "can": [],
                    "devices": [],
                },
            }
        )
        self.describe = program.describe(self.blob)
        self.names = [row["name"] for row in self.describe["points"]]
        self.folder, self.n_units = folder, len(units)
        self.values = dict.fromkeys(self.names, (0.0, GOOD))
        self.cycle = 0
        self.memory, self.fd = shared.Writer.memfd()
        self.boot(secrets.token_bytes(16))
        self._beat: threading.Thread | None = None
        self._end = threading.Event()
        self.lock = threading.Lock()

    def boot(self, boot_id: bytes) -> None:
        self.memory.set_head(
            boot_id=boot_id,
            program_sha256=bytes.fromhex(program.sha256(self.blob)),
            t_start_ns=time.monotonic_ns(),
            utc_offset_ns=time.time_ns() - time.monotonic_ns(),
            n_points=len(self.names),
            n_units=self.n_units,
            core_pid=os.getpid(),
        )
        self.memory.advance(running=True, proof=1)

    def rows(self) -> list[tuple[float, int, int, int]]:
        t_ns = time.monotonic_ns()
        return [(value, t_ns, quality, self.cycle) for value, quality in self.values.values()]

    def step(self) -> None:
        """One cycle: take the orders over, publish the image."""
        with self.lock:
            self.cycle += 1
            for kind in range(shared.ORDER_POLICY_FIRST + len(shared.POLICY_NAMES_BY_NUMBER)):
                self.memory.apply(kind)
            self.memory.apply_plan()
            self.memory.write_image(self.cycle, time.monotonic_ns(), self.rows())

    def meter(self) -> None:
        with self.lock:
            self.memory.push_meter(self.cycle, time.monotonic_ns(), self.rows())

    def snapshot(self) -> None:
        with self.lock:
            self.memory.push_snapshot(self.cycle, time.monotonic_ns(), self.rows())

    def event(self, kind: int = 4, **more: Any) -> None:
        with self.lock:
            self.memory.push_event(self.cycle, time.monotonic_ns(), kind, **more)

    def beat(self, every_s: float = 0.001) -> None:
        """Step by itself until the test ends."""

        def turn() -> None:
            while not self._end.wait(every_s):
                self.step()

        self._beat = threading.Thread(target=turn, daemon=True)
        self._beat.start()

    def close(self) -> None:
        self._end.set()
        if self._beat is not None:
            self._beat.join()
        os.close(self.fd)


class GatewayThread:
    """A gateway in a thread of the test process."""

    def __init__(self, core: FakeCore, runtime: Path, state: Path, **options: Any) -> None:
        site = described({**core.describe, "gateway": options})
        self.runtime = runtime
        self.gateway = Gateway(site, core.memory, runtime, state)
        self.thread = threading.Thread(target=self.gateway.run, daemon=True)
        self.thread.start()
        self.remote: Remote | None = None
        if site.gateway.endpoint:
            self.remote = Remote(site.gateway, runtime, state)
            self.remote_thread = threading.Thread(target=self.remote.run, daemon=True)
            self.remote_thread.start()

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.runtime}"

    def client(self, **more: Any) -> Client:
        return Client(self.endpoint, **more)

    def close(self) -> None:
        if self.remote is not None:
            self.remote.stopping = True
            self.remote_thread.join(10)
            assert not self.remote_thread.is_alive(), "the transport for other machines did not end"
        self.gateway.stopping = True
        os.eventfd_write(self.gateway.wake, 1)
        self.thread.join(10)
        assert not self.thread.is_alive(), "the gateway did not end"


@pytest.fixture
def core(tmp_path: Path) -> Iterator[FakeCore]:
    fake = FakeCore(tmp_path)
    yield fake
    fake.close()


@pytest.fixture
def start_gateway(core: FakeCore, tmp_path: Path) -> Iterator[Callable[..., GatewayThread]]:
    """Starts gateways over the same core and folders, one after the other."""
    started: list[GatewayThread] = []
    (tmp_path / "run").mkdir()
    (tmp_path / "state").mkdir()

    def start(**options: Any) -> GatewayThread:
        started.append(GatewayThread(core, tmp_path / "run", tmp_path / "state", **options))
        return started[-1]

    yield start
    for one in started:
        assert one.thread.is_alive() or one.gateway.stopping, "the gateway has ended by itself"
        if one.thread.is_alive():
            one.close()


@pytest.fixture
def gateway(core: FakeCore, start_gateway: Callable[..., GatewayThread]) -> GatewayThread:
    """A gateway over a core that steps by itself."""
    core.values["site.mode"] = (3.0, GOOD)
    core.values["site.corridor_lo_w"] = (-30_000.0, GOOD)
    core.values["site.corridor_hi_w"] = (20_000.0, GOOD)
    core.values["site.envelope_lo_w"] = (-30_000.0, GOOD)
    core.values["site.envelope_hi_w"] = (25_000.0, GOOD)
    core.step()
    core.beat()
    return start_gateway()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes long; left out of the short run")
