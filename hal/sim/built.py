"""A simulated plant under construction: its world, the program's rows, and what stands for which device."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.ext.abi import program as programs
from tidegate.ext.sim import world as worlds
from tidegate.hal.description import Description, Simulation


class Settings(Simulation, frozen=True, kw_only=True):
    """The site file's [simulation], and what only tests and campaigns set."""

    trace_ppm: float = 100.0
    """How much faster the load's clock runs than the controller's."""
    trace_phase_s: float | None = None
    """Where inside a second the load begins; None = by the seed."""
    meter_import_wh: float = 0.0
    """What the grid meter's register has counted before: a meter keeps it when its site loses power."""
    lacks: tuple[str, ...] = ()
    """Points that their devices do not have, by their names in the image: SunSpec's "not implemented" stands there."""


@dataclass
class Built:
    """A world and what its numbers mean: device name -> number of the battery, pcs, meter and slave behind it."""

    world: worlds.World
    rows: programs.Rows
    site: Description
    settings: Settings
    batteries: dict[str, int] = field(default_factory=dict)
    converters: dict[str, int] = field(default_factory=dict)
    meters: dict[str, int] = field(default_factory=dict)
    slaves: dict[str, int] = field(default_factory=dict)
    frames: dict[int, int] = field(default_factory=dict)  # CAN id -> frame row (the first bus that has it)
    inputs: dict[int, int] = field(default_factory=dict)  # number of a simulated input -> frame row


def device_of(built: Built, point: int) -> str:
    return str(built.rows["points"][point]["name"]).split(".")[0] if point >= 0 else ""
