"""The power of a machine goes at random moments: is its disk whole each time, with all that was promised?

    python tests/vm/power_cuts.py [--cuts N] [--boots N] [--second N] [--seed N] [--out FILE]

A guest (`run-vm.sh -d -w`) runs the whole product on an ext4 disk image and writes as much as it can, while QEMU keeps
a log of every write and flush of that disk. After a seeded number of promises the emulator is killed with SIGKILL. Each
of the `--cuts` is then a random place in that log. What the disk was told to keep by then is on it; what was on its way
is kept, lost as a whole, lost write by write or torn sector by sector, by turns (`disk_log.py`). The file system is
brought up by its own check, which may repair nothing but what a cut leaves behind, and everything is looked at here:
latches, stop, the three journals with their chains and all that was confirmed, the ledgers with theirs, and the site's
own beside the register. What had been promised by then stands in the log itself, between the writes.

Then the product boots a second time and goes on (`second_boot.py`). On the files of `--second` of those disks
`tidegate run` is started here, beside a plant whose meter has counted on meanwhile: it must hold latches and stop, run
again after they are acknowledged, take a job, close a period of its account and end in order; the records and entries
of before must begin those of after, and the account must have what the register counted, the outage in it once, to the
milliwatt-hour. The ledger that was broken off is finished there and must equal one that never was. And one disk of
each boot is given to the next guest (`--boots`), whose kernel mounts it as the cut left it, and which looks and then
writes on until its own power goes; what all later cuts leave must begin with what that disk had. A disk that loses what
it was told to keep is not modelled.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.vm import disk_log, power_site, second_boot

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BOOT_S = 3000.0  # of host time for a guest to look, start and make its promises; a bound for starved machines
PROMISES = 150, 250  # of a boot, from the site's first on, to its end
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


class Promised:
    """What guests were told to be on the disk."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.booked: dict[int, int] = {}
        self.stopped: bool | None = None
        self.latched: bool | None = None
        self.books = self.next_job = self.count = 0

    @classmethod
    def of(cls, other: "Promised") -> "Promised":
        """One with the same promises, which goes on by itself."""
        made = cls()
        made.jobs, made.booked = list(other.jobs), dict(other.booked)
        made.stopped, made.latched = other.stopped, other.latched
        made.books, made.next_job, made.count = other.books, other.next_job, other.count
        return made

    def take(self, line: str) -> None:
        """One line of a guest."""
        mark, _, rest = line.partition(" ")
        what, _, value = rest.partition(" ")
        if mark == "?":  # from here on the one or the other
            if what == "stop":
                self.stopped = None
            elif what == "latched":
                self.latched = None
        elif mark == "+":
            self.count += 1
            if what == "job":
                self.jobs.append(value)
                self.next_job = int(value.removeprefix("job-")) + 1
            elif what == "booked":
                number, seq = map(int, value.split())
                self.booked[number] = seq
                self.books = max(self.books, number)
            elif what == "complete":
                self.books = max(self.books, int(value) + 1)
            elif what == "stop":
                self.stopped = value == "1"
            elif what == "latched":
                self.latched = value == "1"

    def expected(self) -> dict[str, Any]:
        """What a guest is given to look for; {} before the first promise."""
        if not self.count:
            return {}
        return {
            "jobs": list(self.jobs),
            "booked": dict(self.booked),
            "stopped": self.stopped,
            "latched": self.latched,
            "books": self.books,
            "next_job": self.next_job + 1,
        }


class Guest:
    """One boot on the image."""

    def __init__(self, image: Path, log: Path, folder: Path, promised: Promised, cut_after: int) -> None:
        """cut_after : `due` is set after so many promises from the site's first on. log : gets the disk's writes."""
        self.pidfile = folder / "qemu.pid"
        self.pidfile.unlink(missing_ok=True)
        self.lines: list[str] = []
        self.promised = promised
        command = [
            str(HERE / "run-vm.sh"),
            "-t",
            str(int(BOOT_S + 60)),
            "-i",
            "-d",
            str(image),
            "-w",
            str(log),
            "-p",
            str(self.pidfile),
            "--",
            sys.executable,
            "-m",
            "tests.vm.power_site",
            json.dumps(promised.expected()),
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
        )
        self.writes = False  # the site has made its first promise
        self.left, self.due = cut_after, threading.Event()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            self.promised.take(self.lines[-1])
            self.writes |= line.startswith("+ job")
            if self.writes and line.startswith("+"):
                self.left -= 1
                if self.left <= 0:
                    self.due.set()
        self.due.set()

    def cut(self) -> bool:
        """No warning, no sync: the emulator is gone. What it had already said is still read. False: it ran no more."""
        try:
            os.kill(int(self.pidfile.read_text()), signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError, ValueError):
            return False
        return True

    def end(self, timeout_s: float) -> int:
        code = self.process.wait(timeout_s)
        self.reader.join()
        return code


def tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PATH": SYSTEM_PATH})


def image_at(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(power_site.DISK_MIB << 20)
    tool("mkfs.ext4", "-q", "-F", str(path), f"{power_site.FILES_MIB}M").check_returncode()
    return path


def lines_in(disk: disk_log.Disk) -> list[tuple[int, str]]:
    """(entry of the log, what was said with it), in order."""
    behind = power_site.FILES_MIB << 20
    found = []
    for number, entry in enumerate(disk.entries):
        if entry.bytes and entry.at_disk >= behind:
            data = disk.data(entry)
            for at in range(0, len(data), power_site.SECTOR):
                found.append((number, data[at : at + power_site.SECTOR].rstrip(b"\0\n").decode()))
    return found


class Looker:
    """Looks at disks that a loss of power left. folder : for copies."""

    def __init__(self, folder: Path) -> None:
        self.copy, self._files = folder / "cut.img", folder / "files"
        self._uncut = power_site.uncut_book(folder)
        self._clock = second_boot.clock_library(folder)
        self.kept: second_boot.History | None = None  # of the disk that a later boot was given
        self.finished = self.second_boots = 0

    def look(self, disk: disk_log.Disk, image: Path, waiting: list[disk_log.Entry], loss: str, rng: random.Random,
             expected: dict[str, Any], second: bool) -> tuple[list[str], int]:  # fmt: skip
        """(what is wrong, sectors that were lost). second : the product also starts again there and goes on."""
        tool("cp", "--sparse=always", str(image), str(self.copy)).check_returncode()
        lost = disk.leave(self.copy, waiting, loss, rng)
        checked = self._unpack()
        if checked.returncode > 1:  # 1: what a cut leaves behind was repaired
            return [f"the file system: e2fsck ends with {checked.returncode}: {checked.stdout[-300:]}"], lost
        with contextlib.redirect_stdout(None):
            wrong = power_site.look(self._files, expected)
            if self.kept is not None and not wrong:
                wrong += second_boot.continued(self.kept, self.history())
            if second and not wrong:
                wrong += self._second(expected)
        return wrong, lost

    def _unpack(self) -> subprocess.CompletedProcess[str]:
        """The files of the disk, by way of a second copy: the first stays as the cut left it."""
        shutil.rmtree(self._files, ignore_errors=True)
        self._files.mkdir()
        mended = self.copy.with_suffix(".mended")
        tool("cp", "--sparse=always", str(self.copy), str(mended)).check_returncode()
        checked = tool("e2fsck", "-f", "-p", str(mended))
        if checked.returncode <= 1:
            tool("debugfs", "-R", f"rdump / {self._files}", str(mended)).check_returncode()
        return checked

    def history(self) -> second_boot.History:
        """Of the disk that was unpacked last."""
        return second_boot.history(self._files / "state" / second_boot.NAME)

    def history_of_cut(self) -> second_boot.History:
        """Of the disk as the last cut left it, before a second boot wrote on it."""
        self._unpack()
        return self.history()

    def _second(self, expected: dict[str, Any]) -> list[str]:
        boot = second_boot.SecondBoot(self._files, self._clock)
        self.second_boots += 1
        wrong = boot.run(expected)
        if not wrong:
            went_on = {"stopped": False, "latched": None, "jobs": [*expected["jobs"], boot.job]}
            wrong += [f"after the second boot: {line}" for line in power_site.look(self._files, expected | went_on)]
        if expected["booked"]:
            newest = max(expected["booked"])
            wrong += power_site.finish_book(self._files / "booked" / f"{newest}.db", self._uncut)
            self.finished += 1
        return wrong


def broken(guest: Guest) -> list[str]:
    """What a guest found wrong, or why it did not come to writing."""
    return [line for line in guest.lines if line.startswith("!")]


class Cuts:
    """cuts, boots : so many; second : of the cuts, so many second boots. folder : for images and logs."""

    def __init__(self, cuts: int, boots: int, second: int, seed: int, folder: Path) -> None:
        self._rng, self._folder, self._seed = random.Random(seed), folder, seed
        self._wanted = [cuts // boots + (number < cuts % boots) for number in range(boots)]
        self._second = set(self._rng.sample(range(cuts), min(second, cuts)))
        self._looker = Looker(folder)
        self.cuts: list[dict[str, Any]] = []
        self.wrong: list[dict[str, Any]] = []
        self.boots = self.writes = self.promises = 0
        self._began = time.monotonic()

    def run(self) -> None:
        """Boot, cut, look, until something is wrong or all is done; a later boot is on a disk that a cut left."""
        promised, image = Promised(), image_at(self._folder / "disk.img")
        for number, cuts in enumerate(self._wanted):
            before, log = self._folder / "before.img", self._folder / "writes"
            tool("cp", "--sparse=always", str(image), str(before)).check_returncode()
            log.write_bytes(b"")
            at_start, known = Promised.of(promised), promised.count
            if not self._boot(image, log, promised, number):
                return
            self.promises += promised.count - known
            print(f"boot {number}: cut after {promised.count - known} promises, {self._spent():.0f} s", flush=True)
            promised = self._cut(before, log, at_start, cuts, image)
            print(f"  {len(self.cuts)} cuts looked at, {self._spent():.0f} s", flush=True)
            if self.wrong:
                return

    def _spent(self) -> float:
        return time.monotonic() - self._began

    def _boot(self, image: Path, log: Path, promised: Promised, number: int) -> bool:
        guest = Guest(image, log, self._folder, promised, self._rng.randint(*PROMISES))
        in_time = guest.due.wait(BOOT_S)
        was_cut = guest.cut()
        guest.end(60.0)
        if guest.process.returncode == 77:
            print("\n".join(guest.lines))
            raise SystemExit(77)
        looked = any(line.startswith("- whole") for line in guest.lines)
        found = broken(guest)
        if found or not (was_cut and in_time and guest.writes and looked):
            self._say({"boot": number, "lines": found or guest.lines[-15:]}, image)
            return False
        self.boots += 1
        return True

    def _cut(self, before: Path, log: Path, promised: Promised, cuts: int, image: Path) -> Promised:
        """Random places in a boot's log, from its first promise on, earliest first.

        Into `image` goes what one of them left; -> what had been promised by then.
        """
        disk, carried, kept = disk_log.Disk(before, log), Promised.of(promised), self._looker.kept
        carry = self._rng.randrange(cuts) if cuts else -1
        try:
            said = lines_in(disk)
            self.writes += len(disk.entries)
            first = next(number for number, line in said if line.startswith("+ job"))
            for place, at in enumerate(sorted(self._rng.sample(range(first + 1, len(disk.entries) + 1), cuts))):
                while said and said[0][0] < at:
                    promised.take(said.pop(0)[1])
                loss = disk_log.LOSSES[len(self.cuts) % len(disk_log.LOSSES)]
                waiting = disk.bring_to(at)
                second = len(self.cuts) in self._second
                wrong, lost = self._looker.look(disk, before, waiting, loss, self._rng, promised.expected(), second)
                self.cuts.append(
                    {"entry": at, "loss": loss, "waiting": len(waiting), "sectors_lost": lost, "second_boot": second}
                )
                if wrong:
                    self._say({"cut": len(self.cuts) - 1, **self.cuts[-1], "lines": wrong}, self._looker.copy)
                    break
                if place == carry:
                    tool("cp", "--sparse=always", str(self._looker.copy), str(image)).check_returncode()
                    carried, kept = Promised.of(promised), self._looker.history_of_cut()
        finally:
            disk.close()
        self._looker.kept = kept
        return carried

    def _say(self, row: dict[str, Any], image: Path) -> None:
        self.wrong.append(row)
        keep = Path(tempfile.gettempdir()) / f"tidegate-cut-{self._seed}.img"
        shutil.copyfile(image, keep)
        print(f"NOT WHOLE {json.dumps(row)}\n  the image: {keep}", flush=True)

    def figures(self, asked: int) -> dict[str, Any]:
        return {
            "cuts": len(self.cuts), "asked": asked, "whole": len(self.cuts) - sum("cut" in row for row in self.wrong),
            "seed": self._seed, "boots": self.boots, "log_entries": self.writes, "promises": self.promises,
            "with_lost_sectors": sum(1 for row in self.cuts if row["sectors_lost"]),
            "sectors_lost": sum(row["sectors_lost"] for row in self.cuts),
            "ledgers_finished": self._looker.finished, "second_boots": self._looker.second_boots,
            "at": self.cuts, "wrong": self.wrong, "wall_s": round(self._spent()),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument(
        "--boots", type=int, default=2, help="guests that are killed, each on a disk that a cut left of the last"
    )
    parser.add_argument("--second", type=int, default=100, help="of the cuts: on so many the product boots again here")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cuts = Cuts(args.cuts, args.boots, args.second, args.seed, Path(folder))
        cuts.run()
        figures = cuts.figures(args.cuts)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(
        f"power cuts: {figures['whole']} of {figures['asked']} whole, of {figures['boots']} boots, "
        f"{figures['log_entries']} writes and {figures['promises']} promises; {figures['with_lost_sectors']} lost "
        f"{figures['sectors_lost']} sectors; {figures['ledgers_finished']} ledgers finished, "
        f"{figures['second_boots']} second boots; seed {args.seed}, {figures['wall_s']} s"
    )
    return 0 if figures["whole"] == figures["asked"] and not figures["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
