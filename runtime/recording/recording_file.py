"""Recordings as MCAP files: the records of every cycle, the program, the site file, and the points for a plot.

Topic `/tidegate/cycles` carries the ring's own records, which a replay needs; one topic a device carries its points as
JSON, which Foxglove and PlotJuggler show. The program and the site file are attachments, versions are metadata.
"""

import contextlib
import json
import os
import platform
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.writer import Writer

from tidegate.ext.abi import program
from tidegate.ext.cycle import loop, recorder
from tidegate.ext.cycle.recorder import record_t_ns
from tidegate.hal.description import described
from tidegate.runtime.recording.integrity import RecordingError, check
from tidegate.runtime.recording.player import Player, columns
from tidegate.runtime.state.plain_file import open_plain

FORMAT = "1"
CYCLES = "/tidegate/cycles"
CHUNK = 256 << 10
PLOT_EVERY_S = 0.1


class Written(TypedDict):
    """What became of a recording. verified : whether its cycles decided the same again."""

    cycles: int
    seconds: float
    bytes: int
    verified: bool


def product() -> str:
    """Version of this installation."""
    try:
        return version("tidegate")
    except PackageNotFoundError:
        return "0 (not installed)"


def layouts() -> dict[str, int]:
    """Sizes and versions that a recording depends on."""
    return {**loop.layout(), **recorder.layout()}


@dataclass
class Recording:
    """What stands in a file beside its cycles."""

    path: Path
    meta: dict[str, str]
    blob: bytes
    site: str

    @property
    def exact(self) -> bool:
        """Whether it was recorded by a processor of this kind, so that whole states can be compared."""
        return self.meta.get("machine") == platform.machine()

    def chunks(self) -> Iterator[bytes]:
        """The records, in the order in which they were written."""
        with open(open_plain(self.path), "rb") as file:
            for _, _, message in make_reader(file).iter_messages(topics=[CYCLES], log_time_order=False):
                yield message.data


def write(
    path: Path, ring: recorder.Ring, blob: bytes, *, site: str = "", cause: str = "", utc_offset_ns: int = 0
) -> Written:
    """Write all that the ring holds; whole under its name or not at all. Returns cycles, seconds, bytes, verified.

    The cycles are repeated while they are written, for the points of the plot; `verified` tells that all decided alike.
    Raises RecordingError, OSError.
    """
    place, until = ring.first(), ring.head
    if place is None:
        raise RecordingError("nothing to write yet: the ring has no state to begin with (the core has just started?)")
    site_name = described(program.describe(blob)).site.name
    period_ns = program.rows(blob)["period_ns"]
    every = max(1, round(PLOT_EVERY_S * 1e9 / period_ns))
    partial = path.with_suffix(".part")
    player = Player(blob)
    span: list[int] = []
    try:
        with partial.open("wb") as file:
            writer = Writer(file, chunk_size=1 << 20, enable_data_crcs=True)
            writer.start(profile="tidegate", library=f"tidegate {product()}")
            raw = writer.register_channel(topic=CYCLES, message_encoding=f"tidegate-cycles-{FORMAT}", schema_id=0)
            plots = _Plots(writer, player.ours.rows["points"])

            def chunks() -> Iterator[bytes]:
                at, number = place, 0
                while at < until:
                    data, at = ring.take(at, until, CHUNK)
                    if not data:
                        return
                    t_ns = record_t_ns(data)
                    span.append(t_ns)
                    writer.add_message(raw, t_ns + utc_offset_ns, data, t_ns + utc_offset_ns, number)
                    number += 1
                    yield data

            for picture, _ in player.run(chunks(), every):
                plots.put(columns(picture, player.ours.names), picture.t_ns + utc_offset_ns)
                span.append(picture.t_ns)
            stamp = min(span, default=0) + utc_offset_ns
            writer.add_attachment(stamp, stamp, "program.bin", "application/octet-stream", blob)
            writer.add_attachment(stamp, stamp, "site.toml", "application/toml", site.encode())
            outcome = player.outcome
            if not outcome.cycles:
                raise RecordingError("nothing to write yet: the ring has no cycle behind its first state")
            verified = outcome.differs_cycle is None and not outcome.cut
            meta = {
                "format": FORMAT,
                "product": product(),
                "layouts": json.dumps(layouts(), sort_keys=True),
                "program_sha256": program.sha256(blob),
                "site": site_name,
                "cause": cause,
                "machine": platform.machine(),
                "period_ns": str(period_ns),
                "utc_offset_ns": str(utc_offset_ns),
                "verified": "yes" if verified else "no",
            }
            writer.add_metadata("tidegate", meta)
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except recorder.Overtaken as why:
        raise RecordingError(f"{path}: {why}; the disk is too slow for this ring") from None
    finally:
        player.close()
        with contextlib.suppress(OSError):
            partial.unlink()
    return {
        "cycles": outcome.cycles,
        "seconds": (max(span, default=0) - min(span, default=0)) * 1e-9,
        "bytes": path.stat().st_size,
        "verified": verified,
    }


class _Plots:
    """One topic of JSON a device."""

    def __init__(self, writer: Writer, points: "list[program.PointRow]") -> None:
        self._writer = writer
        self._channels: dict[str, int] = {}
        units: dict[str, dict[str, str]] = {}
        for row in points:
            device, _, signal = row["name"].partition(".")
            units.setdefault(device, {})[signal] = row["unit"]
        for device, signals in units.items():
            fields = {
                name: {"type": ["number", "null"], "description": f"unit: {unit or '1'}"}
                for name, unit in signals.items()
            }
            schema = writer.register_schema(
                name=f"tidegate.{device}",
                encoding="jsonschema",
                data=json.dumps({"type": "object", "properties": fields}).encode(),
            )
            self._channels[device] = writer.register_channel(
                topic=f"/{device}", message_encoding="json", schema_id=schema
            )

    def put(self, values: Mapping[str, float | None], log_ns: int) -> None:
        rows: dict[str, dict[str, float | None]] = {device: {} for device in self._channels}
        for name, value in values.items():
            device, _, signal = name.partition(".")
            rows[device][signal] = value
        for device, row in rows.items():
            self._writer.add_message(self._channels[device], log_ns, json.dumps(row).encode(), log_ns)


def span_utc_ns(path: Path) -> tuple[int, int]:
    """First and last moment of a recording, from its summary alone; `read` tells whether the file is whole.

    Raises RecordingError, OSError.
    """
    try:
        with open(open_plain(path), "rb") as file:
            summary = make_reader(file).get_summary()
    except (McapError, struct.error, ValueError, EOFError) as why:
        raise RecordingError(f"{path}: not a whole MCAP file: {type(why).__name__} {why}") from None
    if summary is None or summary.statistics is None:
        raise RecordingError(f"{path}: has no summary of its times; replay it: tidegate replay {path}")
    return summary.statistics.message_start_time, summary.statistics.message_end_time


def read(path: Path) -> Recording:
    """Open a recording that this version can replay. Raises RecordingError."""
    try:
        check(path)
        with open(open_plain(path), "rb") as file:
            reader = make_reader(file)
            meta = next((row.metadata for row in reader.iter_metadata() if row.name == "tidegate"), None)
            attached = {row.name: row.data for row in reader.iter_attachments()}
    except OSError as why:
        raise RecordingError(f"{path}: {why.strerror}") from None
    except (McapError, struct.error, ValueError, EOFError) as why:
        if isinstance(why, RecordingError):
            raise
        raise RecordingError(f"{path}: not a whole MCAP file: {type(why).__name__} {why}") from None
    if meta is None or "program.bin" not in attached:
        raise RecordingError(f"{path}: an MCAP file, but no recording of tidegate (metadata or program.bin is missing)")
    theirs = f"tidegate {meta.get('product')}, format {meta.get('format')}"
    ours = f"tidegate {product()}, format {FORMAT}"
    if theirs != ours:
        raise RecordingError(f"{path}: recorded by {theirs}, this is {ours}; replay it with that version")
    came, expected = json.loads(meta.get("layouts", "{}")), layouts()
    other = sorted(key for key in {*came, *expected} if came.get(key) != expected.get(key))
    if other:
        raise RecordingError(
            f"{path}: recorded by another build of {ours}: {other[0]} was {came.get(other[0])}, "
            f"here it is {expected.get(other[0])}; replay it with that build"
        )
    blob = attached["program.bin"]
    if program.sha256(blob) != meta.get("program_sha256"):
        raise RecordingError(f"{path}: its program is not the one that was recorded (SHA-256 differs)")
    return Recording(path, meta, blob, attached.get("site.toml", b"").decode(errors="replace"))
