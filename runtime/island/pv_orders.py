"""The active power limit of PV inverters by what the loop says has a place in an island, and whether they keep it.

Less is written at once, more only after `raise_s`. Limits are whole steps at or below what is allowed, never above the
owner's own. What an inverter takes that cannot be reached, or does not obey, is taken from the others.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from tidegate.runtime.island.island_unit import Inverter
from tidegate.runtime.island.order_desk import AGAIN_S, BY_CONVERTERS, BY_GENSET, ON_GRID, LimitClaim, OrderDesk
from tidegate.runtime.tools.modbus_register import RegisterError

HOUR_S = 3600.0
STILL_S = 60.0  # a power that has not moved for so long while its limit moved twice is not believed
BACK, HOLD, ORDER, LOWER = "back", "hold", "order", "lower"


@dataclass
class Seen:
    """What is known of one inverter. stood: the limit that is read, in the file's scale; limits: (s, W) of it of late.

    kept: what was written stands there. obeys: it gives no more than that.
    """

    stood: float = math.nan
    enable: float | None = None
    power_w: float = math.nan
    reached: bool = False
    kept: bool = True
    obeys: bool = True
    limits: deque[tuple[float, float]] = field(default_factory=deque)
    written_s: float = -math.inf
    try_s: float = -math.inf
    refused: str = ""  # in words, the last order that did not come through
    raises_s: deque[float] = field(default_factory=deque)
    still_since_s: float = -math.inf
    still_moves: int = 0
    dry_w: float = math.nan


class PvOrders:
    """All inverters of the file; a round reads, orders, judges."""

    def __init__(self, desk: OrderDesk, inverters: tuple[Inverter, ...]) -> None:
        self.desk, self.inverters = desk, inverters
        self.seen = {one.name: Seen() for one in inverters}
        self.limit_w: float | None = None  # of all together, as last asked

    def round(self, *, silent: bool) -> None:
        """Once; silent: the site has said nothing for too long. What goes wrong is among the doubts. Raises OSError."""
        for one in self.inverters:
            self._read(one)
            self._foreign(one)
            self._judge(one)
        mode = self._mode(silent)
        if mode is None:
            return
        targets = self._shares() if mode == ORDER else {}
        gone = silent or self.desk.ends
        for one in self.inverters:
            claim, seen = self.desk.limits.get(one.name), self.seen[one.name]
            if not seen.reached:
                continue
            if mode == BACK or (mode == LOWER and gone and one.safe_w is None):
                if claim is not None:
                    self._give_back(one, claim)
                seen.dry_w = math.nan
                continue
            target = targets.get(one.name)
            if target is None and claim is not None:
                target = claim.set_to * one.w_per_unit
            if mode == LOWER and one.safe_w is not None and (claim is not None or not gone):
                target = one.safe_w if target is None else min(target, one.safe_w)
            if target is not None:
                self._order(one, claim, target)

    def _mode(self, silent: bool) -> str | None:
        desk, word = self.desk, self.desk.word
        self.limit_w = None
        if word is None or silent or desk.ends:
            if desk.ends and word is not None and word.island == ON_GRID:
                return BACK
            return LOWER if silent or desk.ends else None
        if word.island == ON_GRID:
            return BACK if desk.grid_for_s() >= desk.file.back_s else HOLD
        if word.island in (BY_GENSET, BY_CONVERTERS) and word.pv_limit_w is not None:
            self.limit_w = max(word.pv_limit_w, 0.0)
            return ORDER
        return LOWER  # what carries the site, or how much has a place, nobody knows

    # ---- what stands there ----

    def _read(self, one: Inverter) -> None:
        seen, lines = self.seen[one.name], self.desk.lines
        seen.reached = False
        before_w = seen.power_w
        try:
            seen.stood = lines.read(one.limit)
            seen.enable = None if one.enable is None else lines.read(one.enable)
            seen.power_w = lines.read(one.power)
        except RegisterError as why:
            self.desk.doubts[f"{one.name} silent"] = f"{one.name}: {why}"
            return
        if not math.isfinite(seen.stood):
            self.desk.doubts[f"{one.name} silent"] = f"{one.name}: {one.limit.place} reads no number"
            return
        seen.reached = True
        if not math.isfinite(seen.power_w):
            self.desk.doubts[f"{one.name} reading"] = f"{one.name}: {one.power.place} reads no number"
        if seen.power_w != before_w:
            seen.still_since_s, seen.still_moves = self.desk.monotonic(), 0

    def _owners_w(self, one: Inverter) -> float:
        """What its owner allows it: by the file, and by what stood there before us, where that is in force."""
        claim, seen = self.desk.limits.get(one.name), self.seen[one.name]
        stood, enable = (seen.stood, seen.enable) if claim is None else (claim.before, claim.before_enable)
        in_force = enable is None or enable == one.enable_on
        own_w = stood * one.w_per_unit if in_force and math.isfinite(stood) else math.inf
        return max(0.0, min(one.limit_w_max, own_w))

    def _foreign(self, one: Inverter) -> None:
        """A limit that somebody else wrote: below ours it is the owner's own from now on, above it is not kept."""
        claim, seen = self.desk.limits.get(one.name), self.seen[one.name]
        seen.kept = not seen.refused
        if claim is None:
            seen.refused = ""
        elif seen.refused:
            self.desk.doubts[f"{one.name} refused"] = seen.refused
        if claim is None or not seen.reached:
            return
        same = one.same_w / one.w_per_unit
        enabled = seen.enable is None or seen.enable == one.enable_on
        if enabled and min(abs(seen.stood - claim.set_to), abs(seen.stood - claim.was)) <= same:
            return  # ours, or the last write has not come
        if seen.stood < claim.set_to and enabled:
            if self.desk.dry_run:
                return
            row: dict[str, object] = {"what": one.name, "limit": seen.stood, "before": claim.before}
            self.desk.audit(row, f"{one.name}: limit {seen.stood:g}", "changed by somebody else")
            self.desk.limits[one.name] = LimitClaim(seen.stood, claim.before_enable, seen.stood, seen.stood)
            self.desk.keep()
            return
        seen.kept = False
        self.desk.doubts[f"{one.name} limit"] = (
            f"{one.name}: {one.limit.place} shows {seen.stood:g} where {claim.set_to:g} was written"
            f"{'' if enabled else ', and is not in force'}: it does not keep its limit, or somebody else writes it"
        )

    # ---- what is to stand there ----

    def _shares(self) -> dict[str, float]:
        """Each inverter's part of the limit by its nameplate, after what those take who cannot be told."""
        left_w = self.limit_w if self.limit_w is not None else 0.0
        good = []
        for one in self.inverters:
            seen = self.seen[one.name]
            if seen.reached and seen.kept and seen.obeys:
                good.append(one)
            elif seen.reached and math.isfinite(seen.power_w):
                left_w -= max(seen.power_w, 0.0)
            else:
                left_w -= one.nameplate_w
        whole_w = sum(one.nameplate_w for one in good)
        left_w = max(left_w, 0.0)
        shares = {one.name: left_w * one.nameplate_w / whole_w for one in good}
        for one in self.inverters:  # one that does not obey is told its part all the same
            shares.setdefault(one.name, left_w * one.nameplate_w / (whole_w + one.nameplate_w))
        return shares

    def _stepped(self, one: Inverter, target_w: float) -> float:
        """The whole step at or below, within what the owner allows; in W."""
        own_w = self._owners_w(one)
        limit_w = target_w if target_w >= own_w else math.floor(target_w / one.step_w + 1e-9) * one.step_w
        limit_w = min(max(limit_w, min(one.limit_w_min, own_w)), own_w)
        if limit_w > target_w + one.same_w:
            self.desk.doubts[f"{one.name} least"] = (
                f"{one.name}: {target_w:.0f} W have a place, and the file allows no limit below {one.limit_w_min:.0f} W"
            )
        if (count := one.limit.resolution) and limit_w < own_w:
            limit_w = math.floor(limit_w / one.w_per_unit / count + 1e-9) * count * one.w_per_unit
        return limit_w

    def _order(self, one: Inverter, claim: LimitClaim | None, target_w: float) -> None:
        desk, seen, now = self.desk, self.seen[one.name], self.desk.monotonic()
        limit_w = self._stepped(one, target_w)
        enabled = seen.enable is None or seen.enable == one.enable_on
        stood_w = seen.stood * one.w_per_unit if enabled else one.nameplate_w
        if claim is None and limit_w >= min(stood_w, one.nameplate_w):
            return
        if now < seen.try_s:
            return
        if abs(limit_w - stood_w) <= one.same_w and enabled:
            self._rewrite(one, claim)
            return
        if limit_w > stood_w:
            while seen.raises_s and now - seen.raises_s[0] > HOUR_S:
                seen.raises_s.popleft()
            if now - seen.written_s < desk.file.raise_s or len(seen.raises_s) >= desk.file.raises_per_hour_max:
                return
        value = limit_w / one.w_per_unit
        short = f"{one.name}: limit {limit_w:.0f} W"
        row: dict[str, object] = {"what": one.name, "limit": round(value, 6), "limit_w": round(limit_w)}
        if desk.dry_run:
            if limit_w != seen.dry_w:
                desk.audit(row, short, "dry run", loud=math.isnan(seen.dry_w))
            seen.dry_w = limit_w
            return
        desk.audit(row, short, "asked", loud=claim is None and not seen.refused)
        before, enable = (seen.stood, seen.enable) if claim is None else (claim.before, claim.before_enable)
        # Both are kept until the write is known: whoever comes after us knows either.
        desk.limits[one.name] = LimitClaim(before, enable, value, seen.stood)
        desk.keep()
        if limit_w > stood_w:
            seen.raises_s.append(now)
        self._write(one, value, float(one.enable_on), row, short)

    def _rewrite(self, one: Inverter, claim: LimitClaim | None) -> None:
        """A limit that stands, once more, for an inverter that falls back by itself when nobody writes."""
        desk, seen = self.desk, self.seen[one.name]
        every_s = desk.file.rewrite_s
        if claim is None or desk.dry_run or not every_s or desk.monotonic() - seen.written_s < every_s:
            return
        row: dict[str, object] = {"what": one.name, "limit": round(claim.set_to, 6)}
        short, moves = f"{one.name}: limit {claim.set_to:g} again", seen.still_moves
        desk.audit(row, short, "asked", loud=False)
        if self._write(one, claim.set_to, float(one.enable_on), row, short, afresh=True):
            seen.still_moves = moves

    def _give_back(self, one: Inverter, claim: LimitClaim) -> None:
        desk, seen = self.desk, self.seen[one.name]
        if desk.dry_run:
            desk.doubts[f"{one.name} dry"] = (
                f"{one.name}: a limit of before still stands, and a dry run does not give the owner's own back"
            )
            return
        if desk.monotonic() < seen.try_s:
            return
        same = one.same_w / one.w_per_unit
        if min(abs(seen.stood - claim.set_to), abs(seen.stood - claim.was), abs(seen.stood - claim.before)) > same:
            row: dict[str, object] = {"what": one.name, "limit": seen.stood, "before": claim.before}
            desk.audit(row, f"{one.name}: limit {seen.stood:g}", "changed by somebody else")
        else:
            short = f"{one.name}: the owner's own limit back, {claim.before:g}"
            row = {"what": one.name, "limit": claim.before, "enable": claim.before_enable}
            desk.audit(row, short, "asked", loud=not seen.refused)
            if not self._write(one, claim.before, claim.before_enable, row, short):
                return
        del desk.limits[one.name]
        desk.keep()

    def _write(self, one: Inverter, value: float, enable: float | None, row: dict[str, object], short: str, *,
               afresh: bool = False) -> bool:  # fmt: skip
        """Write the limit, and whether it is in force; read both back. The caller has audited and claimed it."""
        desk, seen = self.desk, self.seen[one.name]
        try:
            desk.lines.write(one.limit, value)
            seen.written_s = desk.monotonic()
            if one.enable is not None and enable is not None and (afresh or seen.enable != enable):
                desk.lines.write(one.enable, enable)
            after = desk.lines.read(one.limit)
            if not abs(after - value) <= one.same_w / one.w_per_unit:
                raise RegisterError(f"{one.limit.place}: {value:g} was written, {after:g} stands there")
            if one.enable is not None and enable is not None and desk.lines.read(one.enable) != enable:
                raise RegisterError(f"{one.enable.place}: {enable:g} was written, and does not stand there")
        except RegisterError as why:
            desk.audit(row, short, f"refused: {why}", loud=not seen.refused)
            seen.refused, seen.try_s = f"{short}: {why}", desk.monotonic() + AGAIN_S
            desk.doubts[f"{one.name} refused"] = seen.refused
            return False
        seen.stood, seen.enable, seen.still_moves = after, enable if one.enable else None, seen.still_moves + 1
        seen.refused, seen.try_s = "", -math.inf
        desk.limits[one.name] = desk.limits[one.name]._replace(was=value)
        desk.keep()
        return True

    # ---- do they keep it? ----

    def _judge(self, one: Inverter) -> None:
        """Above every limit of the last answer_s it does not obey; one that stands still shows nothing."""
        desk, seen, now = self.desk, self.seen[one.name], self.desk.monotonic()
        if one.name not in desk.limits:
            seen.limits.clear()
            seen.obeys = True
            return
        if not seen.reached:
            return
        enabled = seen.enable is None or seen.enable == one.enable_on
        seen.limits.append((now, seen.stood * one.w_per_unit if enabled else one.nameplate_w))
        while len(seen.limits) > 1 and now - seen.limits[1][0] >= desk.file.answer_s:
            seen.limits.popleft()
        if not math.isfinite(seen.power_w):
            return
        most_w = max(limit_w for _, limit_w in seen.limits)
        whole = now - seen.limits[0][0] >= desk.file.answer_s
        if seen.power_w <= most_w + one.step_w:
            seen.obeys = True
        elif whole:
            seen.obeys = False
            desk.doubts[f"{one.name} obeys not"] = (
                f"{one.name}: gives more than the limit of {most_w:.0f} W for {desk.file.answer_s:.0f} s and more, "
                f"though {one.limit.place} shows it; the others get less"
            )
        if seen.power_w > one.step_w and seen.still_moves >= 2 and now - seen.still_since_s >= STILL_S:
            desk.doubts[f"{one.name} still"] = (
                f"{one.name}: {one.power.place} has not moved for {STILL_S:.0f} s and more while its limit did: it is "
                "not known whether the limit is kept"
            )

    def left(self) -> str:
        """What an adapter that ends has not undone; "" where nothing is to be."""
        rows = []
        for one in self.inverters:
            claim = self.desk.limits.get(one.name)
            if claim is None:
                continue
            if one.safe_w is None:
                rows.append(f"{one.name}: the limit of before, {claim.before:g}, is not back yet")
            elif self.seen[one.name].stood * one.w_per_unit > one.safe_w + one.same_w:
                rows.append(f"{one.name}: not at its safe_w of {one.safe_w:.0f} W yet")
        return "; ".join(rows)

    def status(self) -> list[dict[str, object]]:
        """For people and metrics; W, None where nothing is known."""
        rows: list[dict[str, object]] = []
        for one in self.inverters:
            seen, claim = self.seen[one.name], self.desk.limits.get(one.name)
            power_w = round(seen.power_w) if seen.reached and math.isfinite(seen.power_w) else None
            limit_w = None if claim is None else round(claim.set_to * one.w_per_unit)
            rows.append({"name": one.name, "reached": seen.reached, "limit_w": limit_w, "power_w": power_w,
                         "obeys": seen.obeys})  # fmt: skip
        return rows
