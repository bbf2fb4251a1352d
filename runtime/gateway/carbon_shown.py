"""The sidecar's live figures as the gateway holds them: the newest of each kind, with their age, never journaled.

The figures come in pages, since a request is small. A set of pages is shown once its last page is there, so that nobody
sees half of one. What came too long ago is still given, and is called late: the reader decides, the number does not.
"""

import time
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import msgspec

from tidegate.runtime.api import messages

Of = Literal["site", "node", "rack", "namespace", "job", "idle"]
KINDS: tuple[str, ...] = get_args(Of)
PAGE_ROWS = 32
PAGES_MAX = 256  # of one kind; the sidecar sums up what does not fit
LATE_S = 60.0

Name = Annotated[str, msgspec.Meta(max_length=200)]
Amount = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
Text = Annotated[str, msgspec.Meta(max_length=messages.TEXT_MAX)]


class CarbonSpan(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Energy and carbon of a stretch of time. A figure that cannot be given is null."""

    since_utc_s: messages.Count
    until_utc_s: Annotated[messages.Count, msgspec.Meta(description="the newest energy in it")]
    energy_kwh: Amount
    kg: Amount
    g_per_kwh: Amount | None = None
    pue: Amount | None = None
    renewable_direct: Amount | None = None
    renewable_stored: Amount | None = None
    cost: Amount | None = None
    provisional: bool = True
    good: Annotated[bool, msgspec.Meta(description="nothing that it rests on is missing, held or too old")] = False
    doubts: Annotated[list[Text], msgspec.Meta(max_length=16, description="why it is not good")] = []


class CarbonRow(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What one site, IT load, rack, namespace or job used."""

    name: Name
    node: Name = ""
    """The metered load that it is a part of."""
    now: CarbonSpan | None = None
    """The period that is not booked yet."""
    today: CarbonSpan | None = None
    """Since local midnight, or the start of a job."""
    counted_kwh: Amount | None = None
    """What software or a PDU counted of `today`; the meter's total was shared in that proportion."""
    difference_kwh: Amount | None = None
    """Of a load: its meter less what was counted within it."""
    more: dict[str, Amount | Text | None] = {}
    """What only rows of this kind have."""


class CarbonShown:
    """Newest complete set of rows of each kind, with the moment that it came."""

    def __init__(self) -> None:
        self._sets: dict[str, tuple[int, int, list[dict[str, object]]]] = {}  # t_ns, utc_s, rows
        self._begun: dict[str, tuple[int, int, list[dict[str, object]]]] = {}  # utc_s, next page, rows so far

    def take(self, of: str, utc_s: int, page: int, pages: int, rows: list[CarbonRow]) -> str:
        """Take a page in. -> why it does not fit, "" if it does. Pages come in order; page 0 begins anew."""
        stamp, due, held = self._begun.pop(of, (utc_s, 0, [])) if page else (utc_s, 0, [])
        if stamp != utc_s or due != page or page >= pages:
            return f"page {page} of {pages} of {of} does not follow on the one before; begin with page 0"
        held = held + [msgspec.to_builtins(row) for row in rows]
        if len(held) > messages.ITEMS_MAX:
            return f"{len(held)} rows of {of}, at most {messages.ITEMS_MAX}"
        if page + 1 < pages:
            self._begun[of] = utc_s, page + 1, held
        else:
            self._sets[of] = time.monotonic_ns(), utc_s, held
        return ""

    def of(self, kind: str, name: str | None) -> Mapping[str, object] | None:
        """The newest rows of a kind, those of one name only where one is given; None before the first."""
        found = self._sets.get(kind)
        if found is None:
            return None
        t_ns, utc_s, rows = found
        age_s = (time.monotonic_ns() - t_ns) / 1e9
        if name is not None:
            rows = [row for row in rows if row["name"] == name]
        return {"of": kind, "utc_s": utc_s, "age_s": age_s, "late": age_s > LATE_S, "rows": rows}
