"""The plant as commissioning sees it: a client of the site's gateway that records, moves the battery and lets go."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from tidegate.hal.description import Device, described
from tidegate.runtime.api.answers import Why
from tidegate.runtime.api.blocking_client import Client, ClientError, LeaseHeld
from tidegate.runtime.commissioning.prompts import SetupError

EXIT_NOT_RUNNING = 69
EXIT_PLANT = 70
ARMED_S = 30.0
ARMING_S = 330.0  # a plant that cannot be identified is refused by then (docs/control.md)
UNIDENTIFIED = ("grid_unmoved", "pcs_step_failed", "pcs_opposed")  # latched when arming finds no such plant
MOVES = ("run", "derated")  # modes in which the battery follows; a late cycle derates and clears by itself
LEASE_S = 1.0  # an order outlives us by three of these


@dataclass
class Recording:
    """Snapshots of some points while it runs. t_ns: the core's clock."""

    client: Client
    names: Sequence[str]
    rows: list[tuple[int, list[float]]] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Recording":
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="recording", daemon=True)
        self._thread.start()
        if not started.wait(10.0):
            raise SetupError("the gateway publishes no snapshots", EXIT_PLANT)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _run(self, started: threading.Event) -> None:
        with Client(self.client.endpoint) as own:
            heard = own.subscribe("snapshot")
            while not self._end.is_set():
                message = heard.receive(0.2)
                if message is None:
                    continue
                points = message["points"]
                values = [points[name][0] if name in points else None for name in self.names]
                self.rows.append((message["t_ns"], [float("nan") if v is None else float(v) for v in values]))
                started.set()

    def arrays(self, t0_ns: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(t in s from t0, name -> values); the rows in order of time."""
        rows = sorted(self.rows)
        t = np.array([(t_ns - t0_ns) / 1e9 for t_ns, _ in rows])
        table = np.array([values for _, values in rows]).reshape(len(rows), len(self.names))
        return t, {name: table[:, i] for i, name in enumerate(self.names)}


class Plant:
    """A running site. Raises SetupError for one that is not armed."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.description = described(client.describe())
        self.names = self.description.point_names
        self.derated: set[str] = set()  # faults that derated the site while it was moved

    def device(self, role: str) -> list[Device]:
        """Devices of a role."""
        return [one for one in self.description.devices if one.role == role]

    def value(self, name: str) -> float | None:
        """Present value of a point; None where there is none or it is not good."""
        return self.client.get(name)[name].value if name in self.names else None

    def why(self) -> Why:
        """Why the setpoint is what it is."""
        return msgspec.convert(self.client.why(), Why)

    def wait_armed(self) -> None:
        """Wait until the site runs. Raises SetupError with what keeps it from that; while it arms, it is waited for."""
        began = until = time.monotonic()
        while (why := self.why()).mode not in MOVES:
            now = time.monotonic()
            if why.mode == "arming":
                until = now
            if now > until + ARMED_S or now > began + ARMING_S or self.unidentified(why):
                raise SetupError("\n".join([not_armed(why), *self.unidentified(why)]), EXIT_PLANT)
            time.sleep(0.1)

    def unidentified(self, why: Why) -> list[str]:
        """What arming found that is no such plant as the site file says, in the words of the fault table."""
        table = {row.id: row for row in self.description.faults}
        found = []
        for word in why.latches:
            unit, _, name = word.rpartition(" ")
            if name in UNIDENTIFIED:
                row = table.get(name)
                found.append(f"{unit}: {row.text}" if row is not None else word)
        return found

    def check(self) -> None:
        """Raise SetupError if the site tripped or somebody stopped it; note what derated it."""
        why = self.why()
        if why.mode not in MOVES:
            raise SetupError(not_armed(why), EXIT_PLANT)
        if why.mode == "derated":
            self.derated |= set(why.faults) or {"no fault named"}

    def move(self, lease: LeaseHeld, power_w: float, hold_s: float) -> int:
        """Order a power and hold it; gives the core's time of the order. Raises SetupError if the site trips."""
        t_ns = order(lease, power_w, hold_s)
        until = time.monotonic() + hold_s
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))
            if lease.lost:
                raise SetupError(f"the lease was lost: {lease.lost}", EXIT_PLANT)
        self.check()
        return t_ns


def order(lease: LeaseHeld, power_w: float, hold_s: float) -> int:
    """One setpoint under the lease; gives the core's time of it, ns. Raises SetupError."""
    try:
        return int(lease.setpoint(power_w, hold_s + 2.0)["t_ns"])
    except ClientError as why:
        raise SetupError(f"the setpoint was refused: {why}", EXIT_PLANT) from None


def not_armed(why: Why) -> str:
    """What keeps a site from running, in words."""
    rows = (("faults", why.faults), ("latches", why.latches))
    parts = [f"{name}: {', '.join(found)}" for name, found in rows if found]
    if why.stopped:
        parts.append("stopped by order; `tidegate set run` lifts it")
    return f"the site is in mode {why.mode}, not run ({'; '.join(parts) or 'no fault named'}); see `tidegate why`"
