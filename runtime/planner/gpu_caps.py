"""Power caps of GPUs by the plan's advice: set, read back, and put back on the way out, by the guard, or at a start.

A driver keeps a limit until it is unloaded, so what a GPU had before is written down before it is changed.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from tidegate.runtime.planner.adapter_audit import AdapterAudit, Note
from tidegate.runtime.planner.gpu_devices import GpuError, GpuPower, Gpus, Nvml
from tidegate.runtime.planner.live_planner import STATUS_FILE
from tidegate.runtime.state import atomic_file

CAPS_FILE = "gpu-caps.json"
AUDIT_FILE = "gpu-caps-audit.jsonl"
NEAR_MW = 1000  # a driver may round a limit


@dataclass(frozen=True)
class CapsAllowed:
    """What the owner lets the adapter do. uuids: () = every GPU. Shares are of the limit that a GPU had before."""

    uuids: tuple[str, ...] = ()
    wait_share: float = 0.7
    shed_share: float = 0.5
    dry_run: bool = False
    stale_s: float = 2000.0  # a plan this old is nobody's any more


@dataclass(frozen=True)
class Cap:
    """What one GPU had, and what we set, mW."""

    before_mw: int
    set_mw: int


class GpuCaps:
    """One round after the other: read the advice, set or put back, read back what the driver enforces."""

    def __init__(self, gpus: Gpus, folder: Path, allowed: CapsAllowed, *, note: Note | None = None) -> None:
        self.gpus, self.folder, self.allowed = gpus, folder, allowed
        self._audit = AdapterAudit(folder / AUDIT_FILE, "gpu-caps", note)
        self.error = ""
        self.doubts: list[str] = []  # GPUs that are allowed and that nobody can cap, and what went wrong
        self._named: set[str] = set()
        self.caps = self._read()

    def _read(self) -> dict[str, Cap]:
        path = self.folder / CAPS_FILE
        try:
            return {uuid: Cap(int(one["before_mw"]), int(one["set_mw"]))
                    for uuid, one in json.loads(path.read_text()).items()}  # fmt: skip
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as why:
            raise GpuError(f"{path}: {why!r}: what the GPUs had before is not known; set it by nvidia-smi -pl, then "
                           "remove the file") from None  # fmt: skip

    def _keep(self) -> None:
        kept = {uuid: dict(cap.__dict__) for uuid, cap in self.caps.items()}
        atomic_file.replace(self.folder / CAPS_FILE, json.dumps(kept).encode())

    def share(self, now: float) -> tuple[float, str]:
        """(share of the limit that is allowed now, why)."""
        try:
            told = json.loads((self.folder / STATUS_FILE).read_text())
            word, at = str(told["advice"]["word"]), int(told["planned_utc_s"])
        except (OSError, ValueError, TypeError, KeyError):
            return 1.0, "there is no plan"
        if not -60 <= now - at <= self.allowed.stale_s:
            return 1.0, "the plan is too old"
        shares = {"may wait": self.allowed.wait_share, "shed": self.allowed.shed_share}
        return shares.get(word, 1.0), f"the plan's advice is: {word}"

    def round(self, now: float | None = None, *, let_go: bool = False) -> None:
        """Once. What a driver refuses is in `error` and in the audit, and tried again the next time."""
        now = time.time() if now is None else now
        self.error = ""
        share, why = (1.0, "the adapter ends") if let_go else self.share(now)
        try:
            there = self.gpus.read()
        except GpuError as what:
            self.error = str(what)
            self.doubts = [self.error]
            return
        self.doubts = []
        if not let_go:
            self._name_fixed(there, now)
        found = {one.uuid: one for one in there if not one.fixed}
        for uuid in self.caps.keys() | found.keys():
            try:
                self._one(uuid, found.get(uuid), share, why, now)
            except GpuError as what:
                self.error = str(what)
                self._audit.write(now, {"uuid": uuid}, f"GPU {uuid}", f"refused: {what}")
        self.doubts += [self.error] if self.error else []

    def _name_fixed(self, there: list[GpuPower], now: float) -> None:
        """What is allowed and draws what it will: in `doubts` each round, in the audit once; and what is not there."""
        fixed = {one.uuid for one in there if one.fixed and (not self.allowed.uuids or one.uuid in self.allowed.uuids)}
        away = set(self.allowed.uuids) - {one.uuid for one in there}
        self.doubts = [f"GPU {uuid}: its driver lets nobody set its power limit; it is never capped"
                       for uuid in sorted(fixed)]  # fmt: skip
        self.doubts += [f"GPU {uuid} is allowed and not on this machine: correct --gpu" for uuid in sorted(away)]
        for uuid in sorted(fixed - self._named):
            self._audit.write(
                now, {"uuid": uuid}, f"GPU {uuid}", "cannot be capped: its driver lets nobody set a limit"
            )
        self._named |= fixed

    def _one(self, uuid: str, gpu: GpuPower | None, share: float, why: str, now: float) -> None:
        cap = self.caps.get(uuid)
        if gpu is None:
            self.error = f"GPU {uuid} is gone; it had {self.caps[uuid].before_mw / 1e3:g} W before"
            return
        if cap is not None and abs(gpu.limit_mw - cap.set_mw) > NEAR_MW:
            # Somebody else set it, the driver was loaded again, or we ended between note and order: it is theirs.
            del self.caps[uuid]
            self._keep()
            self._audit.write(now, {"uuid": uuid, "limit_mw": gpu.limit_mw}, f"GPU {uuid}", "changed by somebody else")
            cap = None
        before_mw = cap.before_mw if cap is not None else gpu.limit_mw
        may = not self.allowed.uuids or uuid in self.allowed.uuids
        wanted_mw = max(gpu.least_mw, round(before_mw * share)) if share < 1.0 and may else before_mw
        wanted_mw = min(wanted_mw, before_mw)
        if wanted_mw == gpu.limit_mw or (cap is None and wanted_mw == before_mw):
            if cap is not None and wanted_mw == before_mw:
                self._forget(uuid)
            return
        row: dict[str, object] = {"uuid": uuid, "limit_mw": wanted_mw, "before_mw": before_mw, "why": why}
        short = f"GPU {uuid} to {wanted_mw / 1e3:g} W: {why}"
        self._audit.write(now, row, short, "dry run" if self.allowed.dry_run else "asked")
        if self.allowed.dry_run:
            return
        if wanted_mw != before_mw:
            self.caps[uuid] = Cap(before_mw, wanted_mw)
            self._keep()
        self.gpus.set_limit(uuid, wanted_mw)
        (after,) = [one for one in self.gpus.read() if one.uuid == uuid]
        if abs(after.limit_mw - wanted_mw) > NEAR_MW or (wanted_mw < before_mw
                                                          and after.enforced_mw > wanted_mw + NEAR_MW):  # fmt: skip
            raise GpuError(f"GPU {uuid}: {wanted_mw / 1e3:g} W were set, {after.enforced_mw / 1e3:g} W are enforced")
        if wanted_mw == before_mw:
            self._forget(uuid)

    def _forget(self, uuid: str) -> None:
        del self.caps[uuid]
        self._keep()


def restore(folder: Path) -> str:
    """For the guard: every GPU as it was; "" when nothing of ours is left."""
    try:
        caps = GpuCaps(Nvml(), folder, CapsAllowed())
    except GpuError as why:
        return str(why)
    caps.round(let_go=True)
    return caps.error or (f"{len(caps.caps)} GPUs are still capped" if caps.caps else "")
