"""A site whose core pushes snapshots by itself, and what every exporter's test waits with."""

import socket
import threading
import time

import msgspec
import pytest

from tidegate.hal.description import Device, Fault, Limits, Storage

POINTS = {
    "site.mode": 3.0,
    "site.grid_w": 41_230.0,
    "site.ess_w": -2_500.0,
    "grid.power_w": 41_230.0,
    "grid.import_wh": 123_456.0,
    "bms1.soc": 0.625,
}


@pytest.fixture
def free_port():
    def find():
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return one.getsockname()[1]

    return find


@pytest.fixture
def eventually():
    def wait(ask, good=bool, seconds=30.0):
        until = time.monotonic() + seconds
        got = None
        while time.monotonic() < until:
            try:
                got = ask()
                if good(got):
                    return got
            except OSError as why:
                got = why
            time.sleep(0.05)
        raise AssertionError(f"never good: {got}")

    return wait


class Pushing:
    """Lets the core speak, and be silent."""

    def __init__(self, core):
        self.core = core
        self.speaks = threading.Event()
        self.speaks.set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._push)
        self._thread.start()

    def __getattr__(self, name):
        return getattr(self.core, name)

    def _push(self):
        while not self._end.wait(0.02):
            if self.speaks.is_set():
                self.core.snapshot()

    def close(self):
        self._end.set()
        self._thread.join()


@pytest.fixture
def pushing(core, gateway):
    """A core that makes snapshots, described as one cabinet behind a meter."""
    core.values |= {name: (value, 1) for name, value in POINTS.items() if name in core.values}
    core.values["bms1.temp_c"] = (21.0, 3)
    view = gateway.gateway.server.site
    view.described = msgspec.structs.replace(
        view.described,
        devices=tuple(Device(name=n, role=r) for n, r in (("grid", "grid-meter"), ("bms1", "bms"), ("pcs1", "pcs"))),
        units=(Storage(name="cabinet", bms="bms1", pcs="pcs1", energy_wh=60_000, charge_w_max=30_000,
                       discharge_w_max=25_000),),
        limits=Limits(connection_import_w_max=48_000.0),
        faults=(Fault(id="bms_silent", row=0, text="the BMS is silent", what="no frame came", reaction="zero_silent"),
                Fault(id="temp_high_warn", row=40, text="warm", what="a cell is warm", reaction="warn")),
    )  # fmt: skip
    one = Pushing(core)
    yield one
    one.close()
