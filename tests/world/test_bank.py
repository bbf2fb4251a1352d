"""Three batteries behind one converter in the simulated plant, from their frames to its setpoint and back."""

import copy
import tomllib
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.ext.abi import program as programs
from tidegate.hal.sim.virtual import VirtualPlant

RAW = tomllib.loads(files("tidegate.config").joinpath("sites/parallel-batteries.toml").read_text(encoding="utf-8"))
RUN = 3


class Cabinet(VirtualPlant):
    """A plant that remembers its program."""

    def __init__(self, blob, faults):
        self.blob = blob
        super().__init__(blob, seed=3, series_every=1, overrides={"faults": faults})


def plant(faults=(), bms="solax-bms"):
    raw = copy.deepcopy(RAW)
    for device in raw["device"]:
        if device["role"] == "bms":
            device["map"] = bms
    if bms != "solax-bms":  # no cell voltages
        raw["storage"][0] = {key: value for key, value in raw["storage"][0].items() if not key.startswith("cell_v")}
    site, problems = parse_site(raw)
    assert problems == []
    rows = [{"kind": kind, "target": target, "value": 0.0, "on_s": on_s, "off_s": off_s}
            for kind, target, on_s, off_s in faults]  # fmt: skip
    return Cabinet(compile_site(site), rows)


def point(world, name):
    names = [row["name"] for row in programs.describe(world.blob)["points"]]
    return world.picture()[names.index(name)]


def mode(world):
    return [event["code"] for event in world.events if event["event"] == "mode"][-1]


def active(world):
    names = {row["row"]: row["id"] for row in programs.describe(world.blob)["faults"]}
    on = set()
    for event in world.events:
        if event["event"] == "fault_on":
            on.add(names[event["code"]])
        elif event["event"] == "fault_off":
            on.discard(names[event["code"]])
    return on


def test_they_arm_and_carry_the_power_together():
    with plant() as world:
        world.run(12.0)
        assert mode(world) == RUN and active(world) == set()
        setpoint_w = world.series()["setpoint_w"][-1]
        assert setpoint_w == pytest.approx(15_000.0, abs=600.0)
        rows = world.world.batteries()
        assert len(rows) == 3
        assert [row["current_a"] for row in rows] == pytest.approx([rows[0]["current_a"]] * 3, rel=1e-6)
        assert point(world, "cabinet.pack_a").value == pytest.approx(sum(row["current_a"] for row in rows), rel=0.05)
        each = point(world, "a.discharge_a_max").value
        assert point(world, "cabinet.discharge_a_max").value == pytest.approx(3 * each)
        assert point(world, "cabinet.connected_count").value == 3.0


@pytest.mark.parametrize("target", ["a", "b", "c"])
def test_one_that_opens_is_not_counted_and_the_others_go_on(target):
    with plant([("battery.open", target, 12.0, 20.0)]) as world:
        world.run(11.9)
        before = point(world, "cabinet.discharge_a_max").value
        world.run(4.0)
        assert point(world, "cabinet.connected_count").value == 2.0
        assert point(world, "cabinet.discharge_a_max").value == pytest.approx(before * 2 / 3, rel=0.02)
        assert mode(world) == RUN and active(world) == set()
        assert world.series()["setpoint_w"][-1] == pytest.approx(15_000.0, abs=600.0)
        open_a = {name: row["current_a"] for name, row in zip("abc", world.world.batteries(), strict=True)}
        assert open_a.pop(target) == 0.0 and min(open_a.values()) > 5.0
        world.run(8.0)
        assert point(world, "cabinet.connected_count").value == 3.0 and mode(world) == RUN


@pytest.mark.parametrize("target", ["a", "c"])
def test_an_alarm_of_any_stops_all(target):
    with plant([("battery.alarm", target, 12.0, 1e9)], bms="bms-35x-hv") as world:
        world.run(11.9)
        assert world.series()["setpoint_w"][-1] > 10_000.0
        world.run(5.0)
        assert world.series()["setpoint_w"][-1] == 0.0 and "bms_alarm" in active(world)


def test_one_that_falls_silent_stops_all():
    """It may still be connected, and nobody knows what it bears."""
    with plant([("can_silent", 1, 12.0, 1e9)]) as world:
        world.run(11.9)
        assert world.series()["setpoint_w"][-1] > 10_000.0
        world.run(4.0)
        assert world.series()["setpoint_w"][-1] == 0.0 and "bms_stale" in active(world)


@pytest.mark.parametrize("kind", ["battery.no_discharge", "battery.limits_zero"])
def test_one_that_allows_nothing_leaves_nothing(kind):
    with plant([(kind, "b", 12.0, 1e9)]) as world:
        world.run(16.0)
        assert world.series()["setpoint_w"][-1] == 0.0 and point(world, "cabinet.discharge_a_max").value == 0.0
