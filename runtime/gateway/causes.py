"""What is behind the alarms, worked out in the gateway from what it knows itself, for everybody who asks it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.messages import Message, Refused
from tidegate.runtime.findings.backup_findings import backup_findings
from tidegate.runtime.findings.evidence import Finding
from tidegate.runtime.findings.findings import findings
from tidegate.runtime.findings.site_state import Plant
from tidegate.runtime.state.backup_outcome import outcome_in

if TYPE_CHECKING:
    from tidegate.runtime.gateway.requests import Server


BACKUP_EVERY_S = 5.0
SAMPLES = 90  # counters are compared over a minute


def looked_back_at(name: str) -> bool:
    """Whether a cause needs the past of this point; the memory of a gateway is small."""
    return name.startswith("site.") or ".temp_m" in name


class Inside:
    """The questions that `Plant` asks, answered without a socket. Raises ClientError as a client would."""

    def __init__(self, server: "Server", ops: Callable[[], dict[str, str]]) -> None:
        self.timeout_s = 0.0
        self._server, self._ops = server, ops

    def ask(self, op: str, **fields: object) -> Message:
        server = self._server
        try:
            if op == "health":
                return {"health": server.health(), "boot": server.records.boot}
            if op == "describe":
                return {"site": server.site.description(self._ops())}
            if op == "get":
                return {**server.site.points([], True), "cycle": server.memory.cycle}
            if op == "why":
                return {"why": server.site.why()}
        except Refused as why:
            raise ClientError(why.code, why.text) from None
        except Exception as why:  # as towards any client: what cannot be answered ends nothing
            raise ClientError("internal", f"{type(why).__name__}: {why}") from None
        raise ClientError("unknown-op", f"nobody answers {op} in here")


class Causes:
    """Looks at the site once a second, keeps ten minutes, and says what they point to."""

    def __init__(self, server: "Server", ops: Callable[[], dict[str, str]]) -> None:
        self.plant = Plant(Inside(server, ops), time.monotonic, looked_back_at, SAMPLES)
        self.state: Path | None = None  # the site's folder
        self._backup_due_s = 0.0
        self._backup_found: list[Finding] = []

    def look(self) -> None:
        """Take a look if it is time."""
        self.plant.poll()

    def found(self) -> list[Finding]:
        """What can be told now, the weightiest first."""
        self.plant.poll()
        return sorted([*findings(self.plant), *self._backup()], key=lambda one: -one.weight)

    def _backup(self) -> list[Finding]:
        """What is wrong with the backups that are made by themselves; asked of the disk once in a while."""
        now_s = time.monotonic()
        if self.state is not None and now_s >= self._backup_due_s:
            self._backup_due_s = now_s + BACKUP_EVERY_S
            outcome = outcome_in(self.state)
            self._backup_found = [] if outcome is None else backup_findings(outcome, time.time())
        return self._backup_found
