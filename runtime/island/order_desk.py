"""What genset and inverters share in a round: the site's word, the claims, the audit, what is doubted, the time."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tidegate.ext.abi.shared import ISLAND_NAMES
from tidegate.runtime.island.island_unit import IslandFile
from tidegate.runtime.planner.adapter_audit import AdapterAudit, Note
from tidegate.runtime.state import atomic_file
from tidegate.runtime.tools.modbus_register import Lines

CLAIM_FILE, AUDIT_FILE = "island-claim-*.json", "island-audit-*.jsonl"  # * is the unit's name
AGAIN_S = 3.0  # an order that was refused is given again
ON_GRID, IN_DARK, BY_GENSET, BY_CONVERTERS, NO_GENSET = ISLAND_NAMES
WITHOUT_GENSET = (IN_DARK, NO_GENSET)


class IslandError(Exception):
    """The claims of before cannot be read, or another adapter has the unit: what to do."""


class Word(NamedTuple):
    """What the site says now. island : one of ISLAND_NAMES. pv_limit_w : None = it says none."""

    island: str
    wanted: bool
    pv_limit_w: float | None


class GensetClaim(NamedTuple):
    """on: the start is ours. since_utc_s: of the present order; 0 = never any. confirmed: it was read back."""

    on: bool = False
    since_utc_s: float = 0.0
    confirmed: bool = True
    starts_utc_s: tuple[float, ...] = ()


class LimitClaim(NamedTuple):
    """What stood in an inverter's limit before us, what we wrote, what stood there until then; in the file's scale."""

    before: float
    before_enable: float | None
    set_to: float
    was: float


@dataclass
class OrderDesk:
    """lines: of this round. doubts: key -> text, of this round."""

    file: IslandFile
    folder: Path
    dry_run: bool = False
    note: Note | None = None
    utc: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    genset: GensetClaim = field(default_factory=GensetClaim)
    limits: dict[str, LimitClaim] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    word: Word | None = None
    grid_since_s: float | None = None  # since when the site says, without a gap, that a grid or converters carry it
    ends: bool = False

    def __post_init__(self) -> None:
        path = self.path(AUDIT_FILE)
        self._loud = AdapterAudit(path, "island-devices", self.note)
        self._quiet = AdapterAudit(path, "island-devices")
        self.lines = Lines(self.file.ask_s)
        self.load()

    def path(self, file: str) -> Path:
        """A file of this unit."""
        return self.folder / file.replace("*", self.file.name)

    def audit(self, row: dict[str, object], short: str, became: str, *, loud: bool = True) -> None:
        """Before an order and after a refusal; loud: in the site's journal too. Raises OSError."""
        (self._loud if loud else self._quiet).write(self.utc(), row, short, became)

    def grid_for_s(self) -> float:
        """For how long the grid, or converters that carry the site, are known to be there; 0 = not known."""
        return 0.0 if self.grid_since_s is None else self.monotonic() - self.grid_since_s

    def age_s(self, utc_s: float) -> float:
        """Time since an order that is remembered over restarts; a clock that was set back makes it no older."""
        return max(0.0, self.utc() - utc_s)

    # ---- claims ----

    def load(self) -> None:
        """What is claimed, by the file: a guard may have undone it meanwhile. Raises IslandError."""
        path = self.path(CLAIM_FILE)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            on, since, confirmed, starts = kept["genset"]
            numbers = [since, *starts, *(one for row in kept["pv"].values() for one in row if one is not None)]
            if not isinstance(on, bool) or not isinstance(confirmed, bool) or not all(map(math.isfinite, numbers)):
                raise ValueError("no numbers")
            genset = GensetClaim(on, float(since), confirmed, tuple(map(float, starts)))
            limits = {str(name): LimitClaim(*row) for name, row in kept["pv"].items()}
        except FileNotFoundError:
            genset, limits = GensetClaim(), {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as why:
            raise IslandError(f"{path}: {why!r}: what stood in the devices before is not known; set limits and remote "
                              "start by hand, then remove the file") from None  # fmt: skip
        self.genset, self.limits = genset, limits

    def keep(self) -> None:
        """Write down what is claimed. Raises OSError."""
        kept = {"genset": list(self.genset), "pv": {name: list(claim) for name, claim in self.limits.items()}}
        atomic_file.replace(self.path(CLAIM_FILE), json.dumps(kept).encode())
