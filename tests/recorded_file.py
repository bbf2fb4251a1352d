"""A recording of a fault in virtual time, made as the recorder's process makes one, for tests of what reads it."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.runtime.recording import recording_file as files
from tidegate.runtime.recording.__main__ import file_name

sys.path.insert(0, str(Path(__file__).parent / "world"))
import recorded


@dataclass
class RecordedFault:
    """fault_utc_s: when the first fault that takes power away became active. run: records, events, program."""

    path: Path
    fault: str
    fault_utc_s: float
    offset_ns: int
    run: recorded.Run


def recorded_fault(folder: Path, seed: int = 4, end_utc_s: float | None = None, seconds: float = 14.0) -> RecordedFault:
    """Write one that ends at a time, by default now, into a folder under the recorder's own kind of name."""
    run = recorded.run(seed, seconds)
    end_utc_s = time.time() if end_utc_s is None else end_utc_s
    offset_ns = int(end_utc_s * 1e9) - run.t_ns
    # Those of its first second are of a site that has not begun to run.
    first = next(one for one in run.events if one["event"] == "fault_on" and one["cycle"] > 2500)
    fault = FAULT_IDS[first["code"]]
    cause = f"fault {fault}"
    path = folder / file_name(cause, end_utc_s)
    files.write(path, run.ring, run.blob, cause=cause, utc_offset_ns=offset_ns)
    return RecordedFault(path, fault, (first["t_ns"] + offset_ns) / 1e9, offset_ns, run)
