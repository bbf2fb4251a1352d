"""Manual power with the real processes: through the gate, for its time, and back through the gate."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.demo_site import SLOW_DEMO as DEMO
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.runtime.supervisor.supervisor import Supervisor

MANUAL, RUN, DERATED = (MODES_BY_NUMBER.index(name) for name in ("manual", "run", "derated"))


def until(done: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.02)
    return done()


@pytest.mark.parametrize("gateway", ["runs", "stands still"])
def test_manual_ends_by_itself_and_inside_the_envelope_also_with_a_gateway_that_stands_still(
    tmp_path: Path, gateway: str
) -> None:
    with Supervisor(DEMO, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False, out=lambda _: None) as one:
        memory, names = one.shared, one.description.point_names
        assert memory is not None
        manual = 3.0e3

        def picture() -> dict[str, float]:
            end = time.monotonic() + 30.0
            while (found := memory.read_image()) is None:  # the loop was writing at every try
                assert time.monotonic() < end
            return {name: float(found[place].value) for place, name in enumerate(names)}

        def now(name: str) -> float:
            return picture()[name]

        def inside() -> bool:
            seen = picture()
            return 0.0 < seen["unit0.setpoint_w"] <= seen["unit0.envelope_hi_w"]

        with one.client() as client:
            assert until(lambda: client.why()["mode"] in ("run", "derated"))
            client.mode("manual", power_w=1e6, for_ms=4000)
            assert until(lambda: client.why()["mode"] == "manual")
            assert until(inside), "the gate has the word"
            client.mode("manual", power_w=manual, for_ms=4000)
            assert until(lambda: now("unit0.setpoint_w") == manual)
        if gateway == "stands still":
            os.kill(one.children["gateway"].pid, signal.SIGSTOP)  # it can neither renew nor end anything
        try:
            # What is seen in between: the state leaves manual by itself, and no setpoint leaves the envelope.
            end = time.monotonic() + 60.0
            while int((seen := picture())["unit0.state"]) == MANUAL or seen["unit0.setpoint_w"] == manual:
                assert time.monotonic() < end, "manual outlived its order"
                assert seen["unit0.envelope_lo_w"] <= seen["unit0.setpoint_w"] <= seen["unit0.envelope_hi_w"]
                time.sleep(0.01)
            assert int(now("unit0.state")) in (RUN, DERATED)
        finally:
            if gateway == "stands still":
                os.kill(one.children["gateway"].pid, signal.SIGCONT)
