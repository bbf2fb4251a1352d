"""What the loop learnt of the plant, kept over a restart: age and interval of the grid reading, and of each converter.

Made of published points, by the supervisor. It belongs to the devices it was learnt of, with their maps, buses and
options: of others it is not used, and that is said. Where it is used it is a belief that the loop checks
(`config/beliefs.py`), so a file that is lost costs some seconds of looking and nothing else.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidegate.config.beliefs import Converter, Learnt, identity
from tidegate.config.site import Site
from tidegate.ext.abi.copies import Picture
from tidegate.ext.abi.image import QUALITY_NAMES
from tidegate.hal.map_schema import DeviceMap
from tidegate.runtime.state.atomic_file import replace, sweep
from tidegate.runtime.state.plain_file import read_plain

VERSION = 1
FILE = "learnt.json"
BYTES_MAX = 1 << 20
GRID = "grid"
WIDE_S = 0.1  # an age that is known to so much, beside one interval of the meter to either side, is worth keeping


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the grid reading: age, least and most, and how often it shows something new, s; when that was true."""

    of: str
    at_utc: str
    age_lo_s: float
    age_hi_s: float
    interval_s: float


class Unit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of one converter. of: digest of the device it was learnt of."""

    of: str
    at_utc: str
    dead_s: float
    lag_s: float
    gain: float


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    v: int
    grid: Grid | None = None
    converters: dict[str, Unit] = {}


class LearntFile:
    """The file of one site in its state folder."""

    def __init__(self, state: Path, site: Site, maps: dict[str, DeviceMap]) -> None:
        self.path = state / FILE
        self._of = identity(site, maps)
        self._pcs = [storage.pcs for storage in site.storage]
        self._record = Record(v=VERSION)
        self.error = ""  # why the last try to keep it failed

    def read(self) -> tuple[Learnt | None, list[str]]:
        """(what may be believed first, lines for people about what may not)."""
        sweep(self.path.parent, FILE)
        try:
            record = msgspec.json.decode(read_plain(self.path, BYTES_MAX), type=Record)
            if record.v != VERSION:
                raise ValueError(f"version {record.v}")
        except FileNotFoundError:
            return None, []
        except (OSError, ValueError, RecursionError) as why:
            return None, [f"what was learnt of the plant before is not used: {self.path}: {why}"]
        said = []
        grid = record.grid
        if grid is not None and grid.of != self._of[GRID]:
            said.append(_another("the grid reading", grid.at_utc))
            grid = None
        converters = {}
        for name, unit in record.converters.items():
            if name in self._of and unit.of == self._of[name]:
                converters[name] = unit
            else:
                said.append(_another(name, unit.at_utc))
        self._record = Record(v=VERSION, grid=grid, converters=converters)
        if grid is None and not converters:
            return None, said
        times = [one.at_utc for one in (grid, *converters.values()) if one is not None]
        learnt = Learnt(
            f"carried over from {max(times)}",
            (grid.age_lo_s, grid.age_hi_s) if grid is not None else None,
            grid.interval_s if grid is not None else 0.0,
            {name: Converter(one.dead_s, one.lag_s, one.gain) for name, one in converters.items()},
        )
        return learnt, said

    def keep(self, names: Sequence[str], picture: Picture) -> bool:
        """Put what is known now on disk; what is not known stays as it was. False if the disk refuses: see `error`."""
        found = self._found(names, picture)
        if found == self._record or (found.grid is None and not found.converters):
            return True
        try:
            replace(self.path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        except OSError as why:
            self.error = f"{self.path}: {why.strerror or why}; what was learnt of the plant is not kept"
            return False
        self._record, self.error = found, ""
        return True

    def _found(self, names: Sequence[str], picture: Picture) -> Record:
        good = {
            name: value
            for name, value, quality in zip(names, picture.values, picture.qualities, strict=False)
            if QUALITY_NAMES[quality] == "good"
        }
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        grid = self._record.grid
        keys = ("site.grid_age_lo_s", "site.grid_age_hi_s", "site.grid_interval_s")
        if all(key in good for key in keys):
            lo_s, hi_s, interval_s = (good[key] for key in keys)
            if hi_s - lo_s <= 2.0 * interval_s + WIDE_S:  # known so closely that it is worth believing
                grid = Grid(of=self._of[GRID], at_utc=now, age_lo_s=lo_s, age_hi_s=hi_s, interval_s=interval_s)
        converters = dict(self._record.converters)
        for number, name in enumerate(self._pcs):
            dead_s, lag_s, gain = (good.get(f"unit{number}.{key}") for key in ("dead_s", "lag_s", "gain"))
            if dead_s is not None and lag_s is not None:
                converters[name] = Unit(of=self._of[name], at_utc=now, dead_s=dead_s, lag_s=lag_s, gain=gain or 0.0)
        return Record(v=VERSION, grid=grid, converters=converters)


def _another(what: str, at_utc: str) -> str:
    return f"what was learnt of {what} until {at_utc} is not used: it was another device, map, bus or option"
