"""What people say of meters: that one was replaced, with its closing and opening reading, and where a register ends.

Each is an entry of the ledger, of kind `meter`, chained and signed like any other. Registers that came by file are read
with them; of a flow on the bus the periods that a replacement touches are booked anew, as an edit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.runtime.carbon.engine.corrections import CorrectionError, Done, Edit, correct
from tidegate.runtime.carbon.factors.series import FactorError, iso
from tidegate.runtime.carbon.integers import share
from tidegate.runtime.carbon.ledger.bodies import MeterBody, PeriodBody
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.readings.readings import QUANTITIES, scaled


class NotYet(CorrectionError):
    """What was said fits, and the reading that it needs is not booked yet."""


Row = tuple[int, str, str]  # reading, sync, state


@dataclass(slots=True)
class Changes:
    """What was said of the meters of a ledger, by meter and quantity."""

    exchanges: dict[tuple[str, str], dict[int, tuple[int, int]]] = field(default_factory=dict)  # at -> closing, opening
    ranges: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, body: MeterBody) -> None:
        key = (body["meter"], body["quantity"])
        if body["what"] == "range":
            self.ranges[key] = body["closing"]
        else:
            self.exchanges.setdefault(key, {})[body["at_utc_s"]] = (body["closing"], body["opening"])

    def joined(self, meter: str, quantity: str, rows: Mapping[int, Row]) -> dict[int, Row]:
        """Readings as if one register had gone on."""
        exchanges = self.exchanges.get((meter, quantity), {})
        span = self.ranges.get((meter, quantity), 0)
        both = {**rows, **{at: (closing, "I", "G") for at, (closing, _) in exchanges.items()}}
        found: dict[int, Row] = {}
        offset = 0
        last: int | None = None
        for at in sorted(both):
            value, sync, state = both[at]
            if last is not None and span and value < last <= span and (last - value) * 2 > span:
                offset += span
            found[at] = (value + offset, sync, state)
            last = value
            if at in exchanges:
                closing, opening = exchanges[at]
                offset += closing - opening
                last = opening
        return found


def record_change(
    ledger: Ledger, what: str, meter: str, quantity: str, unit: str, closing: str, opening: str, at_utc_s: int,
    author: str, reason: str,
) -> MeterBody:  # fmt: skip
    """Append what a person says of a meter that comes by file. Raises FactorError for what cannot be."""
    if not author.strip() or not reason.strip():
        raise FactorError("say who, with --author, and why, with --reason")
    if quantity not in QUANTITIES:
        raise FactorError(f"quantity {quantity!r}, expected one of {', '.join(QUANTITIES)}")
    known = {entry.body["meter"] for entry in ledger.entries("reading") if entry.body["quantity"] == quantity}
    if meter not in known:
        raise FactorError(f"{meter}: no readings of {quantity}; known: {', '.join(sorted(known)) or 'none'}")
    end = scaled(closing, quantity, unit, "--closing" if what == "exchange" else "--end")
    body: MeterBody = {
        "v": 1, "what": what, "meter": meter, "quantity": quantity, "unit": QUANTITIES[quantity][1],
        "at_utc_s": at_utc_s, "closing": end,
        "opening": scaled(opening, quantity, unit, "--opening"), "author": author, "reason": reason,
    }  # fmt: skip
    if what == "range" and not body["closing"]:
        raise FactorError("a range of 0 is none")
    ledger.append([("meter", at_utc_s, body)])
    return body


def exchanged(
    ledger: Ledger, flow: str, at_utc_s: int, closing_milliwh: int, opening_milliwh: int, author: str, reason: str
) -> Done:
    """Book the periods that the replacement of a flow's meter touches anew, from both meters' readings.

    What the old meter counted until its closing reading and the new one from its opening reading is the whole; it keeps
    the shape that was booked. Raises CorrectionError naming what does not fit.
    """
    before = list(ledger.in_force("period", at_utc_s - DAYS_S, at_utc_s + 1))
    after = list(ledger.in_force("period", at_utc_s - 3600, at_utc_s + DAYS_S))
    first = next((e.body for e in reversed(before) if _reads(e.body, flow, "open_milliwh", closing_milliwh)), None)
    if first is None:
        raise CorrectionError(f"{flow}: no register reading below the closing one is booked before {iso(at_utc_s)}")
    last = next((e.body for e in after if e.body["start_utc_s"] + e.body["length_s"] > at_utc_s
                 and _reads(e.body, flow, "close_milliwh", None, opening_milliwh)), None)  # fmt: skip
    if last is None:
        raise NotYet(f"{flow}: no register reading above the opening one is booked after {iso(at_utc_s)} yet")
    opened, closed = first["flows"][flow]["open_milliwh"], last["flows"][flow]["close_milliwh"]
    assert opened is not None and closed is not None
    whole = closing_milliwh - opened + closed - opening_milliwh
    touched = [e.body for e in ledger.in_force("period", first["start_utc_s"], last["start_utc_s"] + 1)]
    booked = [body["flows"][flow]["energy_milliwh"] for body in touched]
    parts = share(whole, booked if any(booked) else [1] * len(booked))
    edits = [Edit(body["start_utc_s"], flow, part) for body, part in zip(touched, parts, strict=True)]
    said: MeterBody = {
        "v": 1, "what": "exchange", "meter": flow, "quantity": "flow", "unit": "mWh", "at_utc_s": at_utc_s,
        "closing": closing_milliwh, "opening": opening_milliwh, "author": author, "reason": reason,
    }  # fmt: skip
    done = correct(ledger, author=author, reason=f"meter replaced: {reason}", edits=edits)
    ledger.append([("meter", at_utc_s, said)])
    return done


DAYS_S = 7 * 86_400


def _reads(body: PeriodBody, flow: str, key: str, most: int | None, least: int = 0) -> bool:
    """Whether a period has a register reading of a flow within bounds. Raises CorrectionError for no such flow."""
    row = body["flows"].get(flow)
    if row is None:
        raise CorrectionError(f"{flow}: no such flow; known: {', '.join(sorted(body['flows']))}")
    value = row["open_milliwh"] if key == "open_milliwh" else row["close_milliwh"]
    return value is not None and value >= least and (most is None or value <= most)
