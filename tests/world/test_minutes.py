"""A slice of the seeded minutes; `make control` runs ten thousand. A failure prints the line that repeats it."""

import minutes
import numpy as np

from tests.tools.spread import spread

SLICE = [site + turn * minutes.VARIANTS for site in range(20) for turn in range(5)]


def test_in_any_minute_of_the_world_the_corridor_holds_or_says_who_gave_way():
    bad = [found for found in spread(minutes.judge, SLICE) if found["failed"]]
    assert not bad, "\n".join(
        f"again: python tests/world/minutes.py --seed {found['seed']}\n" + "\n".join(found["failed"]) for found in bad
    )


def test_minutes_that_found_a_fault_of_the_product_are_good():
    """1069: a question went above the limit though there was room below; 5748, 6307: a ramp no converter had."""
    bad = [found for found in spread(minutes.judge, [1069, 5748, 6307]) if found["failed"]]
    assert not bad, bad


def test_the_checks_see_a_request_outside_and_a_limit_that_nobody_answers_for():
    made = minutes.minute(next(seed for seed in range(100) if "follow_grid" not in minutes.settings(seed)))
    series, _, hunts_s = minutes.play(made, 10_000)
    assert minutes.corridor(made, series, hunts_s, 0.01) == []
    late = {**series, "request_w": np.concatenate((series["request_w"][50:], series["request_w"][:50]))}
    assert any("request leaves" in one for one in minutes.corridor(made, late, hunts_s, 0.01))
    calm = {**series, "reason": np.full_like(series["reason"], minutes.REASONS.index("rest")),
            "grid_w": np.full_like(series["grid_w"], float(made.control["peak_w_max"]) + 1e3),
            "load_w": np.full_like(series["load_w"], float(made.control["peak_w_max"]) + 1e3)}  # fmt: skip
    assert any("peak limit" in one for one in minutes.corridor(made, calm, hunts_s, 0.01))
