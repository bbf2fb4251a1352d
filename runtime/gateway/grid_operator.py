"""What the grid's operator orders: a limit of import or export, or a stop, with its rank, its end and its proof.

It stands above every lease, plan, policy and limit of others, and only ever narrows. It ends by itself at its time, by
the one who gave it, or by a person with the role maintain. What the grid meter showed while it was in force is kept
with it, so that the event of its end is the proof; a file holds both over a restart of everything.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from tidegate.ext.abi.shared import OrderKind
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.state.atomic_file import replace
from tidegate.runtime.state.plain_file import read_plain

SECOND = 1_000_000_000
KINDS = (
    (OrderKind.OPERATOR_IMPORT_W_MAX, "import_w_max"),
    (OrderKind.OPERATOR_EXPORT_W_MAX, "export_w_max"),
    (OrderKind.OPERATOR_STOP, "stop"),
)
POINTS = ("site.grid_in_ws", "site.grid_out_ws", "site.grid_covered_s", "site.grid_min_w", "site.grid_max_w")
KEEP_EVERY_S = 10.0
AHEAD_NS_MAX = 366 * 86_400 * SECOND  # that the core is told at once, also where the clock has lost years
UTC_NS_MAX = 7 * 10**18  # the year 2191
REACTION_S = 5.0  # from the beginning on; what stands above the limit then is counted apart


class Mailbox(Protocol):
    """What is needed of the shared memory."""

    def put_order(self, kind: int, value: float, expires_t_ns: int, request: int) -> int: ...


@dataclass
class Measured:
    """What the grid meter showed while the order was in force; import positive, W. s: seconds that it was readable."""

    seconds: float = 0.0
    covered_s: float = 0.0
    import_wh: float = 0.0
    export_wh: float = 0.0
    import_w_max: float | None = None
    export_w_max: float | None = None
    above_s: float = 0.0
    """Seconds whose mean stood above the limit, after the first five."""
    above_wh: float = 0.0

    @property
    def mean_w(self) -> float | None:
        """Mean of grid power over the seconds that were readable."""
        return (self.import_wh - self.export_wh) * 3600.0 / self.covered_s if self.covered_s > 0 else None


@dataclass
class Held:
    """An order of the grid's operator. Times are UTC, ns."""

    peer: str
    who: str
    reference: str
    begin_utc_ns: int
    end_utc_ns: int
    import_w_max: float | None = None
    export_w_max: float | None = None
    stop: bool = False
    measured: Measured = field(default_factory=Measured)

    @property
    def what(self) -> tuple[object, ...]:
        """All but its times: who gives the same again lets it last longer."""
        return self.peer, self.reference, self.import_w_max, self.export_w_max, self.stop

    @property
    def text(self) -> str:
        """The order in words."""
        said = [f"import at most {self.import_w_max:.0f} W"] if self.import_w_max is not None else []
        said += [f"export at most {self.export_w_max:.0f} W"] if self.export_w_max is not None else []
        said += ["no battery power"] if self.stop else []
        return ", ".join(said) + (f" ({self.reference})" if self.reference else "")

    def told(self, utc_ns: int) -> dict[str, object]:
        """The order and its proof, as `why` and the events have it."""
        measured = asdict(self.measured) | {"mean_w": self.measured.mean_w}
        return {
            "peer": self.peer, "reference": self.reference, "begin_utc_ns": self.begin_utc_ns,
            "end_utc_ns": self.end_utc_ns, "left_ms": max(0, (self.end_utc_ns - utc_ns) // 1_000_000),
            "import_w_max": self.import_w_max, "export_w_max": self.export_w_max, "stop": self.stop,
            "measured": measured,
        }  # fmt: skip


class GridOperator:
    """The one order of the grid's operator that is in force, or none.

    path : where it is kept. record : called with (name, detail, fields) for the journal.
    A file that cannot be read holds no order, and `problem` says so: what was in it is for people to look at.
    """

    def __init__(self, mailbox: Mailbox, path: Path, record: Callable[[str, str, dict[str, object]], None]) -> None:
        self.mailbox, self.path, self.record = mailbox, path, record
        self.held: Held | None = None
        self.problem = ""
        self._number = 0
        self._kept_utc_ns = 0
        self._last: tuple[float, float, float] | None = None  # integrals of the record before: in, out, covered

    # ---- orders ----

    def resume(self, now_ns: int, utc_ns: int) -> None:
        """Go on with the order that a gateway or a machine before this one held."""
        try:
            held = _believable(msgspec.convert(json.loads(read_plain(self.path)), Held))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as why:  # msgspec's own are ValueErrors
            self.problem = f"{self.path}: {why}"
            return
        self.held = held
        if utc_ns < held.end_utc_ns:
            self._put(now_ns, utc_ns)
            self.record("resumed", f"{held.text} of {held.who}", held.told(utc_ns))
        else:
            self.end("its time was over before this start", now_ns, utc_ns)

    def order(
        self,
        peer: str,
        who: str,
        role: str,
        *,
        import_w_max: float | None,
        export_w_max: float | None,
        stop: bool,
        reference: str,
        for_ns: int,
        now_ns: int,
        utc_ns: int,
    ) -> list[tuple[int, int]]:
        """Take an order, in place of this peer's own before. -> (kind, seq) of what the core must take over.

        Raises Refused while another peer's is in force, and for an order that says nothing.
        """
        self.step(now_ns, utc_ns)
        if import_w_max is None and export_w_max is None and not stop:
            raise Refused("invalid-field", "give import_w_max, export_w_max or stop")
        before = self.held
        self._mine(peer, role, utc_ns)
        held = Held(peer, who, reference, utc_ns, utc_ns + for_ns, import_w_max, export_w_max, stop)
        same = before is not None and before.what == held.what
        if before is not None and same:  # given again before its end: one order that lasts longer
            before.end_utc_ns = held.end_utc_ns
        elif before is not None:
            self._told_end(before, "replaced", utc_ns)
        if not same:
            self.held = held
            self._last = None
        seqs = self._put(now_ns, utc_ns)
        self._keep(utc_ns)
        if not same:
            seconds = for_ns // SECOND
            self.record("began", f"{held.text} for {seconds} s by {who}", held.told(utc_ns))
        return seqs

    def release(self, peer: str, who: str, role: str, now_ns: int, utc_ns: int) -> list[tuple[int, int]]:
        """End the order before its time. Raises Refused for one who may not."""
        self.step(now_ns, utc_ns)
        if self.held is None:
            raise Refused("no-lease", "no order of the grid operator is in force")
        self._mine(peer, role, utc_ns)
        return self.end(f"released by {who}", now_ns, utc_ns)

    def _mine(self, peer: str, role: str, utc_ns: int) -> None:
        held = self.held
        if held is not None and held.peer != peer and role != "maintain":
            left_ms = max(0, (held.end_utc_ns - utc_ns) // 1_000_000)
            text = f"{held.peer} gave the grid operator's order that is in force; that needs the role maintain"
            raise Refused("lease-held", text, holder=held.peer, expires_ms=left_ms)

    def end(self, why: str, now_ns: int, utc_ns: int) -> list[tuple[int, int]]:
        """Let the order end, and record its proof."""
        held, self.held = self.held, None
        seqs = self._put(now_ns, utc_ns)
        if held is not None:
            held.end_utc_ns = min(held.end_utc_ns, utc_ns)
            self._told_end(held, why, utc_ns)
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}"
        return seqs

    def step(self, now_ns: int, utc_ns: int) -> None:
        """End what is over."""
        if self.held is not None and utc_ns >= self.held.end_utc_ns:
            self.end("its time is over", now_ns, utc_ns)

    def _put(self, now_ns: int, utc_ns: int) -> list[tuple[int, int]]:
        """Leave it with the core, which ends it by itself, whatever becomes of this process."""
        seqs = []
        for kind, name in KINDS:
            value = getattr(self.held, name) if self.held is not None else None
            ordered = self.held is not None and value is not None and value is not False
            left_ns = self.held.end_utc_ns - utc_ns if self.held is not None and ordered else 0
            expires_ns = now_ns + min(left_ns, AHEAD_NS_MAX) if ordered else 0
            self._number += 1
            seq = self.mailbox.put_order(kind, float(value or 0.0) if ordered else 0.0, expires_ns, self._number)
            seqs.append((int(kind), seq))
        return seqs

    # ---- proof ----

    def measure(self, points: Mapping[str, float | None], utc_ns: int) -> None:
        """Take in a meter record, one a second: grid integrals (Ws, s) and extremes (W)."""
        held = self.held
        if held is None:
            return
        now = [points.get(f"site.grid_{name}") for name in ("in_ws", "out_ws", "covered_s")]
        if any(one is None for one in now):
            held.measured.seconds += 1.0
            self._last = None
            return
        in_ws, out_ws, covered_s = (float(one or 0.0) for one in now)
        before, self._last = self._last, (in_ws, out_ws, covered_s)
        if before is None or covered_s < before[2]:  # the first one, or another start of the core
            return
        spent_s = covered_s - before[2]
        m = held.measured
        m.seconds += 1.0
        m.covered_s += spent_s
        m.import_wh += (in_ws - before[0]) / 3600.0
        m.export_wh += (out_ws - before[1]) / 3600.0
        least_w, most_w = points.get("site.grid_min_w"), points.get("site.grid_max_w")
        if most_w is not None:
            m.import_w_max = max(m.import_w_max if m.import_w_max is not None else 0.0, most_w)
        if least_w is not None:
            m.export_w_max = max(m.export_w_max if m.export_w_max is not None else 0.0, -least_w)
        if spent_s > 0 and utc_ns - held.begin_utc_ns > REACTION_S * SECOND:
            mean_w = ((in_ws - before[0]) - (out_ws - before[1])) / spent_s
            over_w = mean_w - held.import_w_max if held.import_w_max is not None else -math.inf
            if held.export_w_max is not None:
                over_w = max(over_w, -mean_w - held.export_w_max)
            if over_w > 0:
                m.above_s += spent_s
                m.above_wh += over_w * spent_s / 3600.0
        if utc_ns - self._kept_utc_ns >= KEEP_EVERY_S * SECOND:
            self._keep(utc_ns)

    def _told_end(self, held: Held, why: str, utc_ns: int) -> None:
        m = held.measured
        mean = "not measured" if m.mean_w is None else f"mean {m.mean_w:.0f} W"
        most = "" if m.import_w_max is None else f", most {m.import_w_max:.0f} W"
        detail = f"{why}; {held.text}; {mean}{most}, above it for {m.above_s:.0f} s ({m.above_wh:.2f} Wh)"
        self.record("ended", detail, held.told(utc_ns))

    def _keep(self, utc_ns: int) -> None:
        self._kept_utc_ns = utc_ns
        if self.held is None:
            return
        try:
            replace(self.path, json.dumps(asdict(self.held)).encode())
            self.problem = ""
        except OSError as why:
            self.problem = f"{self.path}: {why.strerror}"


def _believable(held: Held) -> Held:
    """An order as a file gave it. Raises ValueError for powers and times that no order has."""
    limits = [one for one in (held.import_w_max, held.export_w_max) if one is not None]
    if not all(math.isfinite(one) and one >= 0.0 for one in limits) or not (limits or held.stop):
        raise ValueError("it limits nothing that could be limited")
    if not 0 <= held.begin_utc_ns <= held.end_utc_ns <= UTC_NS_MAX:
        raise ValueError("its times are those of no order")
    return held
