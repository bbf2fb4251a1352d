"""The remote start of a genset's controller by what the loop asks for, and whether the engine does it.

The loop has the minimum times; this side keeps them once more by its claim, because a site or an adapter that starts
again has forgotten them. Whoever works on an engine locks it out at its own panel: a remote start is no lock.
"""

import math

from tidegate.runtime.island.island_unit import RELEASE, Genset
from tidegate.runtime.island.order_desk import (
    AGAIN_S,
    BY_CONVERTERS,
    BY_GENSET,
    ON_GRID,
    WITHOUT_GENSET,
    GensetClaim,
    OrderDesk,
)
from tidegate.runtime.tools.modbus_register import RegisterError

DAY_S = 86_400.0
NAME = "genset"
SEEN_S = 10.0  # a controller's reading may be so much later than the site's meter


class GensetOrders:
    """One genset; a round reads, orders, judges."""

    def __init__(self, desk: OrderDesk, genset: Genset) -> None:
        self.desk, self.genset = desk, genset
        self.stands: bool | None = None  # whether the start stands in the controller; None = not known
        self.running: bool | None = None
        self._try_s = -math.inf
        self._refused = ""  # in words, the last order that did not come through
        self._dry: bool | None = None
        self._carries_s: float | None = None  # since when the site is carried by a genset
        self.waits = ""  # in words, what an order waits for

    def round(self, *, silent: bool) -> None:
        """Once; silent: the site has said nothing for too long. What goes wrong is among the doubts. Raises OSError."""
        self.waits = ""
        self._read()
        wanted = self._wanted(silent)
        claim = self.desk.genset
        if wanted and not claim.on:
            self._start(claim)
        elif wanted:
            self._again(claim)
        elif wanted is False and claim.on:
            self._release(claim)
        else:
            self._refused = ""
            self._dry = None if wanted is False else self._dry
        if self._refused:
            self.desk.doubts["genset refused"] = self._refused
        self._judge()

    def _read(self) -> None:
        start, desk = self.genset.start, self.desk
        self.stands = self.running = None
        try:
            if start.reads_back:
                self.stands = [desk.lines.read(one) for one in start.each()] == list(map(float, start.on))
            value = desk.lines.read(self.genset.running)
            if math.isfinite(value):
                self.running = value > self.genset.above
            else:
                desk.doubts["genset reading"] = f"{NAME}: {self.genset.running.place} reads no number"
        except RegisterError as why:
            desk.doubts["genset silent"] = f"{NAME}: {why}"

    def _wanted(self, silent: bool) -> bool | None:
        """Whether the start is to stand; None = leave it as it is."""
        desk = self.desk
        if silent or desk.ends:
            return False if self.genset.without_word == RELEASE and desk.genset.on else None
        if desk.word is None:
            return None
        if desk.word.wanted:
            return True
        known = desk.word.island in (ON_GRID, BY_CONVERTERS) and desk.grid_for_s() >= self.genset.back_s
        return False if known else None

    # ---- orders ----

    def _start(self, claim: GensetClaim) -> None:
        desk = self.desk
        if self.stands:
            self.waits = "started by somebody else: left to them"
            return
        if claim.since_utc_s and desk.age_s(claim.since_utc_s) < self.genset.off_s_min:
            left_s = self.genset.off_s_min - desk.age_s(claim.since_utc_s)
            self.waits = f"rests for {left_s:.0f} s more, as off_s_min has it"
            return
        self._order(True, claim, new=True)

    def _again(self, claim: GensetClaim) -> None:
        """A start that did not come through is given again at once; one that somebody took off after start_s."""
        if not claim.confirmed:
            self._order(True, claim, new=False)
            return
        gone = self.stands is False or (not self.genset.start.reads_back and self.running is False)
        if not gone:
            return
        what = "took its start off" if self.genset.start.reads_back else "does not run"
        self.desk.doubts["genset start"] = f"{NAME}: somebody, or the controller itself, {what} while it is asked for"
        if self.desk.age_s(claim.since_utc_s) >= self.genset.start_s:
            self._order(True, claim, new=True)

    def _release(self, claim: GensetClaim) -> None:
        age_s = self.desk.age_s(claim.since_utc_s)
        if age_s < self.genset.run_s_min:
            self.waits = f"runs for {self.genset.run_s_min - age_s:.0f} s more, as run_s_min has it"
            return
        if self.stands is False and claim.confirmed and not self.desk.dry_run:
            self.desk.audit({"what": NAME}, f"{NAME}: its start is off already", "changed by somebody else")
            self._keep(claim._replace(on=False, since_utc_s=self.desk.utc()))
            return
        self._order(False, claim, new=False)

    def _order(self, on: bool, claim: GensetClaim, *, new: bool) -> None:
        desk, start = self.desk, self.genset.start
        recent = tuple(one for one in claim.starts_utc_s if desk.age_s(one) < DAY_S)
        if new and len(recent) >= self.genset.starts_per_day_max:
            desk.doubts["genset starts"] = (f"{NAME}: started {len(recent)} times in a day, which is what the file "
                                            "allows: not started again")  # fmt: skip
            return
        if desk.monotonic() < self._try_s:
            return
        short = f"{NAME}: {'start' if on else 'release'}"
        row: dict[str, object] = {"what": NAME, "on": on, "words": list(start.on if on else start.off)}
        if desk.dry_run:
            if self._dry is not on:
                desk.audit(row, short, "dry run")
            self._dry = on
            return
        loud = not self._refused
        desk.audit(row, short, "asked", loud=loud)
        self._try_s = desk.monotonic() + AGAIN_S
        now = desk.utc()
        if on:  # kept before it is known: whoever comes after us knows of it
            claim = GensetClaim(True, now, False, (*recent, now) if new else recent)
            self._keep(claim)
        try:
            self._write(start.on if on else start.off)
        except RegisterError as why:
            self._refused = f"{short}: {why}"
            desk.audit(row, short, f"refused: {why}", loud=loud)
            return
        self._try_s, self._refused = -math.inf, ""
        self.stands = on if start.reads_back else None
        self._keep(claim._replace(confirmed=True) if on else GensetClaim(False, now, True, recent))

    def _write(self, words: tuple[int, ...]) -> None:
        start, lines = self.genset.start, self.desk.lines
        if start.at.kind == "coil":
            lines.write(start.at, float(words[0]))
        else:
            lines.write_words(start.at, list(words))
        if start.reads_back:
            after = [int(lines.read(one)) for one in start.each()]
            if after != list(words):
                raise RegisterError(f"{start.at.place}: {list(words)} were written, {after} stand there")

    def _keep(self, claim: GensetClaim) -> None:
        self.desk.genset = claim
        self.desk.keep()

    # ---- does the engine do it? ----

    def _judge(self) -> None:
        desk, claim = self.desk, self.desk.genset
        word = desk.word
        age_s = desk.age_s(claim.since_utc_s)
        where = self.genset.running.place
        if claim.on and claim.confirmed and age_s >= self.genset.start_s:
            if self.running is False:
                desk.doubts["genset runs not"] = (
                    f"{NAME}: told to start {self.genset.start_s:.0f} s ago and more, and {where} does not read running"
                )
            elif self.running and word is not None and word.island in WITHOUT_GENSET:
                desk.doubts["genset gives nothing"] = (
                    f"{NAME}: {where} reads running, and the site gets no power from it: breaker, transfer switch, or "
                    "a reading that stands still"
                )
        if word is None or word.island != BY_GENSET:
            self._carries_s = None
        elif self._carries_s is None:
            self._carries_s = desk.monotonic()
        carried = self._carries_s is not None and desk.monotonic() - self._carries_s >= SEEN_S
        if carried and self.running is False and "genset runs not" not in desk.doubts:
            desk.doubts["genset runs unseen"] = f"{NAME}: carries the site, and {where} does not read running"
        if claim.since_utc_s and not claim.on and age_s >= self.genset.stop_s and self.running and not self.stands:
            desk.doubts["genset stops not"] = (f"{NAME}: released {self.genset.stop_s:.0f} s ago and more, and {where} "
                                               "still reads running")  # fmt: skip

    def left(self) -> str:
        """What an adapter that ends has not undone; "" where nothing is to be."""
        if self.genset.without_word != RELEASE or not self.desk.genset.on:
            return ""
        return f"{NAME}: not released yet{': ' + self.waits if self.waits else ''}"

    def status(self) -> dict[str, object]:
        """For people and metrics."""
        claim = self.desk.genset
        return {"asked": claim.on, "since_utc_s": round(claim.since_utc_s) or None, "stands": self.stands,
                "running": self.running, "waits": self.waits}  # fmt: skip
