"""Who is armed by itself: each unit that waits for nothing else, also beside others that already work."""

import time

import pytest

from tests.runtime.conftest import GOOD, FakeCore
from tests.runtime.gateway.test_orders_meant import in_force
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.runtime.gateway.orders_held import ARM


@pytest.fixture
def core(tmp_path):
    fake = FakeCore(tmp_path, units=("one", "two"))
    yield fake
    fake.close()


def armed(core, start_gateway, states, latched=(), **options):
    for at, state in enumerate(states):
        core.values[f"unit{at}.state"] = (float(MODES_BY_NUMBER.index(state)), GOOD)
    best = "run" if "run" in states else states[0]
    core.values["site.mode"] = (float(MODES_BY_NUMBER.index(best)), GOOD)
    for at in latched:
        core.values[f"unit{at}.latch_bits_lo"] = (1.0, GOOD)
    core.step()
    core.beat()
    start_gateway(**options)
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        if in_force(core, ARM) is not None:
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize(
    ("states", "latched"),
    [
        (("tripped", "tripped"), ()),
        (("run", "tripped"), ()),  # one was ready sooner, or the other was lost for a while
        (("tripped", "tripped"), (0,)),  # the gate arms no unit that is latched, whoever says so
    ],
)
def test_a_unit_that_waits_for_nothing_else_is_armed(core, start_gateway, states, latched):
    assert armed(core, start_gateway, states, latched)


@pytest.mark.parametrize(
    ("states", "latched", "options"),
    [
        (("run", "run"), (), {}),
        (("run", "arming"), (), {}),
        (("run", "tripped"), (1,), {}),
        (("tripped", "tripped"), (0, 1), {}),
        (("run", "tripped"), (), {"autostart": False}),
    ],
)
def test_nobody_is_armed_who_works_or_is_latched_or_where_a_person_arms(core, start_gateway, states, latched, options):
    assert not armed(core, start_gateway, states, latched, **options)
