"""Estimation and control together over whole demand windows: what the utility will bill, by its own register."""

import math

import pytest

from tidegate.ext.control.corridor import Control
from tidegate.ext.estimate.estimator import Estimate

LIMIT_W = 38e3


def bill(load_w, windows, *, register=None, window_s=900, **settings):
    """Mean grid power of each window, W, true; register: the utility's count over the true energy, None = not read.

    A cycle of a second, a battery that answers in the next one.
    """
    settings = {"demand_window_s": float(window_s), "demand_margin_w": 40.0, "deadband_w": 1.0, **settings}
    estimate = Estimate(age_max_s=10.0, meter_latency_s_max=0.1, demand_w_max=LIMIT_W, **settings)
    control = Control(**settings)
    start_s, request_w, counted_wh, means = 36000.0, 0.0, 5e6, []
    for i in range(windows * window_s):
        if i % window_s == 0:
            means.append(0.0)
        t_s, grid_w = start_s + i, load_w(i) - request_w
        means[-1] += grid_w / window_s
        counted_wh += grid_w * (register or 1.0) / 3600.0
        estimate.reading("grid_w", grid_w, t_s)
        estimate.reading("ess0_w", request_w, t_s)
        estimate.reading("soc0", 0.8, t_s)
        if register is not None:
            estimate.reading("grid_import_wh", math.floor(counted_wh / 10.0) * 10.0, t_s)
        estimate.step(t_s, setpoint_w=[int(request_w)])
        used_ws, unknown_s, left_s, paid_w, gain = estimate.demand
        elapsed_s = window_s - left_s
        known = elapsed_s > 0.0 and unknown_s < 2.0
        # One cycle from Python knows no gain: the limit is given in our own meter's watts instead.
        made = control.step(
            grid_w=grid_w, net_w=estimate.net_w, ess_w=request_w, soc=0.8, lo_w=-30e3, hi_w=30e3, dt_s=1.0, paired=True,
            demand=(used_ws / elapsed_s, elapsed_s, left_s, paid_w) if known else None, demand_w_max=LIMIT_W / gain,
        )  # fmt: skip
        request_w = made.request_total_w
    return means


@pytest.mark.parametrize("gain", [0.99, 1.01])
def test_the_margin_learned_from_the_utilitys_register_makes_its_mean_and_ours_agree(gain):
    """A meter one percent apart from the utility's: after two hours the windows are right by the utility's count."""
    load_w = lambda i: 40e3  # noqa: E731
    untold = bill(load_w, 4)[-1] * gain
    told = bill(load_w, 12, register=gain)[-3:]
    assert untold == pytest.approx(LIMIT_W * gain, rel=2e-3), "one percent above, or unused"
    assert [one * gain for one in told] == pytest.approx([LIMIT_W] * 3, rel=2e-3)


@pytest.mark.parametrize("window_s", [300, 900, 1800, 3600])
def test_late_headroom_is_used_and_no_window_is_above(window_s):
    """Half of each window at 50 kW, half at 20: 35 kW as it is, so that next to nothing is shaved."""
    calm = bill(lambda i: 50e3 if (i // (window_s // 2)) % 2 == 0 else 20e3, 3, window_s=window_s)
    assert calm == pytest.approx([35e3] * 3, rel=4e-3)
    # The other way round the high half comes last and 45 kW must become 38, no less than that.
    late = bill(lambda i: 40e3 if (i // (window_s // 2)) % 2 == 0 else 50e3, 3, window_s=window_s)
    assert max(late) <= LIMIT_W and min(late) >= 0.985 * LIMIT_W
