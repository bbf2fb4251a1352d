"""A signed site file onto a unit: only at rest, with nobody at the console; back by itself where the site is not well.

1. Signature, site and number are checked; the file is compiled as it would run.
2. The console's seat is taken, so that nobody logs in meanwhile; whoever sits there already is left alone.
3. It is waited until the setpoint is 0 W, nobody has a lock, a stop or manual power, and orders are taken from afar.
4. A marker and the old file are on the disk; then the new one takes its place, and the site starts anew.
5. It must come to the mode that it had, or a better one, without an alarm that was not there, and stay so.
6. Else the old file is put back and the site starts anew with that. A marker that is found at the next call, after the
   power went in between, does the same first.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from tidegate.config.site import SiteError
from tidegate.runtime.fleet.signed_site import ReleaseError, SignedSite, site_name
from tidegate.runtime.state import atomic_file
from tidegate.runtime.supervisor.preflight import prepare

GOOD_MODES = ("run", "derated")
LOOK_S = 0.5


class Unit(Protocol):
    """What is needed of the site that runs. restart raises ReleaseError where it does not come back."""

    def why(self) -> Mapping[str, object]: ...
    def alarms(self) -> set[str]: ...
    def restart(self) -> None: ...


class Seat(Protocol):
    """The one place at the consoles of a site. take gives who has it already, "" = it is ours."""

    def take(self, user: str, where: str, clock: str) -> str: ...
    def leave(self) -> None: ...


@dataclass(frozen=True)
class Times:
    """wait_s : for rest. healthy_s : to come well. held_s : so long must it stay well."""

    wait_s: float = 600.0
    healthy_s: float = 240.0
    held_s: float = 20.0


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def last_number(path: Path) -> int:
    """The number of the release that is in force, 0 = none was. Raises ReleaseError."""
    note = _beside(path, "release")
    try:
        return int(json.loads(note.read_text())["number"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as why:
        raise ReleaseError(f'{note}: {why}; write the number of the last release there, {{"number": N}}') from None


def disturbed(why: Mapping[str, object]) -> str:
    """What speaks against a change now, "" = the site is at rest and nobody works at it."""
    stops, setpoint = why.get("stops"), why.get("setpoint_w")
    if isinstance(stops, Mapping) and (stops.get("lockouts") or stops.get("stop")):
        return "a person has stopped or locked it"
    if isinstance(stops, Mapping) and stops.get("place") == "local":
        return "orders are taken on site only"
    if why.get("manual"):
        return "somebody has manual power"
    if not isinstance(setpoint, int | float) or setpoint != 0:
        return f"its setpoint is {setpoint} W"
    return ""


class GatedApply:
    """path : the site file in use. seat : the consoles'. clock, sleep : replaced in tests."""

    def __init__(self, path: Path, unit: Unit, seat: Seat, report: Callable[[str], None] = print,
                 times: Times | None = None, clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], None] = time.sleep) -> None:  # fmt: skip
        self.path, self.unit, self.report, self.times = path, unit, report, times or Times()
        self.put_count = 0  # times that a new file was put in the place of the old one
        self._seat = seat
        self._clock, self._sleep = clock, sleep

    def apply(self, release: SignedSite) -> None:
        """Put a release in force. Raises ReleaseError; the file of before is in force then. SiteError, OSError too."""
        holder = self._seat.take("rollout", self.path.name, time.strftime("%H:%M UTC", time.gmtime()))
        if holder:
            raise ReleaseError(f"{holder} is at the console; nothing was changed")
        try:
            self.go_back_if_broken_off()
            self._check(release)
            self._until_rest()
            before, alarms = str(self.unit.why().get("mode")), self.unit.alarms()
            old = self.path.read_bytes()
            self._put(release)
            wrong = self._restarted_well(before, alarms)
            if wrong:
                self._put_back(wrong)
                raise ReleaseError(f"release {release.number}: {wrong}; the file of before was put back")
            note = {"number": release.number, "sha256": sha256(release.text.encode()).hexdigest(),
                    "before_sha256": sha256(old).hexdigest()}  # fmt: skip
            atomic_file.replace(_beside(self.path, "release"), json.dumps(note).encode(), 0o644)
            _beside(self.path, "applying").unlink()
            self.report(f"release {release.number} is in force")
        finally:
            self._seat.leave()

    def go_back_if_broken_off(self) -> bool:
        """Where a change broke off, by a loss of power say, put the file of before back. -> whether it did."""
        if not _beside(self.path, "applying").exists():
            return False
        self._put_back("a change broke off")
        return True

    def _check(self, release: SignedSite) -> None:
        now = site_name(self.path.read_text("utf-8"))
        if release.site != now:
            raise ReleaseError(f"is for {release.site}, this site is {now}")
        last = last_number(self.path)
        if release.number <= last:
            raise ReleaseError(f"release {release.number} is not newer than {last}, which is in force")
        for name, text in release.maps.items():
            there = self.path.with_name(name)
            if name == self.path.name or (there.exists() and there.read_text("utf-8") != text):
                raise ReleaseError(f"{name} is there with other content; a device map that changes gets another name")
        for name, text in release.maps.items():
            if not self.path.with_name(name).exists():
                atomic_file.replace(self.path.with_name(name), text.encode(), 0o644)
        staged = _beside(self.path, "staged.toml")
        atomic_file.replace(staged, release.text.encode(), 0o644)
        try:
            prepare(staged)
        except SiteError as why:
            raise ReleaseError(f"release {release.number}: {'; '.join(why.problems)}; nothing was changed") from None
        finally:
            staged.unlink(missing_ok=True)

    def _until_rest(self) -> None:
        until, told = self._clock() + self.times.wait_s, ""
        while text := disturbed(self.unit.why()):
            if self._clock() >= until:
                raise ReleaseError(f"{text}, for {self.times.wait_s:.0f} s; nothing was changed, try again later")
            if text != told:
                self.report(f"waits: {text}")
                told = text
            self._sleep(LOOK_S)

    def _put(self, release: SignedSite) -> None:
        mode = self.path.stat().st_mode & 0o777
        atomic_file.replace(_beside(self.path, "previous"), self.path.read_bytes(), mode)
        atomic_file.replace(_beside(self.path, "applying"), json.dumps({"number": release.number}).encode(), 0o644)
        atomic_file.replace(self.path, release.text.encode(), mode)
        self.put_count += 1

    def _restarted_well(self, before: str, alarms: set[str]) -> str:
        """Start anew and look. -> what is wrong, "" = it is as well as before."""
        try:
            self.unit.restart()
        except ReleaseError as why:
            return str(why)
        until, well_since = self._clock() + self.times.healthy_s, None
        wrong = "it was not looked at"
        while self._clock() < until:
            now = self._clock()
            try:
                mode, fresh = str(self.unit.why().get("mode")), self.unit.alarms() - alarms
                good = mode in GOOD_MODES or mode == before
                wrong = (
                    f"new alarms: {', '.join(sorted(fresh))}" if fresh else "" if good else f"mode {mode}, was {before}"
                )
            except (RuntimeError, OSError) as why:
                wrong = str(why)
            if wrong:
                well_since = None
            elif well_since is None:
                well_since = now
            elif now - well_since >= self.times.held_s:
                return ""
            self._sleep(LOOK_S)
        return wrong or "it did not stay well"

    def _put_back(self, why: str) -> None:
        """The file of before in its place, and a start with it. Raises ReleaseError where that start fails."""
        self.report(f"{why}; the file of before is put back")
        old = _beside(self.path, "previous")
        atomic_file.replace(self.path, old.read_bytes(), self.path.stat().st_mode & 0o777)
        _beside(self.path, "applying").unlink()
        try:
            self.unit.restart()
        except ReleaseError as again:
            raise ReleaseError(
                f"{why}; the file of before was put back, and the site does not start: {again}"
            ) from None
