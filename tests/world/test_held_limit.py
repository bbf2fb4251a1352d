"""The limit is held while the grid meter is doubted, and recharging ends where it does more harm than good."""

from dataclasses import replace

import numpy as np
import pytest
import zoo_judge as judges
import zoo_plants as plants

from tidegate.hal.sim.virtual import VirtualPlant

ASK_ANSWER = 2

# A load that is above the limit for a third of the time, and a cabinet that recharges in between.
SQUARE = plants.Draw(
    seed=3, stratum="plain", seconds=200.0, quiet_s=1.0, quiet_share=0.3,
    components=[{"kind": "square", "seed": 1, "scale_w": 40e3, "hz": 0.2, "phase_noise": 0.0, "duty": 0.3, "low": 0.5}],
    limit_w=32e3, power_w=20e3, energy_wh=40e3, recharge_gap_w=3e3, recharge_rate_w=5e3, baud=115200,
    settings={"pcs_tau_ms": 20.0, "soc_start": 0.5},
)  # fmt: skip
SLOW = {"meter_update_ms": 1500.0, "pcs_dead_ms": 800.0}
QUICK = {"meter_update_ms": 10.0, "pcs_dead_ms": 2.0}


def plant_of(made: plants.Draw) -> VirtualPlant:
    return VirtualPlant(
        plants.program(made), plants.load_of(made), seed=made.seed, overrides=plants.overrides(made), series_every=10
    )


def test_a_doubt_about_the_meter_holds_the_units_no_longer_than_to_its_next_edge() -> None:
    """A restless load before an honest meter: it is asked, and what the limit needs meanwhile is given."""
    made = plants.draw(130029)
    asked_s = short_s = longest_s = 0.0
    with plant_of(made) as plant:
        plant.run(25.0)
        for _ in range(2500):
            plant.run(0.01)
            now = plant.world.now
            asked = plant.world.meter_truth["asking"] == ASK_ANSWER
            asked_s += 0.01 * asked
            wanted_w = min(now["load_w"] - made.limit_w, made.power_w)
            short_s = short_s + 0.01 if asked and wanted_w - now["ess_w"] > 0.3 * made.power_w else 0.0
            longest_s = max(longest_s, short_s)
        verdict = plant.world.meter_truth["verdict"]
    assert asked_s > 1.0 and verdict == 0
    assert longest_s < 3.0  # two edges, each of 1.2 s while the age is not known


def charged_ws(made: plants.Draw) -> list[float]:
    """In each twenty seconds."""
    with plant_of(made) as plant:
        plant.run(made.seconds)
        rows = plant.series()
    return [
        float(np.maximum(-rows["ess_w"], 0.0)[(rows["t_s"] >= at_s) & (rows["t_s"] < at_s + 20.0)].sum() * 0.01)
        for at_s in np.arange(0.0, made.seconds, 20.0)
    ]


def test_recharging_is_held_back_where_the_next_rise_finds_it_charging_and_tried_again() -> None:
    slow = charged_ws(replace(SQUARE, settings={**SQUARE.settings, **SLOW}))
    rests = [ws == 0.0 for ws in slow[2:]]
    assert any(rests) and not all(rests), slow


def test_recharging_goes_on_where_the_meter_sees_a_rise_at_once() -> None:
    quick = charged_ws(replace(SQUARE, settings={**SQUARE.settings, **QUICK}))
    assert min(quick) > 0.8 * max(quick)


def test_a_battery_that_is_nearly_empty_is_recharged_whatever_it_does() -> None:
    slow = charged_ws(replace(SQUARE, settings={**SQUARE.settings, **SLOW, "soc_start": 0.12}))
    assert min(slow[2:]) > 0.0


@pytest.mark.parametrize(("made", "averages"), [(plants.draw(91071), True), (SQUARE, False)], ids=["2 s", "none"])
def test_a_quick_meter_that_averages_is_told_from_one_that_is_late(made: plants.Draw, averages: bool) -> None:
    made = replace(made, settings={**QUICK, **made.settings})
    with plant_of(made) as plant:
        plant.run(60.0)
        assert bool(plant.world.meter_model["averages"]) == averages


def test_what_the_pulses_have_ruled_out_is_not_forgotten_while_the_battery_rests() -> None:
    """A load that hardly moves, then rises above the limit: a belief that had grown wide missed it for seconds."""
    assert judges.judge(plants.draw(91177)).ratio < 1.25


def test_a_building_that_begins_to_give_power_behind_a_late_converter_loses_no_limit_for_the_doubt() -> None:
    """A converter that answers after 1.6 s: what it was told before is no answer, and the load ends the doubt."""
    assert judges.judge(plants.draw(97170)).recharging_ratio < 1.25


def test_a_meter_that_begins_to_average_while_the_site_runs_is_followed_and_nothing_swings() -> None:
    """An age that was found before speaks against an average until it explains less of what is seen."""
    made = plants.draw(97035)
    with plant_of(made) as plant:
        plant.run(made.setting("meter_then_s") - 5.0)
        assert not plant.world.meter_model["averages"]
        plant.run(65.0)
        assert plant.world.meter_model["averages"]
    assert judges.judge(made).chase_w == 0.0
