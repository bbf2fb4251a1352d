"""Values that the gateway gave beside the plant's true ones: which were other, and what was going on at that moment."""

import json
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from tests.soak.plant_side import Everything, Span, Truth
from tidegate.runtime.api.blocking_client import ClientError

POINT = "site.grid_w"
VALUE_SHARE, VALUE_W = 0.02, 150.0
LAG_S = 0.25  # a value was true at most so long before the moment that its age names; 0.008 s measured in 7,781
SHOWN_NS = 4_000_000_000  # of the truth beside a wrong value
ASK_S = 0.2
ANSWER_S = 1.5  # a gateway that is killed answers nothing
ABOUT_S = 60.0  # faults that ended so long ago are named beside a wrong value
SEARCH_NS = 120_000_000_000  # how far back a wrong value is looked for in the truth


@dataclass(frozen=True)
class Seen:
    """A good value, and when it was asked for and given, CLOCK_MONOTONIC."""

    value_w: float
    age_s: float
    asked_ns: int
    answered_ns: int


class Watch(threading.Thread):
    """Asks for the value several times a second through a client of its own, as long as the run lasts."""

    def __init__(self, all_: Everything) -> None:
        super().__init__(daemon=True, name="watch")
        self._all, self._end = all_, threading.Event()
        self._seen: deque[Seen] = deque()
        self.start()

    def run(self) -> None:
        while not self._end.is_set():
            try:
                with self._all.client(ANSWER_S) as client:
                    while not self._end.wait(ASK_S):
                        asked_ns = time.monotonic_ns()
                        answer = client.ask("get", points=[POINT], ages=True)
                        answered_ns = time.monotonic_ns()
                        (value, quality), age_ms = answer["points"][POINT], answer["ages_ms"][POINT]
                        if value is not None and quality == 1 and age_ms is not None:
                            self._seen.append(Seen(value, age_ms / 1e3, asked_ns, answered_ns))
            except (ClientError, OSError):
                self._end.wait(ASK_S)

    def take(self) -> list[Seen]:
        """What was seen since the last call."""
        return [self._seen.popleft() for _ in range(len(self._seen))]

    def close(self) -> list[Seen]:
        self._end.set()
        self.join(10.0)
        return self.take()


def lag_s(seen: Seen, truth: Truth) -> float | None:
    """How much older than it says a value is: it was true last so long before the moment that its age names.

    0.0: it was true then or later, before it was given. None: it was not true within `SEARCH_NS` of that moment.
    """
    sampled_ns = seen.asked_ns - int(seen.age_s * 1e9)
    for span in reversed(truth.between(sampled_ns - SEARCH_NS, seen.answered_ns)):
        slack_w = VALUE_W + VALUE_SHARE * max(abs(span.least_w), abs(span.most_w))
        if span.least_w - slack_w <= seen.value_w <= span.most_w + slack_w:
            return max(0.0, (sampled_ns - span.end_ns) / 1e9)
    return None


def judge_values(unjudged: list[Seen], truth: Truth, began_s: float) -> tuple[list[float], list[dict[str, Any]]]:
    """Hold values beside the truth, once that is here: it comes through a pipe, late on a starved machine.

    Takes what it judged out of `unjudged`. Gives how much older than they say the right ones were, s, and of the wrong
    ones what there is to know. began_s : CLOCK_MONOTONIC of the run's begin.
    """
    lags, wrong = list[float](), list[dict[str, Any]]()
    while unjudged and truth.until_ns >= unjudged[0].answered_ns:
        seen = unjudged.pop(0)
        spans = truth.between(seen.asked_ns - int(seen.age_s * 1e9) - SHOWN_NS, seen.answered_ns)
        if not spans:
            continue
        lag = lag_s(seen, truth)
        if lag is not None and lag <= LAG_S:
            lags.append(lag)
            continue
        wrong.append(
            {
                "t_s": round(seen.answered_ns / 1e9 - began_s, 2),
                "point": POINT,
                "value_w": seen.value_w,
                "age_s": round(seen.age_s, 3),
                "answer_s": round((seen.answered_ns - seen.asked_ns) / 1e9, 3),
                "least_w": min(span.least_w for span in spans),
                "most_w": max(span.most_w for span in spans),
                "lag_s": None if lag is None else round(lag, 2),
                "truth": course(spans, seen.answered_ns),
            }
        )
    return lags, wrong


def line_of(wrong: dict[str, Any]) -> str:
    """A wrong value in a line; the course of the truth stands in the run's JSON."""
    return json.dumps({name: value for name, value in wrong.items() if name != "truth"})


def course(spans: list[Span], t_ns: int) -> list[tuple[float, float, float]]:
    """How the truth went until a moment: (s from that moment, least, most W), equal neighbours as one."""
    rows: list[tuple[float, float, float]] = []
    for span in spans:
        row = (round((span.end_ns - t_ns) / 1e9, 2), round(span.least_w), round(span.most_w))
        if rows and rows[-1][1:] == row[1:]:
            rows.pop()
        rows.append(row)
    return rows


def faults_about(faults: list[dict[str, Any]], t_s: float) -> list[str]:
    """Faults that were active at a moment or had just ended: what was done, and how long before it began."""
    return [
        f"{row['done']} {t_s - row['t_s']:.1f} s before, all back after {row['back_s']} s"
        for row in faults
        if row["t_s"] <= t_s <= row["t_s"] + (row["back_s"] or 0.0) + ABOUT_S
    ]
