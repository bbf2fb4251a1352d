"""The unit's end of a rollout: asks its hub for a release, puts it in force where it may, and says how that went."""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Callable

import nats.errors
from nats.aio.client import Client as Nats

from tidegate.config.site import SiteError
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.fleet.invitation import Invitation
from tidegate.runtime.fleet.ledger_batch import RELEASE, subject_word
from tidegate.runtime.fleet.signed_site import ReleaseError, SignedSite
from tidegate.runtime.fleet.unit.gated_apply import GatedApply, last_number
from tidegate.runtime.fleet.unit.site_sender import connected
from tidegate.runtime.fleet.unit.stop_wait import paused
from tidegate.runtime.state import atomic_file

ASK_EVERY_S, ANSWER_S = 30.0, 15.0


class ReleaseTaker:
    """owner : public key, hex, of whoever signs this site's files; the hub is not believed in that."""

    def __init__(self, gate: GatedApply, invitation: Invitation, owner: str,
                 report: Callable[[str], None] | None = None) -> None:  # fmt: skip
        self.gate, self.invitation, self.owner = gate, invitation, owner
        self._failed_path = gate.path.with_name(f"{gate.path.name}.failed")
        self._report_to = report or (lambda text: print(f"fleet: {text}", file=sys.stderr, flush=True))
        self._said = ""
        self._nats: Nats | None = None

    def _report(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._report_to(text)

    def standing(self) -> dict[str, object]:
        """Which release is in force, and which was put back. Raises ReleaseError."""
        try:
            row = json.loads(self._failed_path.read_text())
            failed, why = int(row["number"]), str(row["why"])
        except FileNotFoundError:
            failed, why = 0, ""
        except (OSError, ValueError, KeyError, TypeError) as wrong:
            raise ReleaseError(f"{self._failed_path}: {wrong}; remove it to try that release again") from None
        return {"number": last_number(self.gate.path), "failed": failed, "why": why}

    def take(self, data: bytes) -> None:
        """Put what the hub gave in force. A release that the site was not well under is not tried again."""
        release = SignedSite.read(data, self.owner)
        if release.number == self.standing()["failed"]:
            return
        started = self.gate.put_count
        try:
            self.gate.apply(release)
        except ReleaseError as why:
            if self.gate.put_count != started:  # it was in force for a while; what was only refused is asked for again
                row = {"number": release.number, "why": str(why)}
                atomic_file.replace(self._failed_path, json.dumps(row).encode(), 0o644)
            raise

    async def _trouble(self, why: Exception) -> None:
        self._report(f"the hub at {self.invitation.address}: {why or type(why).__name__}")

    async def open(self) -> None:
        """Connect; the hub may be away for days."""
        self._nats = await connected(self.invitation, self._trouble)

    async def step(self) -> bool:
        """Ask once. -> whether a release was put in force."""
        assert self._nats is not None
        try:
            if await asyncio.to_thread(self.gate.go_back_if_broken_off):
                self._report("a change had broken off; the file of before is in force")
            asked = json.dumps(self.standing()).encode()
            answer = await self._nats.request(
                f"{RELEASE}.{subject_word(self.invitation.site)}", asked, timeout=ANSWER_S
            )  # fmt: skip
            data = base64.b64decode(json.loads(answer.data)["file"], validate=True)
            if data:
                await asyncio.to_thread(self.take, data)
                return True
        except (ReleaseError, SiteError, ClientError, OSError) as why:
            self._report(str(why))
        except (nats.errors.Error, TimeoutError, ValueError, KeyError, TypeError) as why:
            self._report(f"no release from the hub ({why or type(why).__name__})")
        return False

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until told to stop."""
        while not stop.is_set():
            began = time.monotonic()
            await self.step()
            await paused(stop, max(0.1, ASK_EVERY_S - (time.monotonic() - began)))

    async def close(self) -> None:
        if self._nats is not None:
            await self._nats.close()
