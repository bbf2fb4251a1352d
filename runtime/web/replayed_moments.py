"""Moments decided again for the page: a process of its own each, the newest answers kept."""

import asyncio
import collections
import gzip
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tidegate.runtime.api.messages import Refused

AROUND_S = 60.0
LIMIT_S = 300.0
ANSWERS_KEPT = 4
BYTES_MAX = 16 << 20
WAITING_MAX = 4
REST_S = 15.0  # behind the minute after a moment the recorder may still be writing it


class ReplayedMoments:
    """The recordings of one site. Each question runs alone: it takes a processor for some seconds."""

    def __init__(self, folder: Path, utc: Callable[[], float] = time.time) -> None:
        self.folder, self._utc = folder, utc
        self._one = asyncio.Semaphore(1)
        self._waiting = 0
        self._kept: collections.OrderedDict[float, bytes] = collections.OrderedDict()

    async def around(self, at_utc_s: float) -> bytes:
        """The window around a moment as gzipped JSON (`alarm_window.answer`). Raises Refused."""
        at_utc_s = round(at_utc_s, 3)
        if at_utc_s in self._kept:
            return self._kept[at_utc_s]
        if self._waiting >= WAITING_MAX:
            raise Refused("busy", "other moments are being decided again; try again in some seconds")
        self._waiting += 1
        try:
            async with self._one:
                if at_utc_s in self._kept:  # somebody else asked for the same
                    return self._kept[at_utc_s]
                raw = await self._replay(at_utc_s)
        finally:
            self._waiting -= 1
        found = msgspec.json.decode(raw)
        found["rest_due"] = self._utc() < at_utc_s + AROUND_S + REST_S
        packed = await asyncio.to_thread(gzip.compress, msgspec.json.encode(found), 6)
        if "problem" not in found and not found["rest_due"]:
            self._kept[at_utc_s] = packed
            while len(self._kept) > ANSWERS_KEPT:
                self._kept.popitem(last=False)
        return packed

    async def _replay(self, at_utc_s: float) -> bytes:
        words = (sys.executable, "-m", "tidegate.runtime.web.alarm_window", str(self.folder), repr(at_utc_s))
        pipe = asyncio.subprocess.PIPE
        running = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)
        try:
            said, complaint = await asyncio.wait_for(running.communicate(), LIMIT_S)
        except TimeoutError:
            raise Refused("unavailable", f"deciding it again took longer than {LIMIT_S:.0f} s; on the unit: tidegate "
                          "replay") from None  # fmt: skip
        finally:
            if running.returncode is None:
                running.kill()
                await running.wait()
        if running.returncode or len(said) > BYTES_MAX:
            last = (complaint.decode("utf-8", "replace").strip().splitlines() or ["no word"])[-1]
            raise Refused("unavailable", f"the replay ended with code {running.returncode}: {last[:200]}")
        return said
