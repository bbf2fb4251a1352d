"""The corridor: what each policy accepts, who wins, and why."""

import itertools
import math
import random

import pytest

from tidegate.ext.abi.settings import defaults
from tidegate.ext.control.corridor import Control

BAD = [math.nan, math.inf, -math.inf]


def test_nothing_configured_rests() -> None:
    made = Control().step(grid_w=50e3, lo_w=-30e3, hi_w=30e3)
    assert made.request_total_w == 0.0
    assert (made.reason, made.preference) == ("rest", "rest")


def test_a_load_step_goes_into_the_request_whole_and_at_once() -> None:
    control = Control(peak_w_max=48e3)
    assert control.step(grid_w=40e3, lo_w=-30e3, hi_w=30e3).request_total_w == 0.0
    made = control.step(grid_w=60e3, lo_w=-30e3, hi_w=30e3)
    assert made.request_total_w == 12e3
    assert made.reason == "peak limit"


def test_the_batterys_own_answer_is_not_taken_for_a_change_of_the_load() -> None:
    control = Control(peak_w_max=48e3)
    for ess_w in (0.0, 3e3, 8e3, 12e3):
        assert control.step(grid_w=60e3 - ess_w, ess_w=ess_w, lo_w=-30e3, hi_w=30e3).request_total_w == 12e3


def test_request_returns_to_zero_with_the_load() -> None:
    control = Control(peak_w_max=48e3, deadband_w=50.0)
    control.step(grid_w=60e3, lo_w=-30e3, hi_w=30e3)
    assert control.step(grid_w=18e3, ess_w=12e3, lo_w=-30e3, hi_w=30e3).request_total_w == 0.0


def test_the_stronger_limit_names_the_reason() -> None:
    control = Control(peak_w_max=48e3, connection_import_w_max=45e3)
    made = control.step(grid_w=60e3, lo_w=-30e3, hi_w=30e3)
    assert made.reason == "connection limit"
    assert made.request_total_w == 15e3


def test_export_limit_beats_a_lease() -> None:
    control = Control(connection_export_w_max=0.0)
    made = control.step(grid_w=5e3, lease_w=20e3, lo_w=-30e3, hi_w=30e3)
    assert made.request_total_w == 5e3
    assert (made.reason, made.preference) == ("export limit", "lease")


def test_a_weaker_policy_takes_the_nearest_edge_of_what_is_left() -> None:
    # Export is forbidden, the peak limit asks for more than the load: the export limit stands.
    control = Control(connection_export_w_max=0.0, peak_w_max=0.0)
    made = control.step(grid_w=-10e3, lo_w=-30e3, hi_w=30e3)
    assert made.lo_w <= made.request_total_w <= made.hi_w
    assert made.request_total_w == -10e3


def test_run_time_limit_only_tightens() -> None:
    control = Control(connection_import_w_max=48e3)
    assert control.step(grid_w=60e3, lo_w=-30e3, hi_w=30e3, import_w_max=40e3).request_total_w == 20e3
    assert control.step(grid_w=60e3, lo_w=-30e3, hi_w=30e3, import_w_max=55e3).request_total_w == 12e3


@pytest.mark.parametrize("grid_w", [None, math.nan, math.inf, -math.inf])
def test_without_a_believable_grid_meter_the_request_is_zero(grid_w: float | None) -> None:
    control = Control(peak_w_max=48e3)
    control.step(grid_w=60e3, lo_w=-30e3, hi_w=30e3)
    made = control.step(grid_w=grid_w, lo_w=-30e3, hi_w=30e3, lease_w=10e3)
    assert made.request_total_w == 0.0
    assert made.reason == "blind"


def test_stop_beats_everything() -> None:
    control = Control(connection_import_w_max=48e3)
    made = control.step(grid_w=90e3, lo_w=-30e3, hi_w=30e3, lease_w=10e3, stop=True)
    assert made.request_w == (0.0,)
    assert made.reason == "stopped"


def test_backup_reserve_yields_to_the_connection_and_to_nothing_weaker() -> None:
    held = Control(peak_w_max=48e3, reserve_soc=0.3).step(grid_w=60e3, soc=0.2, lo_w=-30e3, hi_w=30e3)
    assert held.request_total_w == 0.0
    assert held.reason == "backup reserve"
    given = Control(connection_import_w_max=48e3, reserve_soc=0.3).step(grid_w=60e3, soc=0.2, lo_w=-30e3, hi_w=30e3)
    assert given.request_total_w == 12e3


def test_recharge_stays_under_its_band_and_names_itself() -> None:
    control = Control(peak_w_max=48e3, recharge_w_max=40e3, recharge_rate_w=10e3, target_soc=0.8)
    for _ in range(5000):
        made = control.step(grid_w=35e3, ess_w=0.0, soc=0.5, lo_w=-30e3, hi_w=30e3)
    assert made.request_total_w == -5e3
    assert (made.reason, made.preference) == ("recharge band", "recentre")


def test_recharge_starts_gently_and_ends_at_its_target() -> None:
    control = Control(recharge_rate_w=10e3, target_soc=0.8)
    first = control.step(grid_w=0.0, soc=0.5, lo_w=-30e3, hi_w=30e3)
    assert first.request_total_w > -1e3
    for _ in range(3000):
        made = control.step(grid_w=0.0, soc=0.5, lo_w=-30e3, hi_w=30e3)
    assert made.request_total_w == pytest.approx(-10e3)
    assert control.step(grid_w=0.0, soc=0.8, lo_w=-30e3, hi_w=30e3).request_total_w == 0.0


def test_charging_never_lifts_the_grid_above_the_peak_limit() -> None:
    control = Control(peak_w_max=48e3, recharge_rate_w=20e3, target_soc=0.9)
    for _ in range(4000):
        made = control.step(grid_w=45e3, soc=0.2, lo_w=-30e3, hi_w=30e3)
    assert -3e3 <= made.request_total_w <= -2e3


@pytest.mark.parametrize("dt_s", [0.001, 0.01, 0.1])
def test_the_grid_ramps_by_the_limit_whatever_the_cycle(dt_s: float) -> None:
    control = Control(ramp_up_w_per_s=1e3, ramp_down_w_per_s=1e3)
    control.step(grid_w=20e3, lo_w=-40e3, hi_w=40e3, dt_s=dt_s)
    made = control.step(net_w=40e3, grid_w=40e3, lo_w=-40e3, hi_w=40e3, dt_s=dt_s)
    assert made.reason == "grid ramp limit"
    for _ in range(round(5.0 / dt_s)):
        made = control.step(net_w=40e3, grid_w=25e3, lo_w=-40e3, hi_w=40e3, dt_s=dt_s)
    assert 40e3 - made.request_total_w == pytest.approx(25e3, abs=1e3 * dt_s * 2 + 1.0)


@pytest.mark.parametrize(("net_lo_w", "kept"), [(55e3, True), (62e3, False)])
def test_a_ramp_that_is_missed_goes_on_from_what_the_load_is_at_least(net_lo_w: float, kept: bool) -> None:
    """While units move at full speed the load may be 55 or 62 kW: what is only a doubt is no grid power."""
    control = Control(ramp_up_w_per_s=1e3, ramp_down_w_per_s=1e3)
    for net_w, lo_w, cycles in ((26e3, 26e3, 1), (62e3, net_lo_w, 5), (55e3, 55e3, 1)):
        for _ in range(cycles):
            made = control.step(net_w=net_w, net_lo_w=lo_w, grid_w=0.0, lo_w=-30e3, hi_w=30e3, dt_s=0.01)
    assert (55e3 - made.request_total_w < 26.1e3) == kept, made


def test_within_the_meters_resolution_nothing_moves() -> None:
    control = Control(peak_w_max=48e3, deadband_w=50.0)
    rng = random.Random(4)
    first = control.step(grid_w=60e3, lo_w=-30e3, hi_w=30e3).request_total_w
    for _ in range(1000):
        made = control.step(net_w=60e3 + rng.uniform(-45.0, 45.0), grid_w=48e3, lo_w=-30e3, hi_w=30e3)
        assert made.request_total_w == first


def test_an_idle_site_stays_idle_under_meter_noise() -> None:
    control = Control(peak_w_max=48e3, deadband_w=50.0, trim_per_s=1.0)
    rng = random.Random(5)
    for _ in range(1000):
        made = control.step(grid_w=30e3 + rng.uniform(-45.0, 45.0), ess_w=rng.uniform(-45, 45), lo_w=-3e4, hi_w=3e4)
        assert made.request_total_w == 0.0


def test_shortfall_is_published_when_the_battery_is_empty() -> None:
    made = Control(peak_w_max=48e3).step(grid_w=60e3, lo_w=-30e3, hi_w=0.0)
    assert made.request_total_w == 0.0
    assert made.shortfall_w == 12e3
    assert made.grid_limit_w == 48e3
    assert made.reason != "peak limit"


def test_trim_takes_away_a_steady_error_of_the_pcs_and_no_more() -> None:
    control = Control(peak_w_max=48e3, trim_per_s=0.5, deadband_w=10.0, pcs_tau_s=0.05)
    request_w = 0.0
    for _ in range(30000):
        ess_w = request_w * 0.97
        request_w = control.step(grid_w=60e3 - ess_w, ess_w=ess_w, lo_w=-30e3, hi_w=30e3, dt_s=0.001).request_total_w
    assert 60e3 - 0.97 * request_w == pytest.approx(48e3, abs=25.0)
    assert request_w <= 12e3 * 1.05


@pytest.mark.parametrize(("limit", "sign"), [("peak_w_max", 1.0), ("connection_export_w_max", -1.0)])
def test_trim_takes_nothing_from_a_limit_for_what_a_slow_pcs_still_gives(limit: str, sign: float) -> None:
    """A load that falls: the PCS is late, and gives too much for seconds."""
    control = Control(**{"peak_w_max": 1e6, limit: 10e3}, trim_per_s=0.5, deadband_w=10.0, pcs_tau_s=0.05)
    ess_w = 0.0
    for cycle in range(9000):
        net_w = sign * (34e3 if cycle < 4000 else 16e3)
        made = control.step(net_w=net_w, grid_w=net_w - ess_w, ess_w=ess_w, lo_w=-30e3, hi_w=30e3, dt_s=0.001)
        ess_w += (made.request_total_w - ess_w) * 1e-3 / 0.8
        if cycle > 4000:
            assert sign * made.request_total_w >= 6e3 - 10.0


def test_lease_then_plan_then_self_consumption_then_rest() -> None:
    control = Control(follow_grid=1.0, target_grid_w=0.0)
    step = {"grid_w": 8e3, "lo_w": -30e3, "hi_w": 30e3}
    assert control.step(**step, lease_w=1e3, plan_w=2e3).preference == "lease"
    assert control.step(**step, plan_w=2e3).request_total_w == 2e3
    made = control.step(**step)
    assert (made.request_total_w, made.reason) == (8e3, "self-consumption")
    assert Control().step(**step).reason == "rest"


def test_a_person_comes_before_a_forced_charge_and_what_is_passed_over_is_named() -> None:
    step = {"lo_w": -30e3, "hi_w": 30e3}
    control = Control(peak_w_max=40e3, connection_import_w_max=60e3)
    made = control.step(grid_w=45e3, manual_w=-8e3, plan_w=-20e3, forced=True, lease_w=3e3, **step)
    assert (made.request_total_w, made.reason) == (-8e3, "manual")
    assert made.missed == {"peak limit": "overruled"}
    made = control.step(grid_w=45e3, plan_w=-20e3, forced=True, lease_w=3e3, **step)
    assert (made.request_total_w, made.reason) == (5e3, "peak limit"), "a forced charge never makes a peak"
    made = control.step(grid_w=30e3, plan_w=-5e3, forced=True, lease_w=3e3, **step)
    assert (made.request_total_w, made.reason) == (-5e3, "forced charge or discharge")
    made = control.step(grid_w=55e3, manual_w=-20e3, **step)
    assert (made.request_total_w, made.reason) == (-5e3, "connection limit"), "never above the connection"


def test_self_consumption_keeps_what_the_peaks_need() -> None:
    control = Control(follow_grid=1.0, follow_soc_min=0.5)
    assert control.step(grid_w=8e3, soc=0.4, lo_w=-30e3, hi_w=30e3).request_total_w == 0.0
    assert control.step(grid_w=-8e3, soc=0.4, lo_w=-30e3, hi_w=30e3).request_total_w == -8e3


def test_the_worst_phase_decides() -> None:
    control = Control(phase_import_w_max=16e3)
    made = control.step(grid_w=36e3, phases_w=(10e3, 18e3, 8e3), lo_w=-30e3, hi_w=30e3)
    assert made.request_total_w == pytest.approx(6e3)  # a third of it on each phase
    assert made.reason == "phase limit"


def test_units_behind_a_sub_meter_give_what_it_needs() -> None:
    control = Control(units=2, circuit_import_w_max=[20e3], circuit_units=[0b10])
    made = control.step(grid_w=30e3, circuits_w=[27e3], lo_w=-30e3, hi_w=30e3)
    assert made.request_w[1] == pytest.approx(7e3)
    assert made.request_w[0] + made.request_w[1] == pytest.approx(made.request_total_w)


@pytest.mark.parametrize("units", [1, 2, 4, 16])
def test_one_lost_unit_is_replaced_in_the_same_cycle(units: int) -> None:
    control = Control(units=units, peak_w_max=48e3)
    step = {"grid_w": 48e3 + 10e3 * units, "lo_w": -30e3, "hi_w": 30e3}
    assert control.step(**step).request_total_w == pytest.approx(10e3 * units)
    there = [True] * units
    there[0] = False
    made = control.step(**step, available=there)
    assert made.request_w[0] == 0.0
    assert sum(made.request_w) == pytest.approx(10e3 * units if units > 1 else 0.0)
    assert all(-30e3 <= one <= 30e3 for one in made.request_w)


def test_the_fuller_unit_gives_more_and_takes_less() -> None:
    control = Control(units=2, peak_w_max=10e3)
    out = control.step(grid_w=20e3, soc=[0.8, 0.6], lo_w=-30e3, hi_w=30e3).request_w
    assert out[0] > out[1] > 0.0
    control = Control(units=2)
    into = control.step(grid_w=0.0, lease_w=-10e3, soc=[0.8, 0.6], lo_w=-30e3, hi_w=30e3).request_w
    assert into[1] < into[0] < 0.0


def test_no_unit_is_asked_beyond_its_envelope_and_the_sum_is_the_total() -> None:
    seed = 20261120
    rng = random.Random(seed)
    for case in range(400):
        units = rng.randint(1, 16)
        lo = [-rng.choice([0.0, rng.uniform(0, 30e3)]) for _ in range(units)]
        hi = [rng.choice([0.0, rng.uniform(0, 30e3)]) for _ in range(units)]
        soc = [rng.random() for _ in range(units)]
        made = Control(units=units).step(grid_w=0.0, lease_w=rng.uniform(-5e5, 5e5), lo_w=lo, hi_w=hi, soc=soc)
        for i in range(units):
            assert lo[i] - 1e-6 <= made.request_w[i] <= hi[i] + 1e-6, (seed, case)
        assert sum(made.request_w) == pytest.approx(made.request_total_w, abs=1e-6), (seed, case)


def test_a_tighter_limit_never_gives_more_import() -> None:
    seed = 11
    rng = random.Random(seed)
    for case in range(500):
        load_w = rng.uniform(0, 90e3)
        limits = sorted(rng.uniform(10e3, 80e3) for _ in range(2))
        got = [Control(peak_w_max=w).step(grid_w=load_w, lo_w=-30e3, hi_w=30e3).request_total_w for w in limits]
        assert got[0] >= got[1], (seed, case)


def test_equal_inputs_give_equal_outputs() -> None:
    def run() -> list[float]:
        rng = random.Random(3)
        control = Control(
            peak_w_max=48e3, recharge_w_max=40e3, recharge_rate_w=8e3, target_soc=0.8, ramp_up_w_per_s=5e3
        )
        return [
            control.step(grid_w=rng.uniform(20e3, 60e3), soc=0.5, lo_w=-30e3, hi_w=30e3).request_total_w
            for _ in range(500)
        ]

    assert run() == run()


INPUTS = ["ess_w", "pv_w", "soc", "lo_w", "hi_w", "dt_s", "lease_w", "plan_w", "import_w_max", "export_w_max",
          "peak_w_max", "demand_w_max", "net_w", "energy_wh", "setpoint_w"]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), list(itertools.product(INPUTS, BAD)))
def test_no_number_at_an_input_is_harmless(name: str, value: float) -> None:
    settings = {
        "peak_w_max": 48e3, "recharge_w_max": 40e3, "recharge_rate_w": 5e3, "target_soc": 0.8, "trim_per_s": 0.5,
        "ramp_up_w_per_s": 5e3, "ramp_down_w_per_s": 5e3, "reserve_soc": 0.1, "demand_w_max": 38e3,
    }  # fmt: skip
    for units in (1, 3):
        control = Control(units=units, **settings)
        step = {"grid_w": 60e3, "soc": 0.5, "lo_w": -30e3, "hi_w": 30e3, "dt_s": 0.01}
        for _ in range(3):
            made = control.step(**{**step, name: value}, demand=(38e3, 400.0, 500.0))
            assert all(math.isfinite(one) and abs(one) <= 30e3 for one in made.request_w)
            assert math.isfinite(made.shortfall_w)
        for _ in range(1200):  # and it leaves nothing behind
            made = control.step(**step)
        assert math.isfinite(made.request_total_w)
        assert made.request_total_w == pytest.approx(12e3, abs=5e3)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", sorted(key for key, one in defaults().items() if not isinstance(one, list)))
def test_no_number_in_a_setting_never_leaves_the_envelope(name: str, value: float) -> None:
    control = Control(**{"peak_w_max": 48e3, "recharge_rate_w": 5e3, "target_soc": 0.8, name: value})
    for grid_w in (20e3, 60e3, 90e3, 20e3):
        made = control.step(grid_w=grid_w, soc=0.5, lo_w=-30e3, hi_w=30e3, demand=(40e3, 400.0, 500.0))
        assert math.isfinite(made.request_total_w)
        assert -30e3 <= made.request_total_w <= 30e3


def test_a_limit_that_is_no_number_means_less_power_not_more() -> None:
    made = Control(connection_import_w_max=math.nan).step(grid_w=20e3, lo_w=-30e3, hi_w=30e3)
    assert made.request_total_w == 20e3


def test_demand_window_waits_while_it_can_and_then_holds_the_mean() -> None:
    control = Control(demand_w_max=38e3)
    step = {"grid_w": 40e3, "lo_w": -30e3, "hi_w": 30e3}
    early = control.step(**step, demand=(40e3, 100.0, 800.0))
    assert early.request_total_w == 0.0
    late = control.step(**step, demand=(39e3, 850.0, 50.0))
    assert late.reason == "demand window"
    assert 10e3 < late.request_total_w < 30e3


def test_what_has_been_paid_for_is_not_shaved_again() -> None:
    step = {"grid_w": 40e3, "lo_w": -30e3, "hi_w": 30e3, "demand": (40e3, 890.0, 10.0, 45e3)}
    assert Control(demand_w_max=38e3, demand_ratchet=1.0).step(**step).request_total_w == 0.0
    assert Control(demand_w_max=38e3).step(**step).request_total_w > 0.0


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="peek_w_max"):
        Control(peek_w_max=1.0)
    with pytest.raises(ValueError, match="1 to 16"):
        Control(units=17)


def test_dynamic_range_is_held_over_its_window_and_forgotten_after_it() -> None:
    control = Control(range_w_max=10e3, range_window_s=10.0)
    step = {"lo_w": -50e3, "hi_w": 50e3, "dt_s": 0.1}
    control.step(grid_w=20e3, **step)
    made = control.step(grid_w=60e3, **step)
    assert made.reason == "dynamic range limit"
    assert 60e3 - made.request_total_w == pytest.approx(30e3)
    for _ in range(105):
        made = control.step(grid_w=60e3, **step)
    assert 60e3 - made.request_total_w == pytest.approx(40e3, abs=1.0)


@pytest.mark.parametrize(("hz", "most"), [(0.01, 1.1), (0.5, 0.3), (1.0, 0.3)])
def test_oscillation_is_damped_in_its_band_and_left_alone_below_it(hz: float, most: float) -> None:
    control = Control(damp_share=1.0)
    grid = []
    for i in range(int(4.0 / hz / 0.01)):
        load_w = 40e3 + 5e3 * math.sin(2.0 * math.pi * hz * i * 0.01)
        made = control.step(grid_w=load_w, lo_w=-30e3, hi_w=30e3, dt_s=0.01)
        grid.append(load_w - made.request_total_w)
    swing = (max(grid[len(grid) // 2 :]) - min(grid[len(grid) // 2 :])) / 10e3
    assert swing < most
    assert swing > 0.9 or hz > 0.05


@pytest.mark.parametrize("seed", range(20))
def test_energy_does_not_depend_on_the_length_of_the_cycle(seed: int) -> None:
    rng = random.Random(seed)
    loads = [rng.uniform(20e3, 70e3) for _ in range(8)]
    energy = []
    for dt_s in (0.001, 0.01, 0.1):
        control = Control(peak_w_max=48e3, ramp_up_w_per_s=8e3, ramp_down_w_per_s=8e3, recharge_rate_w=5e3,
                          recharge_w_max=40e3, target_soc=0.9)  # fmt: skip
        out_ws = 0.0
        for load_w in loads:
            for _ in range(round(6.0 / dt_s)):
                made = control.step(net_w=load_w, grid_w=load_w, soc=0.5, lo_w=-30e3, hi_w=30e3, dt_s=dt_s)
                out_ws += abs(made.request_total_w) * dt_s
        energy.append(out_ws)
    assert energy[1:] == pytest.approx([energy[0]] * 2, rel=0.02), seed


@pytest.mark.parametrize("seed", range(30))
def test_the_request_is_inside_the_corridor_or_a_stronger_policy_is_named(seed: int) -> None:
    rng = random.Random(seed)
    names = ["connection_import_w_max", "connection_export_w_max", "peak_w_max", "recharge_w_max", "ramp_up_w_per_s",
             "ramp_down_w_per_s", "demand_w_max", "range_w_max", "reserve_soc", "damp_share"]  # fmt: skip
    settings = {name: rng.uniform(0.1, 0.9) * (1.0 if name in ("reserve_soc", "damp_share") else 60e3)
                for name in names if rng.random() < 0.5}  # fmt: skip
    units = rng.choice([1, 2, 5])
    control = Control(units, deadband_w=20.0, recharge_rate_w=5e3, target_soc=0.8, **settings)
    for i in range(600):  # a minute at 10 Hz
        grid_w = rng.choice([rng.uniform(-20e3, 90e3), 40e3])
        lo, hi = -rng.uniform(0, 30e3), rng.uniform(0, 30e3)
        made = control.step(grid_w=grid_w, soc=rng.random(), lo_w=lo, hi_w=hi, dt_s=0.1,
                            demand=(30e3, i * 1.0, 900.0 - i),
                            lease_w=rng.choice([None, rng.uniform(-40e3, 40e3)]))  # fmt: skip
        assert made.envelope_w[0] - 1e-6 <= made.lo_w <= made.hi_w <= made.envelope_w[1] + 1e-6, (seed, i)
        assert made.lo_w - 20.0 <= made.request_total_w <= made.hi_w + 20.0, (seed, i, made)
        assert all(lo - 1e-6 <= one <= hi + 1e-6 for one in made.request_w), (seed, i, made)
        if made.shortfall_w > 20.0:
            assert made.reason not in ("rest", "recentre", "lease"), (seed, i, made)


def test_discharge_leaves_the_least_import_that_a_site_needs():
    """A reverse-power relay opens at the first watt of export: a lease, a plan or a person cannot drive it there."""
    control = Control(import_w_min=2e3, deadband_w=50.0)
    for order in ({"lease_w": 30e3}, {"plan_w": 30e3}, {"manual_w": 30e3}):
        made = control.step(grid_w=10e3, **order)
        assert made.request_total_w == pytest.approx(7950.0) and made.reason == "export limit"
        control.reset()
    assert control.step(grid_w=1e3, lease_w=30e3).request_total_w == 0.0  # no charging to make up for a small load
    assert control.step(grid_w=1e3, lease_w=-5e3).request_total_w == -5e3
    assert Control().step(grid_w=10e3, lease_w=30e3).request_total_w == 30e3
