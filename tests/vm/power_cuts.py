"""The power of a machine goes at random moments: is its disk whole each time, with all that was promised?

    python tests/vm/power_cuts.py [--cuts N] [--seed N] [--out FILE]

A guest (`run-vm.sh -d`) runs the whole product on an ext4 disk image and writes as much as it can; the emulator is
killed with SIGKILL after a seeded random number of writes, and the next guest on the same image looks at everything
before it writes on: latches, stop, the three journals with their chains, the ledgers with theirs. What the guest's page
cache held and had not been synced is lost, as with a power cut. What the disk itself had taken is kept: a disk that
loses what it said it had, or tears a sector, is not modelled here (tests/runtime/state/test_journal_power.py does that
for the journal).
"""

import argparse
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

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BOOT_S = 3000.0  # of host time for a guest to look, start and make its first promise; a bound for starved machines
PROMISES = 60  # at most so many from the site's first promise to the cut
PAUSE_S = 0.2  # and at most so long after the last of them


class Promised:
    """What guests were told to be on the disk."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.booked: dict[int, int] = {}
        self.stopped: bool | None = None
        self.latched: bool | None = None
        self.books = self.next_job = self.count = 0

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

    def as_json(self) -> str:
        if not self.count:
            return "{}"
        return json.dumps(
            {
                "jobs": self.jobs,
                "booked": self.booked,
                "stopped": self.stopped,
                "latched": self.latched,
                "books": self.books,
                "next_job": self.next_job + 1,
            }
        )


class Guest:
    """One boot on the image."""

    def __init__(self, image: Path, folder: Path, promised: Promised, cut_after: int, *words: str) -> None:
        """cut_after : `due` is set after so many promises from the site's first on."""
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
            "-p",
            str(self.pidfile),
            "--",
            sys.executable,
            "-m",
            "tests.vm.power_site",
            promised.as_json(),
            *words,
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


def image_at(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(512 << 20)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", str(path)], check=True, env={**os.environ, "PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    )
    return path


def broken(guest: Guest) -> list[str]:
    """What a guest found wrong, or why it did not come to writing."""
    return [line for line in guest.lines if line.startswith("!")]


def run(cuts: int, seed: int, folder: Path) -> dict[str, Any]:
    """Cut so many times, then let a last guest look and finish the ledgers. Gives the figures."""
    rng, promised, image = random.Random(seed), Promised(), image_at(folder / "disk.img")
    whole, wrong, began = 0, [], time.monotonic()
    after: list[tuple[int, float]] = []
    for number in range(cuts + 1):
        last = number == cuts
        count, pause_s = rng.randint(1, PROMISES), rng.uniform(0.0, PAUSE_S)
        guest = Guest(image, folder, promised, count, *(["--last"] if last else []))
        if last:
            looked = guest.end(BOOT_S + 120) == 0
        else:
            in_time = guest.due.wait(BOOT_S)
            time.sleep(pause_s)
            was_cut = guest.cut()
            guest.end(60.0)
            looked = was_cut and in_time and guest.writes and any(line.startswith("- whole") for line in guest.lines)
            after.append((count, round(pause_s, 3)))
        if guest.process.returncode == 77:
            print("\n".join(guest.lines))
            raise SystemExit(77)
        found = broken(guest)
        if found or not looked:
            tail = found or guest.lines[-15:]
            wrong.append({"boot": number, "lines": tail})
            print(f"boot {number}: NOT WHOLE\n  " + "\n  ".join(tail), flush=True)
            keep = Path(tempfile.gettempdir()) / f"tidegate-cut-{seed}-{number}.img"
            shutil.copyfile(image, keep)
            print(f"  the image: {keep}", flush=True)
            break
        whole += number > 0  # the first guest finds an empty disk
        if not last:
            print(
                f"boot {number}: {'an empty disk' if not number else 'whole'}; {promised.count} promises so far, "
                f"cut after {count} of its own and {pause_s:.2f} s, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return {
        "cuts": len(after),
        "asked": cuts,
        "whole": whole,
        "seed": seed,
        "promises": promised.count,
        "jobs": len(promised.jobs),
        "ledgers": len(promised.booked),
        "cut_after": after,
        "wrong": wrong,
        "wall_s": round(time.monotonic() - began),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(args.cuts, args.seed, Path(folder))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(
        f"power cuts: {figures['whole']} of {figures['asked']} whole, {figures['promises']} promises kept, "
        f"seed {args.seed}, {figures['wall_s']} s"
    )
    return 0 if figures["whole"] == figures["asked"] and not figures["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
