"""The hub's end of a limit that many sites share: hears what each wants, writes down what it gives, then answers.

What is given is in the journal, on the disk, before the answer leaves; a disk that fails gives nothing, and the sites
fall back to their own files. The journal is for people: a start does not read it, but waits (`shared_limit`).
"""

import contextlib
import fcntl
import json
import os
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
import numpy as np
from nats.aio.client import Client
from nats.aio.msg import Msg

from tidegate.runtime.fleet.invitation import HubError, servers_in
from tidegate.runtime.fleet.ledger_batch import LIMIT, subject_word
from tidegate.runtime.fleet.shared_limit import TERM_MS_MAX, Feeders, hold_ms
from tidegate.runtime.state import atomic_file

FEEDERS_FILE, JOURNAL_FILE, LOCK_FILE = "feeders.json", "limits.journal", "limits.lock"
JOURNAL_BYTES_MAX = 16 << 20
WATTS_MAX = 10**9
REQUEST_BYTES_MAX = 1024
RUNS_KEPT = 64


def monotonic_ms() -> int:
    """CLOCK_MONOTONIC, ms, rounded down. It stands still while a machine sleeps: the hub then holds leases longer."""
    return time.monotonic_ns() // 1_000_000


@dataclass(frozen=True)
class Feeder:
    """A limit and its sites. floors_w : site -> peak_w_max in that site's own file, W."""

    name: str
    limit_w: int
    floors_w: dict[str, int]
    term_s: int = TERM_MS_MAX // 1000

    def __post_init__(self) -> None:
        if not self.floors_w:
            raise HubError(f"feeder {self.name}: no site in it")
        if not 5 <= self.term_s <= TERM_MS_MAX // 1000:
            raise HubError(f"feeder {self.name}: a term of {self.term_s} s; give 5 to {TERM_MS_MAX // 1000}")
        total = sum(self.floors_w.values())
        if min(self.floors_w.values()) < 0 or total > self.limit_w or self.limit_w > WATTS_MAX:
            raise HubError(
                f"feeder {self.name}: the floors are {total} W together, its limit {self.limit_w} W; lower peak_w_max "
                "in the sites' files, or correct the limit"
            )


def read_feeders(folder: Path) -> list[Feeder]:
    """Those of a hub, none where there is no file. Raises HubError for a damaged file and for a site in two."""
    path = folder / FEEDERS_FILE
    try:
        made = [Feeder(**row) for row in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as why:
        raise HubError(f"{path}: {why}; remove it and name the feeders again") from None
    seen: dict[str, str] = {}
    for feeder in made:
        for site in feeder.floors_w:
            if site in seen:
                raise HubError(f"{site} is in the feeders {seen[site]} and {feeder.name}; take it out of one")
            seen[site] = feeder.name
    return made


def write_feeder(folder: Path, feeder: Feeder) -> None:
    """Put it in the place of the one of its name. Raises HubError, OSError."""
    before = (folder / FEEDERS_FILE).read_bytes() if (folder / FEEDERS_FILE).exists() else None
    rows = [one for one in read_feeders(folder) if one.name != feeder.name]
    rows.append(feeder)
    made = [{"name": one.name, "limit_w": one.limit_w, "floors_w": one.floors_w, "term_s": one.term_s} for one in rows]
    atomic_file.replace(folder / FEEDERS_FILE, json.dumps(made, indent=1).encode())
    try:
        read_feeders(folder)
    except HubError:
        if before is None:
            (folder / FEEDERS_FILE).unlink()
        else:
            atomic_file.replace(folder / FEEDERS_FILE, before)
        raise


@dataclass(frozen=True)
class LimitRequest:
    """What a site asks. run : a word of the asking process, seq : rises within it; both come back in the answer."""

    run: str
    seq: int
    floor_w: int
    ask_w: int

    @classmethod
    def read(cls, data: bytes) -> "LimitRequest | None":
        """None for anything else."""
        try:
            row = json.loads(data) if len(data) <= REQUEST_BYTES_MAX else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, dict) or row.get("v") != 1:
            return None
        numbers = [row.get(name) for name in ("seq", "floor_w", "ask_w")]
        counts = [one for one in numbers if type(one) is int and 0 <= one <= WATTS_MAX]
        run = row.get("run")
        if not isinstance(run, str) or not 0 < len(run) <= 64 or len(counts) != len(numbers):
            return None
        return cls(run, *counts)

    def packed(self) -> bytes:
        return json.dumps(
            {"v": 1, "run": self.run, "seq": self.seq, "floor_w": self.floor_w, "ask_w": self.ask_w}
        ).encode()


class _Asking:
    """Which process asks for a site. A new one gets nothing until what the one before was given is over; that one
    gets nothing any more, since two units with one login would each hold a lease that is counted once."""

    def __init__(self) -> None:
        self._run, self._from_ms = "", 0
        self._before: list[str] = []

    def heard(self, run: str, now_ms: int, hold: int) -> tuple[bool, int]:
        """(whether another one has taken its place, ms until this one may be given anything)."""
        if run in self._before:
            return True, 0
        if run != self._run:
            if self._run:
                self._before = [*self._before, self._run][-RUNS_KEPT:]
                self._from_ms = now_ms + hold
            self._run = run
        return False, max(0, self._from_ms - now_ms)


class Coordinator:
    """One hub's feeders. clock_ms : monotonic. Raises HubError where another one runs over the same folder."""

    def __init__(self, folder: Path, clock_ms: Callable[[], int] = monotonic_ms) -> None:
        self.folder, self._clock_ms = folder, clock_ms
        self.feeders = read_feeders(folder)
        if not self.feeders:
            raise HubError(f"{folder}: no feeder; first: tidegate hub feeder NAME --limit POWER --floor SITE=POWER")
        self._lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise HubError(f"{folder}: its limits are shared out by another process already") from None
        now = np.array([clock_ms()])
        self._states = [
            Feeders(np.array([one.limit_w]), np.array([list(one.floors_w.values())]), now, one.term_s * 1000)
            for one in self.feeders
        ]
        self._place = {
            subject_word(site): (at, number, site)
            for at, feeder in enumerate(self.feeders)
            for number, site in enumerate(feeder.floors_w)
        }
        self._asking: dict[str, _Asking] = {}
        self._journal = -1
        self.said: dict[str, str] = {}  # site -> what is wrong
        self._client: Client | None = None

    @property
    def waits_ms(self) -> int:
        """Until anything is given."""
        begun = int(self._states[0].begun_ms[0])
        return max(0, begun + hold_ms(TERM_MS_MAX) - self._clock_ms())

    def answer(self, word: str, data: bytes) -> dict[str, object]:
        """What a site is answered; what it gets is in the journal when this returns."""
        request, place = LimitRequest.read(data), self._place.get(word)
        if request is None:
            return {"said": "no request of this version"}
        if place is None:
            return {"said": "this site is in no feeder of the hub"}
        at, number, site = place
        feeder, state = self.feeders[at], self._states[at]
        said = ""
        if request.floor_w > feeder.floors_w[site]:
            # It counts from here on with what it may really draw, so that the others get no more than what is left.
            state.floor_w[0, number] = max(int(state.floor_w[0, number]), request.floor_w)
            said = (f"may draw {request.floor_w} W without a lease, {feeder.name} counts on {feeder.floors_w[site]} W: "
                    "lower peak_w_max in its file, or end the order that stands above the lease")  # fmt: skip
            if int(state.floor_w.sum()) > feeder.limit_w:
                said += f"; the floors exceed the limit of {feeder.limit_w} W, nothing is given"
        else:
            state.floor_w[0, number] = feeder.floors_w[site]
        now = self._clock_ms()
        doubled, waits_ms = self._asking.setdefault(site, _Asking()).heard(request.run, now, hold_ms(TERM_MS_MAX))
        if doubled:
            self._report(
                site, "two processes ask for this site; is there a second unit with its login? one gets nothing"
            )
            return {"said": "another process asks for this site, too; this one gets nothing"}
        ask_w = 0 if waits_ms else request.ask_w
        extra_w = int(state.give(np.array([number]), np.array([ask_w]), np.array([now]))[0])
        if not said and waits_ms:
            said = f"another process asks now: the lease of the one before may last {waits_ms / 1000:.0f} s more"
        if not said and not extra_w and request.ask_w and self.waits_ms:
            said = f"just started: leases of before may last {self.waits_ms / 1000:.0f} s more"
        self._report(site, said)
        row: dict[str, object] = {
            "v": 1, "run": request.run, "seq": request.seq, "extra_w": extra_w, "term_ms": feeder.term_s * 1000,
            "said": said,
        }  # fmt: skip
        try:
            self._write({"utc_s": int(time.time()), "t_ms": now, "feeder": feeder.name, "site": site,
                         "floor_w": request.floor_w, "ask_w": request.ask_w, **row})  # fmt: skip
        except OSError as why:
            self._report(site, f"{self.folder / JOURNAL_FILE}: {why.strerror}; nothing is given")
            return row | {"extra_w": 0, "said": "the hub cannot write down what it gives"}
        return row

    def _report(self, site: str, said: str) -> None:
        if said and self.said.get(site) != said:
            print(f"hub: {site}: {said}", file=sys.stderr, flush=True)
        self.said[site] = said

    def _write(self, row: dict[str, object]) -> None:
        """On the disk when this returns. Raises OSError."""
        path = self.folder / JOURNAL_FILE
        if self._journal < 0:
            self._journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        line = json.dumps(row).encode() + b"\n"
        if os.write(self._journal, line) != len(line):
            raise OSError(28, "the disk took half a line")
        os.fdatasync(self._journal)
        if os.fstat(self._journal).st_size > JOURNAL_BYTES_MAX:
            os.close(self._journal)
            self._journal = -1
            os.replace(path, path.with_suffix(".old"))

    async def open(self, address: str, user: str, word: str, tls: ssl.SSLContext | None = None) -> None:
        """Connect to the broker, or to those of a cluster, and answer from here on."""
        self._client = await nats.connect(
            servers_in(address), user=user, password=word, tls=tls, max_reconnect_attempts=-1
        )
        await self._client.subscribe(f"{LIMIT}.*", cb=self._asked)

    async def _asked(self, message: Msg) -> None:
        row = self.answer(message.subject.rsplit(".", 1)[1], message.data)
        if message.reply:
            with contextlib.suppress(nats.errors.Error):
                await message.respond(json.dumps(row).encode())

    async def close(self) -> None:
        """End. What was given runs out by the sites' own clocks."""
        if self._client is not None:
            await self._client.close()
        if self._journal >= 0:
            os.close(self._journal)
        os.close(self._lock)
