"""Runs of the world with the recorder on: a campaign's faults, orders of every kind, and what every cycle left."""

import os
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import campaign

from tidegate.ext.abi import shared
from tidegate.ext.abi.shared import PlanRow, Shared
from tidegate.ext.cycle.loop import Core
from tidegate.ext.cycle.recorder import Ring
from tidegate.ext.record.replay import Replay
from tidegate.hal.sim.virtual import VirtualPlant

S = 10**9


@dataclass
class Run:
    """A recorded stretch. images: cycle -> checksum of all that its image held, where each was looked at."""

    blob: bytes
    records: bytes
    cycles: int
    head: int
    t_ns: int
    ring: Ring
    images: dict[int, int] = field(default_factory=dict)
    events: list[dict] = field(default_factory=list)


def checksum(memory: Shared) -> int:
    """Of every point as the gateway would see it: value, quality, time, number of changes."""
    picture = memory.read_image()
    assert picture is not None
    found = zlib.crc32(picture.values.tobytes())
    for more in (picture.qualities, picture.times_ns.tobytes(), picture.changes.tobytes()):
        found = zlib.crc32(more, found)
    return found


def orders(plant: VirtualPlant, chance: random.Random) -> None:
    """What the gateway might have put into the mailbox by now; ends by itself after a while."""
    now_ns = plant.world.t_ns
    kind = chance.choice(["manual_w", "setpoint_w", "import_w_max", "policy", "plan", "mode", "nothing"])
    for_s = chance.uniform(0.2, 2.0)
    if kind == "plan":
        rows = [
            PlanRow(
                now_ns + round(i * 0.4 * S), now_ns + round((i * 0.4 + 0.3) * S), chance.choice([1, 2]),
                chance.randrange(1, 1000), chance.random() < 0.3, {"setpoint_w": chance.uniform(-6e3, 6e3)},
            )
            for i in range(3)
        ]  # fmt: skip
        plant._shared.put_plan(rows, billing_end_t_ns=now_ns + S, billing_number=now_ns // S)
    elif kind == "policy":
        policy = chance.randrange(len(shared.POLICY_NAMES_BY_NUMBER))
        plant.world.order(shared.ORDER_POLICY_FIRST + policy, chance.uniform(0.0, 50e3), for_s)
    elif kind == "mode":
        plant.world.order(shared.ORDER_NAMES.index(kind), 2.0, 0.3 * for_s)  # a stop
    elif kind == "import_w_max":
        plant.world.order(shared.ORDER_NAMES.index(kind), chance.uniform(20e3, 60e3), for_s)
    elif kind != "nothing":
        plant.world.order(shared.ORDER_NAMES.index(kind), chance.uniform(-8e3, 8e3), for_s)


def run(
    seed: int,
    seconds: float = 14.0,
    *,
    mib: float = 16.0,
    step_cycles: int = 50,
    each: bool = False,
    meanwhile: Callable[[VirtualPlant, int], None] = lambda plant, left: None,
) -> Run:
    """A campaign's seed with its faults pulled forward, and orders now and then.

    each: look at every cycle's image. meanwhile: called every step_cycles, with the cycles that are left.
    """
    faults, load, overrides = campaign.scenario(seed)
    faults = [{**fault, "on_s": fault["on_s"] - 2.5, "off_s": fault["off_s"] - 2.5} for fault in faults]
    chance = random.Random(seed)
    fd = Ring.memfd(mib)
    ring = Ring(fd, writable=True)
    os.close(fd)
    images: dict[int, int] = {}
    with VirtualPlant(campaign.program(), load, seed=seed, overrides={**overrides, "faults": faults}) as plant:
        plant.core.record(ring)
        left = round(seconds * 1000)
        while left > 0:
            meanwhile(plant, left)
            if plant.world.tripped and chance.random() < 0.2:
                plant.world.arm()
            if chance.random() < 0.1:
                orders(plant, chance)
            for _ in range(step_cycles if each else 1):
                plant.world.run(1 if each else step_cycles)
                if each:
                    images[plant.world.cycle - 1] = checksum(plant._shared)
            left -= step_cycles
        return taken(plant, ring, campaign.program(), images)


def taken(plant: VirtualPlant, ring: Ring, blob: bytes, images: dict[int, int]) -> Run:
    """What a plant's core left in its ring until now."""
    plant._take()
    first = ring.first()
    assert first is not None
    records, at = ring.take(first, ring.head, 1 << 40)
    assert at == ring.head
    return Run(blob, records, ring.cycles, ring.head, plant.world.t_ns, ring, images, list(plant.events))


def an_island(plant: VirtualPlant, until_s: float, look_s: float = 1.0) -> Run:
    """What a plant that stands at some moment does until another one, its image looked at each look_s."""
    fd = Ring.memfd(64.0)
    ring = Ring(fd, writable=True)
    os.close(fd)
    plant.core.record(ring)
    images: dict[int, int] = {}
    while plant.world.t_ns * 1e-9 - 1.0 < until_s:
        plant.run(look_s)
        images[plant.world.cycle - 1] = checksum(plant._shared)
    return taken(plant, ring, plant._program, images)


class Again:
    """A second core that gets the records of a run."""

    def __init__(self, blob: bytes) -> None:
        self.memory, self.fd = Shared.memfd("again")
        self.core = Core(blob, self.memory)
        self.replay = Replay(self.core)

    def close(self) -> None:
        os.close(self.fd)

    def whole(self, records: bytes) -> tuple[int, int | None]:
        """(cycles run, first that differs)."""
        _, cycles, differs, _, _ = self.replay.run(records, 0, 1 << 62)
        return cycles, differs
