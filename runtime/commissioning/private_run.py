"""The site as commissioning runs it: the same processes, and a gate that lets no more through than the test needs."""

import os
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tidegate.config.site import Commissioning, Control, Site, SiteError, Storage
from tidegate.config.site_maps import load_maps
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.commissioning.prompts import SetupError
from tidegate.runtime.state.paths import SiteBusy
from tidegate.runtime.supervisor.supervisor import StartError, Supervisor

SNAPSHOT_HZ = 200.0
EXIT_BUSY, EXIT_START = 75, 70
ATTENDED_REVERT_MS = 60_000.0  # whoever watches this run stops a converter that does not let go by itself


def bounded(site: Site, power_w: float) -> Site:
    """The site for a test: no policy moves the battery, and none of its units by more than `power_w`.

    Until the signs are known a policy could act on a meter that shows the opposite; the gate then still holds it to
    the test's power. No port is opened to other machines. A plant that is simulated inside the run is built from these
    same figures, so there the nameplate stays. A converter whose watchdog cannot be read would not arm before its time
    was measured, which is what this run is for: under the test's power and before somebody's eyes it may.
    """
    storage = site.storage if site.simulated else tuple(_bounded_unit(one, power_w) for one in site.storage)
    return site.model_copy(update={
        "site": site.site.model_copy(update={"snapshot_hz": max(site.site.snapshot_hz, SNAPSHOT_HZ)}),
        "storage": storage,
        "commissioning": _attended(site),
        "control": Control(recharge_rate_w=0.0),
        "limits": site.limits.model_copy(update={"connection_export_w_max": None}),
        "gateway": site.gateway.model_copy(update={"endpoint": None, "publish": None, "autostart": True}),
    })  # fmt: skip


def _attended(site: Site) -> Commissioning | None:
    """What was measured, and a bound for each converter whose watchdog was not and cannot be read."""
    found = load_maps(site, [])
    had = site.commissioning or Commissioning()
    measured = had.pcs_revert_ms
    if not isinstance(measured, dict):
        measured = {} if measured is None or len(site.storage) != 1 else {site.storage[0].pcs: measured}
    blind = [
        unit.pcs
        for unit in site.storage
        if unit.pcs in found and "watchdog_s" not in found[unit.pcs].signal_names() and unit.pcs not in measured
    ]
    if not blind:
        return site.commissioning
    return had.model_copy(update={"pcs_revert_ms": {**measured, **dict.fromkeys(blind, ATTENDED_REVERT_MS)}})


def _bounded_unit(unit: Storage, power_w: float) -> Storage:
    return unit.model_copy(
        update={
            "charge_w_max": min(unit.charge_w_max, power_w),
            "discharge_w_max": min(unit.discharge_w_max, power_w),
        }
    )


class OwnRun:
    """Core and gateway of a site for the length of a test. Ends with setpoint 0 on the wire."""

    def __init__(self, site: Site, power_w: float, state: Path | None, log: IO[bytes]) -> None:
        self.site = bounded(site, power_w)
        self._state, self._log = state, log
        self._supervisor: Supervisor | None = None
        self._silenced = False

    def __enter__(self) -> Self:
        self._start()
        return self

    def _start(self) -> None:
        try:
            made = Supervisor(self.site, out=self._echo, log=self._log, state=self._state, sidecar=False)
            self._supervisor = made.start()
        except SiteBusy as why:
            raise SetupError(f"{why}; or leave --start out to measure through it", EXIT_BUSY) from None
        except SiteError as why:
            raise SetupError("\n".join(why.problems), why.exit_code) from None
        except (StartError, OSError, ValueError) as why:
            raise SetupError(f"the site did not start: {why}", EXIT_START) from None

    def _echo(self, line: str) -> None:
        self._log.write(line.encode() + b"\n")

    def client(self) -> Client:
        """A client of its gateway."""
        assert self._supervisor is not None
        return self._supervisor.client()

    def silence(self) -> float:
        """Kill the core where it stands, as a crash would; gives time.monotonic() of that. `restore` mends it."""
        assert self._supervisor is not None
        self._silenced = True
        begin = time.monotonic()
        os.kill(self._supervisor.children["core"].pid, signal.SIGKILL)
        return begin

    def last_setpoint_w(self, pcs: str) -> float | None:
        """After a silence: what the gate let go to this converter last; None if the core died while it wrote that."""
        assert self._supervisor is not None and self._supervisor.shared is not None
        unit = next(number for number, one in enumerate(self.site.storage) if one.pcs == pcs)
        picture = self._supervisor.shared.read_image()
        at = self._supervisor.description.point_names.index(f"unit{unit}.setpoint_w")
        return None if picture is None else float(picture[at].value)

    def restore(self) -> None:
        """After a silence: start anew, so that setpoint 0 goes out whatever the converter did."""
        if not self._silenced:
            return
        self._silenced = False
        assert self._supervisor is not None
        self._supervisor.stop()
        self._start()

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.restore()
        finally:
            if self._supervisor is not None:
                self._supervisor.stop()
