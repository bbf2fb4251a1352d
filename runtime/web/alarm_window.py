"""What every signal did around a moment: a recording that holds it, its cycles decided again by the compiled core.

`python -m tidegate.runtime.web.alarm_window FOLDER UTC_S` prints one JSON object; the operator's page asks it so.
It only reads the folder, and gives up everything else at its start.
"""

import argparse
import contextlib
import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from tidegate.ext.abi import image, program
from tidegate.ext.abi.copies import Picture
from tidegate.hal.description import Description, described
from tidegate.runtime.api.named import word_of
from tidegate.runtime.gateway.words import words_of
from tidegate.runtime.recording.integrity import RecordingError
from tidegate.runtime.recording.player import Player
from tidegate.runtime.recording.recording_file import Recording, read, span_utc_ns
from tidegate.runtime.state.enclosure import enclose
from tidegate.runtime.web.replayed_moments import AROUND_S

BINS = 480
SAMPLE_S = 0.01
SIGNALS_MAX = 120  # that moved; the others are named
CHANGES_MAX = 400  # of words, nearest to the moment; the others are counted
FILES_MAX = 8
GOOD = (1, 2)  # qualities: good, held
DIGITS = 5
APART_MAX = 20
NICE = 5  # behind the page's own

Values: TypeAlias = "NDArray[np.float64]"


class NotRecorded(RecordingError):
    """No recording holds the moment."""


@dataclass
class Signals:
    """Least and most of every point in each bin, and when a word changed. start_ns: monotonic, of the first bin."""

    names: Sequence[str]
    start_ns: int
    worded: Mapping[str, str]
    """Names of points that are told by a word -> their unit."""
    words: Mapping[str, Mapping[str, str]]
    least: Values = field(init=False)
    most: Values = field(init=False)
    steps: dict[str, list[tuple[float, str | None]]] = field(init=False)

    def __post_init__(self) -> None:
        shape = (BINS, len(self.names))
        self.least, self.most = np.full(shape, np.inf), np.full(shape, -np.inf)
        self.steps = {name: [] for name in self.worded}
        self._index = {name: at for at, name in enumerate(self.names)}

    def put(self, picture: Picture) -> None:
        """Take a cycle's points; one outside the window is left aside."""
        offset_s = (picture.t_ns - self.start_ns) * 1e-9
        at = int(offset_s / (2 * AROUND_S) * BINS)
        if not 0.0 <= offset_s < 2 * AROUND_S:
            return
        rows = np.frombuffer(picture.raw, image.POINT_FIELDS)
        values, qualities = rows["value"], rows["quality"]
        good = np.isin(qualities, GOOD) & (np.abs(values) < 1e300)
        np.fmin(self.least[at], values, out=self.least[at], where=good)
        np.fmax(self.most[at], values, out=self.most[at], where=good)
        for name, unit in self.worded.items():
            place = self._index[name]
            word = word_of(self.words, name, unit, float(values[place])) if good[place] else None
            if not self.steps[name] or self.steps[name][-1][1] != word:
                self.steps[name].append((round(offset_s - AROUND_S, 3), word))


def holding(folder: Path, at_utc_ns: int) -> Path:
    """The recording that holds most of the minutes around a moment. Raises NotRecorded, RecordingError, OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_utc_ns // 10**9))
    late = sorted(path for path in folder.glob("*.mcap") if path.name >= stamp)[:FILES_MAX]
    found: list[tuple[int, Path]] = []
    problem: RecordingError | None = None
    around_ns = int(AROUND_S * 1e9)
    for path in late:
        try:
            start_ns, end_ns = span_utc_ns(path)
        except RecordingError as why:
            problem = why
            continue
        if start_ns <= at_utc_ns <= end_ns:
            length_ns = min(end_ns, at_utc_ns + around_ns) - max(start_ns, at_utc_ns - around_ns)
            found.append((-length_ns, path))
    if found:
        return min(found)[1]
    raise problem or NotRecorded("no recording holds that moment; the recorder writes one on a fault that takes power "
                                 "away, and on request while the moment is still in its memory")  # fmt: skip


def window(recording: Recording, at_utc_ns: int) -> dict[str, object]:
    """The minutes around a moment as the page shows them, every cycle of the recording decided again.

    Times are s from the moment. Raises RecordingError, ValueError for records that are none.
    """
    player = Player(recording.blob, exact=recording.exact)
    try:
        site = described(program.describe(recording.blob))
        offset_ns = int(recording.meta["utc_offset_ns"])
        worded, words = _worded(site)
        at_ns = at_utc_ns - offset_ns
        signals = Signals(player.ours.names, at_ns - int(AROUND_S * 1e9), worded, words)
        every = max(1, round(SAMPLE_S * 1e9 / program.rows(recording.blob)["period_ns"]))
        first_ns = last_ns = 0
        for picture, _ in player.run(recording.chunks(), every):
            first_ns, last_ns = first_ns or picture.t_ns, picture.t_ns
            signals.put(picture)
        outcome = player.outcome
        if not outcome.cycles:
            raise RecordingError(f"{recording.path}: holds no cycle, so nothing was repeated")
        differs = outcome.differs_cycle
        return {
            "file": recording.path.name,
            "cause": recording.meta["cause"],
            "at_utc_s": at_utc_ns / 1e9,
            "bin_s": 2 * AROUND_S / BINS,
            "from_s": max(-AROUND_S, (first_ns - at_ns) * 1e-9),
            "until_s": min(AROUND_S, (last_ns - at_ns) * 1e-9),
            "cycles": outcome.cycles,
            "cut": outcome.cut,
            "differs": None if differs is None else {
                "cycle": differs, "at_s": (outcome.differs_t_ns - at_ns) * 1e-9, "what": outcome.what,
                "points": [[name, _json(one), _json(two)] for name, one, two in outcome.apart[:APART_MAX]],
            },
            **_shown(signals, site),
        }  # fmt: skip
    finally:
        player.close()


def _worded(site: Description) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    words = words_of(site)
    return {name: site.point_units[name] for name in words}, words


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _shown(signals: Signals, site: Description) -> dict[str, object]:
    """Signals that moved with their bins, those that stood still with their value, words with their changes."""
    moved: list[dict[str, object]] = []
    still: list[tuple[str, str, float | None]] = []
    for at, point in enumerate(site.points):
        if point.hidden or point.name in signals.worded:
            continue
        least, most = signals.least[:, at], signals.most[:, at]
        good = np.isfinite(least)
        if not good.any():
            still.append((point.name, point.unit, None))
        elif least[good].min() == most[good].max():
            still.append((point.name, point.unit, float(most[good][0])))
        else:
            moved.append({"name": point.name, "unit": point.unit, "least": _bins(least, good),
                          "most": None if np.array_equal(least[good], most[good]) else _bins(most, good)})  # fmt: skip
    changes = [
        (at_s, name, before or "", word or "")
        for name, steps in signals.steps.items()
        for (_, before), (at_s, word) in itertools.pairwise(steps)
    ]
    near = sorted(changes, key=lambda change: abs(change[0]))[:CHANGES_MAX]
    return {
        "signals": moved[:SIGNALS_MAX],
        "left_out": [str(one["name"]) for one in moved[SIGNALS_MAX:]],
        "still": still,
        "still_words": [(name, steps[0][1]) for name, steps in signals.steps.items() if len(steps) == 1],
        "changes": sorted(near),
        "changes_left_out": len(changes) - len(near),
    }


def _bins(values: Values, good: "NDArray[np.bool_]") -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if there else None for value, there in zip(values, good, strict=True)]


def answer(folder: Path, at_utc_ns: int) -> dict[str, object]:
    """What the page gets: the window, or under `problem` why there is none; `recorded` is false where none was made."""
    try:
        return window(read(holding(folder, at_utc_ns)), at_utc_ns)
    except NotRecorded as why:
        return {"problem": str(why), "recorded": False}
    except (RecordingError, ValueError) as why:
        return {"problem": str(why), "recorded": True}
    except OSError as why:
        return {"problem": f"{why.filename or folder}: {why.strerror}", "recorded": True}


def main(words: list[str] | None = None) -> int:
    """Print the window as JSON."""
    parser = argparse.ArgumentParser(prog="tidegate.runtime.web.alarm_window", description=__doc__)
    parser.add_argument("folder", type=Path, help="the site's recordings")
    parser.add_argument("at_utc_s", type=float)
    args = parser.parse_args(words)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    enclose("replay", [], [args.folder])
    sys.stdout.buffer.write(msgspec.json.encode(answer(args.folder, int(args.at_utc_s * 1e9))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
