"""`stop` from each place under each attack: 0 W at the converter within the bound that docs/safety.md states.

The slice of `make test` has a few attacks; `make stop-matrix` has all of them.
"""

import contextlib
import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.gateway.test_access import free_port
from tests.world.stop import stop_page
from tests.world.stop.attacks import ATTACKS, descriptors, limited
from tests.world.stop.rig import RUNS_W, LiveSite, RealPlant
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.state.halt import halt, signalled
from tidegate.runtime.supervisor.child import eventually

WHOLE = bool(os.environ.get("TIDEGATE_STOP_MATRIX"))
SLICE = ("half_open_tcp", "gateway_frozen", "supervisor_frozen", "disk_full")
PATHS = ("signal", "api", "console", "input")
BOUND_S = 5.0  # from the hazard, as for a battery that is silent
# Where the one who is spoken to has to be found standing still and be started again.
RESTART_S = 60.0
LONGER = {
    "api": {
        "gateway_frozen",
        "all_frozen_but_core_and_supervisor",
        "gateway_dies_again_and_again",
        "no_descriptors_in_the_gateway",
        "no_memory_in_the_gateway",
        "connections_that_say_nothing_on_the_box",
        "sockets_of_the_gateway_gone",
    },
    # The console asks the gateway first, and gives the signal when that is silent.
    "console": {
        "console_frozen",
        "console_killed",
        "all_frozen_but_core_and_supervisor",
        "gateway_frozen",
        "gateway_dies_again_and_again",
        "no_descriptors_in_the_gateway",
        "no_memory_in_the_gateway",
        "sockets_of_the_gateway_gone",
        "junk_at_the_console",
    },
}
STOPS_BY_ITSELF = ("supervisor_killed",)


class Bench:
    """A plant and the site on it; started again where an attack has ended it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        clock = folder / "clock"
        clock.write_bytes(bytes(8))
        shim = folder / "stepping_clock.so"
        source = Path(__file__).with_name("stepping_clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
        self.more = {"LD_PRELOAD": str(shim), "TIDEGATE_TEST_CLOCK": str(clock)}
        self.plant = RealPlant(folder)
        self.site: LiveSite | None = None
        self.figures: list[dict[str, object]] = []

    def running(self) -> LiveSite:
        for _ in range(2):
            if self.site is not None and self.site.running():
                return self.site
            if self.site is not None:
                self.site.close()
            self.site = LiveSite(self.folder, self.plant, free_port(), self.more)
        assert self.site is not None
        assert self.site.running(), self.site.said[-2000:]
        # Else what comes over TCP would be tried at a port that nobody holds.
        assert eventually(self.site.serves_others, RESTART_S, 0.2), self.site.said[-2000:]
        return self.site

    def close(self) -> None:
        if self.site is not None:
            self.site.close()
        self.plant.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("stop"))
    yield made
    made.close()
    table = os.environ.get("TIDEGATE_STOP_TABLE")
    if table:
        Path(table).write_text(json.dumps(made.figures, indent=1))


@contextlib.contextmanager
def ordered(path: str, site: LiveSite) -> Iterator[None]:
    """Order the stop as a person or a program would: again, as long as nothing happens."""
    end = threading.Event()

    def api() -> None:
        with site.client(2.0) as client:
            client.stop()
            end.set()

    def order() -> None:
        while not end.is_set():
            with contextlib.suppress(ClientError, OSError):
                if path == "api":
                    api()
                elif path == "signal":
                    if halt(site.endpoint):  # who cannot be found by the lock is found by its name
                        signalled(site.process.pid)
                    return
                elif path == "console":
                    site.type("\x03\rstop\r")
                    end.wait(4.0)
                else:
                    site.input(True)
                    return
            end.wait(0.2)

    thread = threading.Thread(target=order, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(30)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", list(ATTACKS) if WHOLE else SLICE)
def test_a_stop_stops_the_battery_whatever_is_done_to_the_site(bench: Bench, name: str, path: str) -> None:
    site = bench.running()
    bound_s = RESTART_S if name in LONGER.get(path, ()) else BOUND_S
    with ATTACKS[name](site):
        if name not in STOPS_BY_ITSELF:
            time.sleep(0.5)
            assert eventually(lambda: RUNS_W < abs(bench.plant.power_w) < 1e8, 20.0), "it runs under the attack"
        began_s = time.monotonic()
        with ordered(path, site):
            after_s = bench.plant.zero_after_s(began_s, bound_s)
        bench.figures.append({"attack": name, "path": path, "bound_s": bound_s, "s": after_s})
        assert after_s is not None, f"{bench.plant.power_w} W\n{site.said[-2000:]}"


def test_without_a_stop_the_battery_runs_on(bench: Bench) -> None:
    bench.running()
    assert bench.plant.zero_after_s(time.monotonic(), 2.0) is None


@pytest.mark.timeout(600)
def test_a_remote_without_descriptors_under_half_open_connections_comes_back_and_the_gateway_never_goes(
    bench: Bench,
) -> None:
    """libzmq ends its process where `accept` fails for want of descriptors: that process must not be the gateway."""
    site = bench.running()
    gateway, remote = site.pid("tidegate.runtime.gateway"), site.pid("tidegate.runtime.gateway.remote")
    assert gateway and remote
    few = limited(remote, resource.RLIMIT_NOFILE, descriptors(remote) + 2)
    with few, ATTACKS["half_open_tcp"](site), ATTACKS["greetings_that_end_there"](site):
        time.sleep(5.0)
        assert RUNS_W < abs(bench.plant.power_w) < 1e8, "the battery runs"
    assert site.pid("tidegate.runtime.gateway") == gateway, site.said[-2000:]
    site.ask(lambda client: client.why())

    assert eventually(site.serves_others, RESTART_S, 0.2), site.said[-2000:]
    now = site.pid("tidegate.runtime.gateway.remote")
    assert now and (now == remote or "tidegate: remote ended" in site.said), "lost with a word, or not at all"


def test_the_table_of_the_documentation_is_of_these_attacks() -> None:
    assert stop_page.attacks_of(stop_page.PAGE.read_text()) == list(ATTACKS)


def test_a_stop_that_did_not_stop_is_shown_as_that() -> None:
    figures: list[stop_page.Figure] = [
        {"attack": "disk_full", "path": "api", "bound_s": 60.0, "s": 1.0},
        {"attack": "disk_full", "path": "signal", "bound_s": 60.0, "s": None},
    ]
    said = stop_page.table(figures)
    assert "1 of 2 in it" in said and "| disk full | **never** (60) | 1.00 (60) | not run | not run |" in said
