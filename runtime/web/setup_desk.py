"""The set-up screen: the site file with difference, check, apply and the way back; commands of the first hour.

For the role maintain only. What changes something is first prepared, with what it will do, and then confirmed, as every
order of the page; and it stands in the journal. Where orders are taken on site only, nothing here is changed from afar.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path

import msgspec

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.connection import ClientError
from tidegate.runtime.api.messages import Message, Refused
from tidegate.runtime.web.checked_apart import checked_apart
from tidegate.runtime.web.page_actions import PageActions
from tidegate.runtime.web.setup_jobs import SetupJobs, Task
from tidegate.runtime.web.web_sessions import Session

CHECK_S = 60.0
TEXT_CHARS_MAX = 100_000
REVIEWS_KEPT = 8
NOT_STARTED_SO = "this page may not change the site: it was started without --set-up (tidegate web serve --set-up)"


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """A site file as somebody wants it."""

    text: str


class Review(msgspec.Struct, forbid_unknown_fields=True):
    """A text that was looked at, by the sums of it and of the file that it would replace."""

    sha256: str


class SetupDesk:
    """One site's set-up. changes: whether the page was started so that it may change the site."""

    def __init__(
        self, client: AsyncClient, actions: PageActions, site_file: Path, state: Path, *, changes: bool,
        note: Callable[[str, str, str], Awaitable[None]],
    ) -> None:  # fmt: skip
        self.path, self.changes = site_file, changes
        self._client, self._actions, self._note = client, actions, note
        self.jobs = SetupJobs(site_file, state, self._local_now, note)
        self._reviewing = asyncio.Semaphore(1)
        self._reviewed: dict[str, tuple[str, str, list[str]]] = {}
        self._place = "remote"

    # ---- the file ----

    async def file(self) -> dict[str, object]:
        """The file as it lies on disk, the one before it, and what the check says of it. Raises Refused.

        Where there is no file yet its text is None.
        """
        if not self.path.exists():
            return {"path": str(self.path), "text": None, "previous": None, "changes": self.changes}
        text = self._read(self.path)
        before = self.path.with_name(self.path.name + ".previous")
        said = await self.review(text)
        return {**said, "text": text, "previous": self._read(before) if before.exists() else None,
                "changes": self.changes}  # fmt: skip

    def _read(self, path: Path) -> str:
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as why:
            raise Refused("unavailable", f"{path}: {why}") from None

    @staticmethod
    def schema() -> bytes:
        """The schema of a site file, for what completes keys while somebody types."""
        return files("tidegate.config").joinpath("site.schema.json").read_bytes()

    async def review(self, text: str) -> dict[str, object]:
        """What a text would change and what is wrong with it. Raises Refused."""
        if len(text) > TEXT_CHARS_MAX:
            raise Refused("too-large", f"a site file has at most {TEXT_CHARS_MAX} characters here")
        said = await self._ask_review(text)
        wider = said["wider"]
        assert isinstance(wider, list)
        while len(self._reviewed) >= REVIEWS_KEPT:
            del self._reviewed[next(iter(self._reviewed))]
        self._reviewed[str(said["sha256"])] = (text, str(said["before_sha256"]), wider)
        return said

    async def _ask_review(self, text: str, *more: str) -> dict[str, object]:
        async with self._reviewing:
            said = await checked_apart(
                "the check",
                "tidegate.runtime.web.site_review",
                str(self.path),
                *more,
                given=text.encode(),
                limit_s=CHECK_S,
            )
        if "refused" in said:
            raise Refused("not-applied", str(said["refused"]))
        return said

    def prepare_apply(self, session: Session, wanted: Review) -> dict[str, object]:
        """What putting a reviewed text in place will do. Raises Refused."""
        self._may_change()
        if wanted.sha256 not in self._reviewed:
            raise Refused("late", "that text was not looked at here; check it again")
        text, before, wider = self._reviewed[wanted.sha256]

        async def carry() -> Message:
            await self._not_on_site_only()
            said = await self._ask_review(text, "--apply", before, "--endpoint", self._client.endpoint)
            await self._note(session.user, "config", f"{self.path.name} changed {said['keys']} at the page")
            return {"status": "applied", "text": f"{self.path.name}: {said['keys']}"}

        return self._actions.hold(session, carry, {"name": "effect.apply", "lifts": wider, "path": str(self.path)})

    # ---- commands ----

    def prepare_task(self, session: Session, task: Task) -> dict[str, object]:
        """What a command will do. Raises Refused."""
        self._may_change()
        if self.jobs.running:
            raise Refused("busy", "another command is running; wait for it or end it")

        async def carry() -> Message:
            if task.kind in ("commission", "restart"):
                await self._not_on_site_only()
            job = await self.jobs.start(task, session.user)
            await self._note(session.user, f"set-up {task.kind}", job.words)
            return {"status": "started", "text": job.words}

        effect: dict[str, object] = {"name": f"effect.{task.kind}"}
        if task.kind == "commission" and task.start:
            effect["name"] = "effect.commission-start"
        if task.kind not in ("init", "commission", "restart"):
            raise Refused("unknown-op", f"{task.kind[:32]!r} is nothing that set-up runs: init, commission or restart")
        return self._actions.hold(session, carry, effect)

    async def doctor(self, session: Session) -> dict[str, object]:
        """Look the machine over; changes nothing. Raises Refused."""
        await self.jobs.start(Task("doctor"), session.user)
        return self.jobs.look()

    def _may_change(self) -> None:
        if not self.changes:
            raise Refused("not-allowed", NOT_STARTED_SO)

    def _local_now(self) -> bool:
        return self._place == "local"

    async def follow_place(self) -> None:
        """Know where orders are taken, for a command that runs. For ever."""
        while True:
            await asyncio.sleep(1.0)
            if self.jobs.running:
                # commission --start has a gateway of its own, and nobody else's orders are taken then.
                with contextlib.suppress(ClientError):
                    self._place = _place(await self._client.why())

    async def _not_on_site_only(self) -> None:
        """Raise Refused where orders are taken on site only. A site that does not run is at rest."""
        try:
            self._place = _place(await self._client.why())
        except ClientError:
            return
        if self._place == "local":
            raise Refused("not-allowed", "orders are taken on site only (control local); do it at the cabinet")


def _place(why: Message) -> str:
    stops = why.get("stops")
    return str(stops.get("place", "remote")) if isinstance(stops, dict) else "remote"
