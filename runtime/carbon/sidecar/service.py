"""The sidecar: takes meter records from the gateway's journal, books them, and never loses or doubles one.

It pulls: "what is behind my cursor?". A gap, a restart of either side and a day's absence are then one and the same
case. The cursor, the state of the booking and the entries that they led to are committed together.
"""

import gc
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tidegate.hal.description import Description, described
from tidegate.runtime.carbon.engine.account import Accountant
from tidegate.runtime.carbon.engine.attribution import Method
from tidegate.runtime.carbon.engine.booking import Booker
from tidegate.runtime.carbon.engine.bulk import book
from tidegate.runtime.carbon.engine.counter import MeterRecord
from tidegate.runtime.carbon.engine.topology import Nodes, nodes_of
from tidegate.runtime.carbon.factors.files import without_factors
from tidegate.runtime.carbon.factors.series import Factors
from tidegate.runtime.carbon.integers import to_whole
from tidegate.runtime.carbon.ledger.bodies import EmbodiedRow, MethodBody, PeriodBody
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import sign
from tidegate.runtime.carbon.sidecar.inputs import Inputs, grid_record, usable_factors, zone_in_force
from tidegate.runtime.state.device_key import DeviceKey
from tidegate.runtime.state.held import ledger_in

COMMIT_RECORDS = 1000
COMMIT_S = 10.0
ASK = 512  # records a request
PAUSE_S = 1.0


def software_version() -> str:
    try:
        return version("tidegate")
    except PackageNotFoundError:
        return "unknown"


def software_build() -> str:
    """What the accounting code is, to the byte: the start of the SHA-256 of its files."""
    whole = hashlib.sha256()
    folder = Path(__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        whole.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def method_of(settings: Mapping[str, Any]) -> Method:
    """How a site file's [carbon] wants the account to be kept."""
    losses = {"carried": "carry", "expensed": "expense"}
    unknown = settings.get("unknown_factor_g_per_kwh")
    return Method(
        str(settings.get("policy") or "average").replace("-", "_"),
        losses[settings.get("losses") or "carried"],
        *(() if unknown is None else (to_whole(str(unknown), 1_000_000),)),
    )


class Replay(Protocol):
    """Who gives what the journal keeps: the gateway's client."""

    def replay(self, stream: str, boot: str | None, seq: int, count: int) -> tuple[list[Any], bool]:
        """(records behind seq of a boot, whether that was all)."""


class Sidecar:
    """Books meter records of one site into one ledger.

    describe : the site's own description, as the gateway gives it.
    ledger : an open ledger; what it holds is where the booking goes on.
    folder : where the site file lies; its factor files are relative to it.
    key : signs a block every 96 entries; None leaves the ledger unsigned.
    """

    def __init__(self, describe: Mapping[str, Any], ledger: Ledger, factors: Factors | None = None,
                 method: Method | None = None, folder: Path = Path(),
                 key: DeviceKey | None = None) -> None:  # fmt: skip
        site = described(describe)
        settings = self.settings = msgspec.to_builtins(site.carbon)
        self.ledger = ledger
        self.key = key
        self.site = site.site.name
        self.nodes: Nodes = nodes_of(site)
        # A file that cannot be used never keeps the account from being kept: `refresh` says what is wrong with it.
        self.factors = (
            factors or usable_factors(settings, folder, zone_in_force(ledger))[0] or without_factors(settings)
        )
        self.inputs = Inputs({} if factors else settings, folder)
        self.accountant = Accountant(
            self.site, self.nodes, self.factors, method or method_of(settings), settings.get("true_up") or "daily"
        )
        period_s = int(settings.get("interval_s") or 900)
        ledger.begin(self.site)
        if key is not None:
            ledger.claim(key.public)
        stored = ledger.state("booking")
        state = json.loads(stored) if stored is not None else None
        self.booker = Booker(
            self.nodes.flows, period_s, None if state is None else state["booker"], self.nodes.soc_weights
        )
        if state is not None:
            self.accountant.restore(state["accountant"])
        self.records = 0
        self.periods = 0
        self._pending: list[tuple[str, int, Mapping[str, object]]] = []
        self._uncommitted = 0
        self._committed_at = time.monotonic()
        self._note_methodology(period_s, site)

    def _note_methodology(self, period_s: int, site: Description) -> None:
        """A method that changed is an entry of its own, so that a report can say from when it holds."""
        body: MethodBody = {
            "software": software_version(),
            "build": software_build(),
            "period_s": period_s,
            "policy": self.accountant.method.policy,
            "losses": self.accountant.method.losses,
            "true_up": self.accountant.true_up,
            "flows": {flow.name: (flow.kind, flow.register, flow.integral) for flow in self.nodes.flows},
            "storages": {
                s.node: [s.energy_milliwh, s.charge_ppm, s.discharge_ppm, s.standby_milliw] for s in self.nodes.storages
            },
            "by_difference": self.nodes.by_difference,
            "currency": str(self.settings.get("currency") or "EUR"),
            "embodied": self._embodied(),
            "kinds": self.nodes.kinds,
            "notes": list(self.nodes.notes),
            "grid_factor": grid_record(self.factors),
            "meter_milliw_max": round(
                (site.carbon.meter_w_max or 3.0 * (site.limits.connection_import_w_max or 0.0)) * 1e3
            ),
        }
        text = json.dumps(body, sort_keys=True)
        if self.ledger.state("methodology") != text:
            self.ledger.append([("method", 0, body)], {"methodology": text})

    def _embodied(self) -> EmbodiedRow | None:
        """Emissions of making the IT equipment, ug, its life, s, and the slots in all; None unless the site says."""
        kg, slots = self.settings.get("embodied_kg"), self.settings.get("slots")
        if kg is None or slots is None:
            return None
        life_s = round(float(self.settings.get("embodied_years") or 5.0) * 365.25 * 86_400)
        return {"ug": to_whole(str(kg), 1_000_000_000), "life_s": life_s, "slots": int(slots)}

    def refresh(self) -> list[str]:
        """Take in factor and reading files that are new or changed. -> what could not be used, and why.

        Call it between two pulls: what is booked from then on is booked with them. Raises LedgerError.
        """
        self.commit()
        self.factors = self.accountant.factors = self.inputs.look(self.ledger, self.factors)
        return self.inputs.trouble

    @property
    def cursor(self) -> tuple[str, int] | None:
        return self.booker.cursor

    @property
    def position(self) -> tuple[str, int] | None:
        """(boot, seq) of the newest record taken in; the cursor stays behind it while records wait for a clock."""
        boot, seq, _, _ = self.booker.place
        return None if boot is None else (boot, seq)

    @property
    def closed_until_utc_s(self) -> int:
        """Every period that ends by then is booked; 0 before the first record."""
        if self.booker.cursor is None:
            return 0
        return self.booker.open_until_ns // 1_000_000_000 - self.booker.period_s

    def take(self, records: Iterable[MeterRecord]) -> int:
        """Book records in; commit when enough has come together. -> periods closed."""
        closed = 0
        rows = list(records)
        for at in range(0, len(rows), COMMIT_RECORDS):
            part = rows[at : at + COMMIT_RECORDS]
            for booked in book(self.booker, part):
                body = self.accountant.book(booked)
                if self.inputs.trouble:
                    body["flags"].append("INPUT_REFUSED")
                self._pending.append(("period", booked.start_utc_s, body))
                closed += 1
            self.records += len(part)
            self._uncommitted += len(part)
            if self._uncommitted >= COMMIT_RECORDS:
                self.commit()
        if closed or time.monotonic() - self._committed_at > COMMIT_S:
            self.commit()
        self.periods += closed
        return closed

    def commit(self) -> None:
        """Write entries, cursor and state in one transaction. Raises LedgerError; nothing is lost then, only later."""
        if not self._uncommitted and not self._pending:
            return
        state = json.dumps(
            {"booker": self.booker.state(), "accountant": self.accountant.state()},
            sort_keys=True,
            separators=(",", ":"),
        )
        self.ledger.append(self._pending, {"booking": state})
        self._pending = []
        self._uncommitted = 0
        self._committed_at = time.monotonic()
        if self.key is not None:
            sign(self.ledger, self.key, self.site)


def catch_up(sidecar: Sidecar, client: Replay, enough: Callable[[], bool] = lambda: False) -> int:
    """Pull until nothing newer is held. -> records taken.

    client : anything with replay(stream, boot, seq, count) -> (records, end).
    """
    taken = 0
    while not enough():
        with _without_collector():
            records, end = _pull(sidecar, client)
            sidecar.take(records)
        taken += len(records)
        if end or not records:
            break
    return taken


@contextmanager
def _without_collector() -> Iterator[None]:
    """Records are tens of thousands of small lists and hold no cycle; looking for one there takes half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _pull(sidecar: Sidecar, client: Replay) -> tuple[list[MeterRecord], bool]:
    """The records behind the last one taken in, and whether that was all."""
    at = sidecar.position
    boot, seq = at if at is not None else (None, -1)
    try:
        records, end = client.replay("meter", boot, seq, ASK)
    except Exception as error:
        if getattr(error, "code", "") != "gone":
            raise
        # The journal no longer holds that start of the core: go on with the oldest; the registers bridge the rest.
        records, end = client.replay("meter", None, -1, ASK)
        records = [r for r in records if r["boot"] != boot or r["seq"] > seq]
        end = end or not records
    return records, end


def open_ledger(describe: Mapping[str, Any], state_dir: Path, folder: Path = Path()) -> Ledger:
    """The ledger that the site file names, or the one in the site's state folder."""
    site = described(describe)
    named = site.carbon.ledger
    if named and "://" in named:
        return Ledger(named, site.site.name)
    path = folder / named if named else ledger_in(state_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Ledger(path, site.site.name)


def latest(ledger: Ledger, count: int) -> Sequence[PeriodBody]:
    """Bodies of the newest periods, oldest first."""
    return [entry.body for entry in ledger.entries("period")][-count:]
