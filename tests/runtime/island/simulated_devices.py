"""A genset's controller and inverters behind registers, in virtual time, with what real ones do wrong."""

import json

from tidegate.runtime.island.island_devices import IslandDevices
from tidegate.runtime.island.island_unit import read_island_file
from tidegate.runtime.tools.modbus_register import RegisterError

FILE = """
[unit]
name = "yard"
host = "10.0.0.20"
silent_s = 5
back_s = 30
raise_s = 10
answer_s = 30

[genset]
unit = 1
start_s = 60
stop_s = 300
run_s_min = 120
off_s_min = 40
back_s = 30

[genset.start]
register = 10
kind = "coil"

[genset.running]
register = 11
kind = "discrete"

[[pv]]
name = "roof"
unit = 2
nameplate_w = 10000

[pv.limit]
register = 100
unit_of = "percent"
type = "uint16"

[pv.power]
register = 101
type = "int32"

[[pv]]
name = "barn"
unit = 3
nameplate_w = 30000

[pv.limit]
register = 100
unit_of = "W"
scale = 10
type = "uint16"

[pv.enable]
register = 99

[pv.power]
register = 101
scale = 1
"""
GENSET, ROOF, BARN = 1, 2, 3


class Yard:
    """Registers by (unit, register), in the file's scale. A round is a second; what does not answer is in `silent`."""

    def __init__(self, folder, text=FILE, **how):
        self.folder, self.t = folder, 0.0
        self.path = folder / "yard.toml"
        self.path.write_text(text)
        self.values = {(GENSET, 10): 0, (GENSET, 11): 0, (ROOF, 100): 100, (ROOF, 101): 0, (BARN, 100): 30_000,
                       (BARN, 101): 0, (BARN, 99): 0}  # fmt: skip
        self.writes, self.silent, self.refuses, self.deaf = [], set(), set(), set()
        self.sun = {ROOF: 0.0, BARN: 0.0}  # of the nameplate
        self.wont_start, self.disobeys, self.still = False, set(), set()
        self.island, self.wanted, self.limit_w, self.speaks = 0, 0, None, True
        self.notes, self.started_s = [], None
        self.start(**how)

    def start(self, **how):
        """The adapter, new: as after a restart."""
        how = {"hear": self.hear, **how}
        self.adapter = IslandDevices(
            read_island_file(self.path), self.folder, how.pop("hear"), note=lambda *row: self.notes.append(row),
            utc=lambda: 1.8e9 + self.t, monotonic=lambda: self.t, lines_of=lambda ask_s: self, **how,
        )  # fmt: skip
        return self.adapter

    def hear(self):
        quality = 1 if self.speaks else 3
        known = 1 if self.limit_w is not None and self.speaks else 3
        rows = {"site.island": [self.island, quality], "site.genset_wanted": [self.wanted, quality],
                "site.pv_limit_w": [self.limit_w, known]}  # fmt: skip
        return {"points": rows, "ages_ms": dict.fromkeys(rows, 10.0)}

    # ---- the lines ----

    def __enter__(self):
        return self

    def __exit__(self, *why):
        pass

    def read(self, at):
        if at.unit in self.silent:
            raise RegisterError(f"{at.place}: no answer")
        return float(self.values[at.unit, at.register])

    def write(self, at, value):
        self.write_words(at, [value])

    def write_words(self, at, words):
        if at.unit in self.silent | self.refuses:
            raise RegisterError(f"{at.place}: {words} was refused: exception 4")
        for k, word in enumerate(words):
            self.writes.append((self.t, at.unit, at.register + k, word))
            if at.unit not in self.deaf:
                self.values[at.unit, at.register + k] = word

    # ---- time ----

    def limit_of(self, unit):
        """W that an inverter may give by its registers."""
        if unit == ROOF:
            return self.values[ROOF, 100] * 100.0
        return self.values[BARN, 100] if self.values[BARN, 99] else 30_000.0

    def pass_time(self, seconds, **how):
        for _ in range(round(seconds)):
            self.t += 1.0
            on = self.values[GENSET, 10] == 1 and not self.wont_start
            self.started_s = (self.started_s or self.t) if on else None
            if GENSET not in self.still:
                self.values[GENSET, 11] = float(on and self.t - self.started_s >= 5)
            for unit, most in ((ROOF, 10_000.0), (BARN, 30_000.0)):
                if unit not in self.still:
                    sun_w = self.sun[unit] * most * (1 + 1e-4 * (self.t % 7))
                    self.values[unit, 101] = sun_w if unit in self.disobeys else min(sun_w, self.limit_of(unit))
            self.adapter.round(**how)
        return self

    def goes(self, island, *, wanted=None, limit_w=None):
        """What the site says from now on."""
        self.island, self.limit_w = island, limit_w
        self.wanted = self.wanted if wanted is None else wanted
        return self

    def audit(self):
        path = self.folder / "island-audit-yard.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def doubted(self, part):
        return [text for text in self.adapter.doubts.values() if part in text]
