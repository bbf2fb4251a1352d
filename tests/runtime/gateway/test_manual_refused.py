"""Manual power is refused where the cabinet takes none, and the refusal names the way out."""

import time

import pytest

from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.runtime.api.blocking_client import ClientError


@pytest.fixture
def site(core, start_gateway):
    core.describe["faults"] = [{"id": "bms_silent"}]
    core.describe["units"] = [{"name": "cabinet"}]
    core.values |= {f"site.{name}": (value, 1) for name, value in
                    (("corridor_lo_w", -30e3), ("corridor_hi_w", 20e3), ("envelope_lo_w", -30e3))}  # fmt: skip
    core.step()
    core.beat()
    # Arming by itself would be one more order here, of no meaning for the test.
    with start_gateway(autostart=False).client() as client:
        yield client


def ask(core, site, mode, faults=0, latches=0):
    core.values["site.mode"] = (float(MODES_BY_NUMBER.index(mode)), 1)
    core.values["unit0.fault_bits_lo"], core.values["unit0.latch_bits_lo"] = (float(faults), 1), (float(latches), 1)
    cycle = core.cycle
    while core.cycle < cycle + 2:
        time.sleep(0.001)
    return site.mode("manual", power_w=3000.0, for_ms=3000)


@pytest.mark.parametrize(
    ("mode", "faults", "latches", "says"),
    [("tripped", 1, 0, "tidegate alarms"), ("tripped", 0, 1, "tidegate set ack"), ("tripped", 0, 0, "tidegate set run"),
     ("arming", 0, 0, "wait for the mode ready"), ("stopping", 0, 0, "wait"), ("off", 0, 0, "tidegate set run")],
)  # fmt: skip
def test_a_cabinet_that_takes_no_power_refuses_it_with_the_way_out(core, site, mode, faults, latches, says):
    with pytest.raises(ClientError) as refused:
        ask(core, site, mode, faults, latches)
    assert refused.value.code == "tripped" and says in refused.value.text
    assert ("bms_silent" in refused.value.text) == bool(faults or latches)
    assert site.why().get("manual") is None


@pytest.mark.parametrize("mode", ["ready", "run", "derated", "manual"])
def test_a_cabinet_that_takes_power_is_given_it(core, site, mode):
    assert ask(core, site, mode)["status"] in ("applied", "clamped")
