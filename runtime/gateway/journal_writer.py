"""The two threads that touch the disk, so that a slow disk never delays a command.

One writes: it collects records for at most 100 ms or 64 of them, syncs once, and only then hands them back for
publishing. One reads: replays come from disk and never from the core.
"""

import collections
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgpack

from tidegate.runtime.gateway.retention import Retention
from tidegate.runtime.state.journal import Journal, Record

GROUP_S = 0.1
GROUP_RECORDS = 64
RETRY_S = 1.0
HELD_BYTES_MAX = 8 << 20  # while the disk fails; the oldest go first, and are counted

Tag = TypeVar("Tag")  # what an asked job comes back as


class JournalWriter(Generic[Tag]):
    """Journals of all streams, written and read behind the main thread's back.

    wake : eventfd that is written when `done` or `answers` has something.
    """

    def __init__(self, journals: dict[str, Journal], wake: int, retention: Retention | None = None) -> None:
        self.journals = journals
        self.retention = retention
        self.wake = wake
        self.done: collections.deque[tuple[str, Record]] = collections.deque()
        self.answers: collections.deque[Tag] = collections.deque()
        self.error = ""  # what the disk said last; "" while it works
        self.errors = 0
        self.dropped = 0
        self.held_bytes = 0
        self.synced = 0
        self.sync_ns_max = 0
        self._queue: collections.deque[tuple[str, Record]] = collections.deque()
        self._asked: collections.deque[tuple[Tag, Callable[[], None]]] = collections.deque()
        self._ready = threading.Condition()
        self._ask = threading.Condition()
        self._stop = False
        self._threads = [
            threading.Thread(target=self._write, name="journal", daemon=True),
            threading.Thread(target=self._read, name="replay", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def put(self, stream: str, record: Record) -> None:
        """Take a record in. It comes back in `done` once it is durable."""
        with self._ready:
            self._queue.append((stream, record))
            self.held_bytes += len(record.payload)
            if self.error:
                while self.held_bytes > HELD_BYTES_MAX and self._queue:
                    _, oldest = self._queue.popleft()
                    self.held_bytes -= len(oldest.payload)
                    self.dropped += 1
            self._ready.notify()

    def ask(self, tag: Tag, job: Callable[[], None]) -> bool:
        """Have a job done by the reading thread; the tag comes back in `answers`. False: too many wait already."""
        with self._ask:
            if len(self._asked) >= 64:
                return False
            self._asked.append((tag, job))
            self._ask.notify()
            return True

    def stream(self, name: str) -> Journal:
        """The journal that a replay reads; `total` holds the quarter hours whose samples are gone."""
        return self.retention.totals if name == "total" and self.retention is not None else self.journals[name]

    @property
    def waiting(self) -> int:
        return len(self._queue) + sum(journal.pending for journal in self.journals.values())

    def stop(self, timeout_s: float = 5.0) -> None:
        """Make durable what is held, as far as the disk lets us, and end both threads."""
        with self._ready:
            self._stop = True
            self._ready.notify()
        with self._ask:
            self._ask.notify()
        for thread in self._threads:
            thread.join(timeout_s)
        for journal in self.journals.values():
            journal.close()

    def _write(self) -> None:
        last = 0.0
        while True:
            with self._ready:
                while not self._stop and not self._queue and not any(j.pending for j in self.journals.values()):
                    self._ready.wait(10.0)
                until = last + (RETRY_S if self.error else GROUP_S)
                while not self._stop and time.monotonic() < until and (self.error or len(self._queue) < GROUP_RECORDS):
                    self._ready.wait(max(0.0, until - time.monotonic()))
                stopping = self._stop
                if not self.error or stopping or time.monotonic() >= until:
                    while self._queue:
                        stream, record = self._queue.popleft()
                        self.journals[stream].append(record)
            last = time.monotonic()
            self._sync()
            if stopping:
                return

    def _sync(self) -> None:
        began = time.monotonic_ns()
        try:
            for stream, journal in self.journals.items():
                for record in journal.sync():
                    self.done.append((stream, record))
                    self.held_bytes -= len(record.payload)
                    self.synced += 1
            if self.retention is not None:
                self.retention.step()
            self.error = ""
        except OSError as why:
            self.error = f"{why.strerror or why} ({why.filename})" if why.filename else str(why.strerror or why)
            self.errors += 1
            with self._ready:
                # Back into the queue, where the bound on what is held applies.
                for stream, journal in self.journals.items():
                    self._queue.extendleft((stream, record) for record in reversed(journal.take_back()))
        self.sync_ns_max = max(self.sync_ns_max, time.monotonic_ns() - began)
        self._notify()

    def _read(self) -> None:
        while True:
            with self._ask:
                while not self._asked and not self._stop:
                    self._ask.wait(10.0)
                if self._stop:
                    return
                tag, job = self._asked.popleft()
            job()
            self.answers.append(tag)
            self._notify()

    def _notify(self) -> None:
        os.eventfd_write(self.wake, 1)


def replay_bytes(head: Mapping[str, object], records: list[Record], end: bool) -> bytes:
    """The answer to a replay, with the records' own bytes in it: what was published is what is replayed."""
    packer = msgpack.Packer(autoreset=False, use_bin_type=True)
    packer.pack_map_header(len(head) + 2)
    for key, value in head.items():
        packer.pack(key)
        packer.pack(value)
    packer.pack("end")
    packer.pack(end)
    packer.pack("records")
    packer.pack_array_header(len(records))
    whole: bytes = packer.bytes() + b"".join(record.payload for record in records)
    return whole
