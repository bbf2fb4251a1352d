"""The recorder process: writes the core's ring to a file on a fault, an overrun or on request."""

import argparse
import contextlib
import json
import mmap
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tidegate.ext.abi import program
from tidegate.ext.cycle import recorder
from tidegate.ext.cycle.recorder import record_t_ns
from tidegate.ext.safety.gate import Reaction
from tidegate.hal.description import described
from tidegate.runtime.api.blocking_client import Client, ClientError, NoAnswer
from tidegate.runtime.api.messages import Message
from tidegate.runtime.recording.integrity import RecordingError
from tidegate.runtime.recording.recording_file import CHUNK, read, span_utc_ns, write
from tidegate.runtime.state.enclosure import enclose

AFTER_S = 2.0  # what follows a fault belongs to it
AGAIN_S = 60.0  # between two recordings that nobody asked for
WHOLE_S = 60.0  # behind a fault its recording is written again, with all that followed
BEFORE_S = 60.0  # in front of it, which must not be lost by that
NICE = 10
FREE_SHARE = 0.25  # of the disk: recordings leave it to latches, journal and account, which lie there too


NO_ROOM = (
    "no room: a quarter of the disk stays free for latches, journal and account. Remove what else lies there, or lower "
    "[recorder] mib"
)


class RecordingTrigger:
    """Decides when the ring is written. `write` gets the cause and returns what to say of it."""

    def __init__(self, automatic: bool) -> None:
        self.automatic = automatic
        self.due_s = 0.0
        self.cause = ""
        self.running = False
        self._last_s = -AGAIN_S
        self._whole_s: float | None = None

    def hear(self, event: Message, now_s: float) -> None:
        """Take note of an event of the gateway's stream."""
        kind = event["event"]
        if kind == "record":
            self._want(f"request {event['detail']}", now_s, 0.0)
        elif kind == "overrun" and event["code"] > 0:
            self._fault(f"overrun {event['name']}", now_s)
        elif kind == "fault_on" and event["previous"] >= Reaction.RAMP_ZERO:  # from here on a fault takes power away
            self._fault(f"fault {event['name']}", now_s)
        elif kind == "latch" and event["previous"]:
            self._fault(f"latch {event['name']}", now_s)
        if kind == "mode":
            self.running = event["name"] != "tripped"

    def _fault(self, cause: str, now_s: float) -> None:
        # A site that stands tripped does so for reasons that are no news.
        if self.automatic and self.running and now_s - self._last_s >= AGAIN_S:
            self._want(cause, now_s, AFTER_S)

    def _want(self, cause: str, now_s: float, after_s: float) -> None:
        if not self.cause or after_s == 0.0:
            self.cause, self.due_s = cause, now_s + after_s

    def take(self, now_s: float) -> str:
        """The cause for which the ring is to be written now, or nothing."""
        if not self.cause or now_s < self.due_s:
            return ""
        cause, self.cause = self.cause, ""
        if not cause.startswith("request"):
            self._last_s = now_s
            self._whole_s = now_s - AFTER_S + WHOLE_S
        return cause

    def take_whole(self, now_s: float) -> bool:
        """Whether the newest automatic recording is now to be written again; true once for each."""
        if self._whole_s is None or now_s < self._whole_s:
            return False
        self._whole_s = None
        return True


def file_name(cause: str, utc_s: float) -> str:
    """Name of a recording: when, and why in plain letters."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(utc_s))
    words = cause.split()
    return (
        f"{stamp}-{re.sub(r'[^A-Za-z0-9_-]+', '-', '-'.join(words[:2] if words[0] != 'request' else words[:1]))}.mcap"
    )


def unused(path: Path) -> Path:
    """The path, or one with a number behind it: two may be asked for within a second."""
    number, found = 2, path
    while found.exists():
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return found


def prune(folder: Path, files_max: int) -> None:
    """Remove the oldest recordings that nobody asked for, beyond so many."""
    own = sorted(path for path in folder.glob("*.mcap") if path.stem.split("-")[1:2] != ["request"])
    for path in own[: max(0, len(own) - files_max)]:
        with contextlib.suppress(OSError):
            path.unlink()


def leave_room(folder: Path, wanted: int = 0) -> bool:
    """Remove the oldest recordings that nobody asked for until a quarter of the disk is free beside so many bytes.

    -> whether it is. Raises OSError.
    """
    own = sorted(path for path in folder.glob("*.mcap") if path.stem.split("-")[1:2] != ["request"])
    while True:
        disk = os.statvfs(folder)
        if disk.f_bavail * disk.f_frsize >= FREE_SHARE * disk.f_blocks * disk.f_frsize + wanted:
            return True
        if not own:
            return False
        with contextlib.suppress(OSError):
            own.pop(0).unlink()


def largest(folder: Path) -> int:
    """Bytes of the largest recording that is there; 0 where there is none."""
    return max((path.stat().st_size for path in folder.glob("*.mcap")), default=0)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tidegate.runtime.recording", description=__doc__)
    parser.add_argument("--program-fd", type=int, required=True, help="descriptor of the compiled site")
    parser.add_argument("--ring-fd", type=int, required=True, help="descriptor of the core's ring")
    parser.add_argument("--endpoint", required=True, help="where the gateway listens")
    parser.add_argument("--state-dir", type=Path, required=True, help="recordings go into a folder of it")
    parser.add_argument(
        "--site-fd", type=int, help="descriptor of the site file's text, which goes into the recordings"
    )
    return parser.parse_args(words)


def text_of(fd: int | None) -> str:
    """The site file as it was when the site was started; it may be another one by now."""
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace") if fd is not None else ""


def main(words: list[str] | None = None) -> int:
    """Listen until SIGTERM."""
    args = arguments(words)
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    os.nice(NICE)
    folder = args.state_dir / "recordings"
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    enclose("recorder", [folder])
    with mmap.mmap(args.program_fd, 0, prot=mmap.PROT_READ) as mapped:
        blob = bytes(mapped)
    settings = described(program.describe(blob)).recorder
    ring = recorder.Ring(args.ring_fd)
    site = text_of(args.site_fd)
    for left in folder.glob("*.part"):  # of one that was ended while it wrote
        left.unlink(missing_ok=True)
    judge = RecordingTrigger(settings.automatic)
    newest: tuple[Path, str, int] | None = None
    print(json.dumps({"recorder": "ready", "folder": str(folder)}), flush=True)
    with Client(args.endpoint) as client:
        heard = client.subscribe("event")
        with contextlib.suppress(ClientError):
            judge.running = client.why()["mode"] != "tripped"
        while not stopping:
            try:
                event = heard.receive(0.2)
            except ClientError:
                continue
            if event is not None and event["kind"] == "event":
                judge.hear(event, time.monotonic())
            if judge.take_whole(time.monotonic()) and newest is not None:
                print(json.dumps(record_whole(newest, ring, blob, site)), flush=True)
                newest = None
            cause = judge.take(time.monotonic())
            if cause:
                said = record(folder, ring, blob, site, cause, settings.files_max)
                print(json.dumps(said), flush=True)
                if not cause.startswith("request"):
                    newest = (Path(said["file"]), cause, time.monotonic_ns()) if "file" in said else None
                with contextlib.suppress(NoAnswer, ClientError):
                    client.ask("note", name="recording", detail=(said.get("file") or said["failed"])[-150:])
    return 0


def record_whole(newest: tuple[Path, str, int], ring: recorder.Ring, blob: bytes, site: str) -> dict[str, Any]:
    """Write a fault's recording again under its name, with the minute that followed; what became of it.

    newest : file, cause, and the monotonic time at which it was written first. What was before the fault stays: where
    the ring no longer reaches back so far, the first file is kept as it is.
    """
    path, cause, written_ns = newest
    first = ring.first()
    try:
        start_ns = record_t_ns(ring.take(first, ring.head, CHUNK)[0]) if first is not None else written_ns
    except recorder.Overtaken:  # it is that short
        start_ns = written_ns
    if start_ns > written_ns - int((AFTER_S + BEFORE_S) * 1e9) and start_ns > start_of(path):
        return {"kept": str(path), "cause": cause, "because": "the ring no longer holds the minute before the fault; "
                "[recorder] mib is how much it holds"}  # fmt: skip
    try:
        if not leave_room(path.parent, largest(path.parent)):
            raise RecordingError(NO_ROOM)
        offset_ns = time.time_ns() - time.monotonic_ns()
        return {"whole": str(path), "cause": cause, **write(path, ring, blob, site=site, cause=cause,
                                                            utc_offset_ns=offset_ns)}  # fmt: skip
    except (RecordingError, OSError) as why:
        print(f"recorder: {path}: {why}", file=sys.stderr, flush=True)
        return {"failed": f"failed: {why}", "cause": cause}


def start_of(path: Path) -> int:
    """Monotonic time of a recording's first moment, ns; of one that is gone or damaged the end of time."""
    try:
        return span_utc_ns(path)[0] - int(read(path).meta["utc_offset_ns"])
    except (RecordingError, OSError):
        return 1 << 63


def record(folder: Path, ring: recorder.Ring, blob: bytes, site: str, cause: str, files_max: int) -> dict[str, Any]:
    """Write a recording; what became of it."""
    path = unused(folder / file_name(cause, time.time()))
    try:
        if not leave_room(folder, largest(folder)):
            raise RecordingError(NO_ROOM)
        done = write(
            path, ring, blob, site=site, cause=cause, utc_offset_ns=time.time_ns() - time.monotonic_ns()
        )  # fmt: skip
    except (RecordingError, OSError) as why:
        print(f"recorder: {path}: {why}", file=sys.stderr, flush=True)
        return {"failed": f"failed: {why}", "cause": cause}
    prune(folder, files_max)
    leave_room(folder)
    if not path.exists():  # it was larger than all before it
        print(f"recorder: {path}: {NO_ROOM}", file=sys.stderr, flush=True)
        return {"failed": f"failed: {NO_ROOM}", "cause": cause}
    return {"file": str(path), "cause": cause, **done}


if __name__ == "__main__":
    sys.exit(main())
