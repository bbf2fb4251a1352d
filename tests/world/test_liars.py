"""A slice of liars.py: lies that the battery's own moves give away, and honest plants that must stay believed."""

from dataclasses import replace

import liars
import numpy as np
import pytest
import zoo_cases as cases
import zoo_judge as judges
import zoo_plants as plants

from tidegate.ext.abi.image import METER_TURNED
from tidegate.ext.control.corridor import REASONS_BY_NUMBER
from tidegate.ext.safety.diagnosis import FAULT_IDS
from tidegate.hal.sim.virtual import VirtualPlant
from tidegate.runtime.gateway.words import METER_PHASES, METER_VERDICTS

ASK_PHASE = 3  # ext/estimate/truth.pxd
SEEN = 1  # enum grid_answer of ext/estimate/estimate.h

# A quick meter before a load that steps: nothing hides the battery's moves for long.
PLAIN = plants.Draw(
    seed=3, stratum="plain", seconds=90.0, quiet_s=5.0, quiet_share=0.3,
    components=[{"kind": "square", "seed": 1, "scale_w": 40e3, "hz": 0.4, "phase_noise": 0.0, "duty": 0.5, "low": 0.5}],
    limit_w=30e3, power_w=20e3, energy_wh=40e3, recharge_gap_w=2e3, recharge_rate_w=2e3, baud=115200,
    settings={"meter_update_ms": 10.0, "pcs_tau_ms": 20.0, "soc_start": 0.5}, name="honest",
)  # fmt: skip


def lying(lie: str, at_s: float) -> plants.Draw:
    fault = {"kind": f"meter.{liars.LIES[lie]}", "target": "grid", "on_s": at_s, "lie": lie}
    return replace(PLAIN, name=lie, faults=[fault])


def test_an_honest_meter_is_believed_and_the_site_gets_ready() -> None:
    found = liars.judge(PLAIN)
    assert found.ready and not found.verdict


@pytest.mark.parametrize("lie", ["frozen", "w_stuck"])
@pytest.mark.parametrize("habit", [{}, {"meter_delay_ms": 300.0}], ids=str)
def test_a_value_that_freezes_is_asked_and_the_site_stops(lie: str, habit: dict[str, float]) -> None:
    made = lying(lie, 61.0)
    found = liars.judge(replace(made, settings={**made.settings, **habit}))
    assert not found.early and found.told_s is not None, found
    # Registers that go on contradict a power that stands, within 20 s; whichever of the two is clear first.
    by_registers = lie == "w_stuck" and found.verdict == "grid_unmoved"
    assert found.verdict == "meter_stuck" or by_registers, found
    # It has to have stood for 4.8 s, a late meter's values stand a little later: the 5 s asked are met by most plants.
    assert found.told_s - found.clear_s <= (20.0 if by_registers else 6.0), found
    # What the question adds to what the units did before: a step of a fifth of the nameplates at most.
    assert found.added_w <= 0.2 * PLAIN.power_w + 1.0, found


def test_a_value_that_freezes_in_the_middle_of_a_swing_is_found_by_the_way_back() -> None:
    """No step leaves all that the battery did while the value was taken: it was asked for ever, and never told."""
    made = lying("frozen", 60.0)
    found = liars.judge(replace(made, settings={**made.settings, "meter_delay_ms": 300.0}))
    assert found.verdict == "meter_stuck" and found.told_s is not None
    assert found.told_s - found.clear_s < 16.0, found


def test_answers_that_are_all_different_are_the_loads_own() -> None:
    """Leaps of 16 kW beside steps of 2.7 kW: seven answers from -1 to 9.4, whose median was taken for a share."""
    found = judges.judge(plants.draw(1500353))
    assert not found.trips and found.ready_s is not None, found


def test_a_meter_that_showed_nothing_but_jumps_of_the_load_is_asked_twice() -> None:
    """How coarse its digits are is not known then, so the step and the way back from it must both stay unseen."""
    made = lying("frozen", 60.0)
    found = liars.judge(replace(made, settings={**made.settings, "meter_update_ms": 500.0}))
    assert found.verdict == "meter_stuck" and found.told_s is not None and found.told_s > 60.0 and not found.early, (
        found
    )


@pytest.mark.parametrize("seed", [1703966, 1701486, 1700334])
def test_a_meter_that_begins_to_lie_while_it_is_armed_is_refused(seed: int) -> None:
    """Turned or standing from the middle of the arming on: the pulses never prove it, and prove the honest one."""
    made = plants.draw(seed)
    refused, honest = judges.judge(made), judges.judge(replace(made, faults=[]))
    assert refused.ready_s is None and refused.told_s == 0.0 and not refused.failed, refused
    assert honest.ready_s is not None and honest.ready_s > made.faults[0]["on_s"], honest


def test_a_meter_that_begins_to_lie_while_it_is_armed_and_is_armed_all_the_same_is_judged() -> None:
    """An absolute value before a building that takes power proves itself as an honest one does."""
    made = plants.draw(1703214)
    found = judges.judge(made)
    assert found.ready_s is not None and found.ready_s > made.faults[0]["on_s"] and found.told_s != 0.0, found


RUNNING = {
    "flipped": {},  # the building seems to give power
    "tenfold": {"meter_update_ms": 100.0},  # it moves ten times as far as the battery
    "replayed": {"meter_update_ms": 100.0, "meter_delay_ms": 20.0},  # the same values in the same order
}


@pytest.mark.parametrize("lie", RUNNING)
def test_a_meter_that_begins_to_lie_while_the_site_runs_is_asked_and_the_site_stops(lie: str) -> None:
    made = lying(lie, 60.0)
    made = replace(made, settings={**made.settings, **RUNNING[lie]}, components=[
        {"kind": "ar", "seed": 3, "scale_w": 40e3, "every_s": 0.2, "memory": 0.9, "mean_w": 40e3, "sigma_w": 3e3},
    ])  # fmt: skip
    found = liars.judge(made)
    assert found.ready and not found.early and found.verdict == "grid_unmoved", found
    honest = liars.judge(replace(made, faults=[], name="honest"))
    assert honest.ready and not honest.verdict, honest


def test_a_building_that_truly_gives_power_is_asked_and_believed() -> None:
    """Below zero behind a meter that does not lie: PV that nobody meters."""
    made = replace(PLAIN, pv=[(0.0, 0.0), (60.0, 90e3), (80.0, 0.0)])
    with liars.plant_of(made) as plant:
        asked = False
        for _ in range(150):
            plant.run(0.2 if plant.world.t_s > 59.0 else 6.0)
            asked |= plant.world.meter_truth["suspicion"] == 1
        assert asked and plant.world.meter_truth["verdict"] == 0
        assert plant.series()["ess_w"][-200:].max() > 5e3  # and goes on shaving


def test_a_value_that_moves_again_gives_the_power_back() -> None:
    made = lying("frozen", 60.0)
    made = replace(made, faults=[{**made.faults[0], "off_s": 75.0}])
    with liars.plant_of(made) as plant:
        plant.run(74.0)
        assert plant.world.meter_truth["verdict"] == 1 and abs(plant.series()["ess_w"][-1]) < 200.0
        plant.run(8.0)
        assert plant.world.meter_truth["verdict"] == 0 and plant.series()["ess_w"][-200:].max() > 5e3


def test_a_meter_whose_transformers_are_turned_does_not_arm() -> None:
    made = lying("reversed", 0.0)
    found = liars.judge(replace(made, components=[{**made.components[0], "low": 1.0}]))
    assert not found.ready and found.verdict == "grid_unmoved", found


# A busy machine misses polls: the meter is lost for a third of a second, again and again.
GAPS = [{"kind": "dead", "target": "grid", "on_s": 2.0 + 0.8 * i, "off_s": 2.35 + 0.8 * i} for i in range(20)]


@pytest.mark.parametrize("gaps", [[], GAPS], ids=["all polls", "missed polls"])
@pytest.mark.parametrize("low", [0.5, 1.0])
def test_a_turned_meter_does_not_arm_whatever_load_and_line_hide_of_it(
    gaps: list[dict[str, object]], low: float
) -> None:
    """A meter that is lost for a moment while the site arms has not thereby shown that it sees the battery."""
    made = lying("reversed", 0.0)
    made = replace(made, components=[{**made.components[0], "low": low}], faults=[*made.faults, *gaps], seconds=145.0)
    with liars.plant_of(made) as plant:
        told = set()
        for _ in range(145):  # the operator acknowledges and arms again, and each arming asks anew
            plant.run(1.0)
            told.add(plant.world.meter_truth["verdict"])
        assert not any(one["event"] == "mode" and one["code"] >= 2 for one in plant.events)
        assert METER_TURNED in told


def test_an_honest_meter_that_is_lost_now_and_then_still_arms() -> None:
    with liars.plant_of(replace(PLAIN, faults=GAPS, seconds=145.0)) as plant:
        plant.run(145.0)
        assert any(one["event"] == "mode" and one["code"] >= 2 for one in plant.events)
        assert plant.world.meter_truth["verdict"] == 0


@pytest.mark.parametrize(
    "habit",
    [
        {"meter_resolution_w": 100.0},
        {"meter_band_w": 300.0},
        {"meter_update_ms": 3000.0},
        {"meter_average_ms": 5000.0},
        {"meter_then_s": 40.0, "meter_then_update_ms": 4000.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("low", [0.5, 1.0])
def test_a_meter_that_stands_still_for_good_reasons_is_believed(habit: dict[str, float], low: float) -> None:
    """Coarse digits, dead bands, slow registers, averages, before loads that step and that rest."""
    components = [{**PLAIN.components[0], "low": low}]
    found = liars.judge(replace(PLAIN, components=components, settings={**PLAIN.settings, **habit}))
    assert found.ready and not found.verdict, found


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6, 8, 11])
def test_no_honest_plant_of_the_zoo_is_called_a_liar(seed: int) -> None:
    found = liars.one((seed, "", ""))
    assert not found.verdict, found


# 310209: a register is read twice while the battery answers it; 340261: a load that jumps far, in time with the steps;
# 1200196: an average that was taken for an age alone, and showed little of short steps. 1400953, 1401889: a slow
# converter's moves fade, so that a little other age looks like another share of them; 1404194: 285 kW flow out between
# two values of the meter; 1300810: a motor comes up to speed while a question waits for a derated converter; 1301423:
# an average that was taken for an age; 1300818: a building that gives power behind a meter of unknown age.
@pytest.mark.parametrize("seed", [310209, 340261, 1200196, 1400953, 1401889, 1404194, 1300810, 1301423, 1300818])
def test_an_honest_plant_that_was_once_called_a_liar_is_believed(seed: int) -> None:
    found = liars.judge(replace(plants.draw(seed), name="honest"))
    assert found.ready and not found.verdict, found


def unproven(faults: list[dict[str, object]]) -> VirtualPlant:
    """A plant that is armed as unproven at 6.04 s; from then on its load hardly moves."""
    made = replace(plants.draw(880168), faults=faults)
    t_s, load_w = plants.load_of(made)
    quiet_t_s = np.arange(6.0, 70.0, 0.05)
    quiet_w = np.random.Generator(np.random.PCG64(1)).normal(
        load_w[t_s <= 6.0][-1], 0.002 * made.power_w, len(quiet_t_s)
    )
    load = np.append(t_s[t_s < 6.0], quiet_t_s), np.append(load_w[t_s < 6.0], quiet_w)
    return VirtualPlant(plants.program(made), load, seed=made.seed, overrides=plants.overrides(made))


@pytest.mark.parametrize("lie", ["", "elsewhere"])
def test_a_meter_that_the_arming_did_not_prove_is_asked_and_proven_or_refused(lie: str) -> None:
    """The control's own moves said after minutes that this honest meter shows nothing of the battery."""
    with unproven([{"kind": "meter.elsewhere", "target": "grid", "on_s": 6.06, "lie": lie}] if lie else []) as plant:
        plant.run(45.0)
        told = [FAULT_IDS[int(one["code"])] for one in plant.events if one["event"] == "fault_on"]
        answer = plant.world.meter_answer[0]
    assert "grid_unproven" in told and ("grid_unmoved" in told) == bool(lie)
    assert bool(lie) or answer == SEEN


def test_a_meter_that_was_refused_and_then_moved_is_asked_without_what_it_answered_before() -> None:
    moved = [{"kind": "meter.elsewhere", "target": "grid", "on_s": 6.06, "off_s": 40.0, "lie": "elsewhere"}]
    with unproven(moved) as plant:
        plant.run(60.0)
        assert "grid_unmoved" in [FAULT_IDS[int(one["code"])] for one in plant.events if one["event"] == "fault_on"]
        assert plant.world.meter_answer[0] == SEEN


# The pulses of arming are lost in the load at first, behind a meter that averages over seconds.
AVERAGES = replace(liars.honest(53012), seconds=120.0)


def test_pulses_grow_until_a_meter_that_averages_over_seconds_shows_them() -> None:
    found = liars.judge(AVERAGES)
    assert found.ready and not found.verdict, found


def test_a_meter_that_averages_and_shows_nothing_of_the_battery_is_refused_or_told_as_unproven() -> None:
    fault = {"kind": "meter.elsewhere", "target": "grid", "on_s": 0.0, "lie": "elsewhere"}
    made = replace(plants.draw(460020), seconds=170.0)  # of 2.3 s
    assert liars.judge(replace(made, name="honest")).ready
    found = liars.judge(replace(made, name="elsewhere", faults=[fault]))
    assert not found.ready or found.unproven, found


def test_a_step_that_returns_to_where_a_slow_value_was_taken_proves_nothing() -> None:
    """A meter that has become slow shows the same value twice, once for each of two steps of the battery."""
    found = liars.one((95067, "", ""))
    assert found.ready and not found.verdict, found


def test_a_sign_that_turns_while_the_building_gives_power_is_found_by_what_the_load_would_have_to_do() -> None:
    """Behind a meter of |P|: nothing jumps, and the value stays above zero."""
    made = liars.liar(71020, "absolute")
    found = liars.judge(made)
    # The load stands still, so steps ask first: that takes longer than the 5 s asked, and no honest plant is stopped.
    assert not found.early and found.verdict == "grid_unmoved" and found.told_s is not None, found
    assert found.told_s - found.clear_s <= 20.0, found
    honest = liars.judge(replace(made, faults=[], name="honest"))
    assert honest.ready and not honest.verdict, honest


@pytest.mark.parametrize("seed", [430017, 430076, 430080])
def test_a_value_that_stands_while_the_battery_moves_is_found_however_long_it_has_stood_before(seed: int) -> None:
    """It stood for 7 and for 10 s before a load and a battery that did; the third makes the age itself look unknown."""
    found = liars.judge(liars.liar(seed, "frozen"))
    assert found.verdict == "meter_stuck" and not found.early and found.late_s is not None and found.late_s <= 5.0, (
        found
    )


@pytest.mark.parametrize(
    ("lie", "seed"),
    [
        ("flipped", 840060),  # the edge before ended early: what is left of this one is less than a step
        ("flipped", 840064),  # a load that ramps hides the answer of each single edge
        ("flipped", 840204),  # a jump to its own opposite: no habit of a meter is weighed against the sign
        ("flipped", 840400),  # another question runs when the sign turns
        ("frozen", 840192),  # coarse digits: one large step tells, a small one and its way back take twice as long
        ("frozen", 840128),
    ],
)
def test_a_lie_that_was_told_late_is_told_in_time(lie: str, seed: int) -> None:
    found = liars.judge(liars.liar(seed, lie))
    assert found.verdict in liars.VERDICTS and not found.early, found
    assert found.late_s is not None and found.late_s <= liars.FOUND_WITHIN_S, found


@pytest.mark.parametrize(("lie", "seed"), [("reversed", 400034), ("reversed", 400031), ("elsewhere", 171128)])
def test_a_site_that_does_not_know_its_meters_sign_charges_little_until_it_does(lie: str, seed: int) -> None:
    made = liars.liar(seed, lie, liars.ANY)
    with liars.plant_of(made) as plant:
        plant.run(110.0)
        rows, events = plant.series(), plant.events
    (run_s,) = (one["t_ns"] * 1e-9 - 1.0 for one in events if one["event"] == "mode" and one["code"] == liars.MODE_RUN)
    since = rows["t_s"] > run_s + 3.0  # the last pulse is over
    assert -rows["ess_w"][since].min() <= 0.25 * made.power_w
    assert "unproven meter" in {REASONS_BY_NUMBER[int(reason)] for reason in rows["reason"][since]}


@pytest.mark.parametrize("seed", [99037, 99293])
def test_a_meter_that_holds_its_registers_until_it_reports_is_not_stopped(seed: int) -> None:
    """What it had not counted comes at once with the next report, here as the building begins to give power."""
    assert judges.judge(plants.draw(seed)).latched == []


def test_before_a_load_that_stands_still_an_honest_meter_is_not_called_turned() -> None:
    (made,) = (one for one in cases.traces() if one.name == "dgx-a100-2022 at 10 %" and one.seed == 5)
    found = judges.judge(made)
    assert found.latched == [] and found.recharging_ratio < 1.25


@pytest.mark.parametrize("seed", [120038, 110075])
def test_a_load_that_outdoes_the_battery_by_far_makes_no_meter_a_liar(seed: int) -> None:
    """A slope not seen before, twenty times as steep as the late battery; jumps of three times the steps that ask."""
    found = judges.judge(plants.draw(seed))
    assert found.ready_s is not None and found.trips == 0 and found.latched == []


def test_a_phase_that_is_lost_while_the_site_runs_is_found_and_named() -> None:
    made = replace(lying("no_l3", 60.0), settings={**PLAIN.settings, "meter_update_ms": 100.0}, components=[
        {"kind": "ar", "seed": 3, "scale_w": 40e3, "every_s": 0.2, "memory": 0.9, "mean_w": 40e3, "sigma_w": 3e3},
    ])  # fmt: skip
    with liars.plant_of(made) as plant:
        plant.run(59.0)
        before = plant.world.meter_truth["phases"]
        while not plant.world.meter_truth["verdict"] and plant.world.t_s < 75.0:
            plant.run(0.25)
        told, shown = plant.world.meter_truth["verdict"], plant.world.meter_truth["phases"]
        latched = [liars.FAULT_IDS[int(one["code"])] for one in plant.events if one["event"] == "fault_on"]
    assert (METER_PHASES[before], METER_PHASES[shown]) == ("agrees", "third phase lost")
    assert METER_VERDICTS[told] == "contradicts its phases" and latched[-1] == "meter_phases"
    found = liars.judge(made)
    assert found.verdict == "meter_phases" and not found.early and found.late_s is not None and found.late_s <= 5.0, (
        found
    )


def test_a_phase_that_is_lost_while_the_battery_stands_still_is_found_by_a_step_of_it() -> None:
    load = {"kind": "ar", "seed": 3, "scale_w": 40e3, "every_s": 0.2, "memory": 0.9, "mean_w": 40e3, "sigma_w": 300.0}
    settings = {**PLAIN.settings, "meter_update_ms": 100.0}
    made = replace(lying("no_l3", 60.0), limit_w=90e3, settings=settings, components=[load])
    with liars.plant_of(made) as plant:
        plant.run(60.0)
        before_w, asked = plant.series()["ess_w"], set()
        assert np.ptp(before_w[-400:]) < 1.0
        while not plant.world.meter_truth["verdict"] and plant.world.t_s < 75.0:
            plant.run(0.25)
            asked.add(plant.world.meter_truth["asking"])
        told, t_s = plant.world.meter_truth["verdict"], plant.world.t_s
        moved_w = np.abs(plant.series()["ess_w"][len(before_w) :] - before_w[-1]).max()
    assert METER_VERDICTS[told] == "contradicts its phases" and ASK_PHASE in asked
    assert t_s < 66.0 and moved_w <= 0.2 * made.power_w + 1.0


SUSPECT_BELOW_ZERO, SUSPECT_UNSEEN = 1, 8  # ext/estimate/contradiction.pxd
SMALL = replace(
    PLAIN, power_w=5e3, energy_wh=10e3, recharge_rate_w=500.0, settings={**PLAIN.settings, "meter_update_ms": 100.0},
    components=[
        {"kind": "ar", "seed": 3, "scale_w": 40e3, "every_s": 0.5, "memory": 0.9, "mean_w": 40e3, "sigma_w": 200.0},
    ],
)  # fmt: skip


@pytest.mark.parametrize("limit_w", [38e3, 90e3], ids=["full", "rests"])
@pytest.mark.parametrize("mean_w", [12e3, 60e3, 200e3])
def test_a_phase_lost_behind_a_small_converter_of_which_no_site_file_tells_the_phases(
    mean_w: float, limit_w: float
) -> None:
    """What it moves by is less than such a phase starts at: then the total shows that a third of it is missing."""
    fault = lying("no_l3", 60.0).faults
    load = {**SMALL.components[0], "mean_w": mean_w, "scale_w": mean_w}
    made = replace(SMALL, name="no_l3", faults=fault, components=[load], limit_w=limit_w * mean_w / 40e3)
    found = liars.judge(made)
    assert found.verdict == "meter_phases" and not found.early and found.told_s is not None, found
    assert found.told_s < 68.0 and found.added_w <= SMALL.power_w, found


def test_a_phase_that_goes_off_is_no_lie_where_the_converter_is_on_the_others() -> None:
    """It is asked, and all of the battery shows."""
    found = list(liars.run(liars.liars(440000, 24, ["l3_off"], "plain"), 1))
    assert [each for each in found if each.early] == []
    made = liars.liar(440000, "l3_off")
    with liars.plant_of(made) as plant:
        plant.run(62.0)
        assert plant.picture() is not None and plant.world.meter_truth["phase"]["zeros"][2] > 0


def test_a_phase_is_not_asked_by_a_move_back_into_what_the_battery_has_done_already() -> None:
    """It was led back from -742 W to -239 W and held there for ten seconds; the control was on its way to tell."""
    found = judges.judge(plants.draw(1500302))
    assert found.lie == "no_l3" and found.told_s is not None and found.told_s <= 5.0, found


def test_what_a_load_does_is_known_while_a_meter_that_is_not_proven_is_asked() -> None:
    """It is asked from the first cycle on: without it every answer looked clear, whatever the load did by itself."""
    made = plants.draw(1501006)
    with liars.plant_of(made) as plant:
        plant.run(33.0)
        assert plant.world.meter_asked[1] == SUSPECT_UNSEEN
        while plant.world.meter_asked[1] != SUSPECT_BELOW_ZERO and plant.world.t_s < 60.0:
            plant.run(0.25)
        assert plant.world.t_s < 60.0 and plant.world.meter_truth["noise_w"] > 100.0


def test_a_meter_that_is_turned_from_the_start_is_refused_or_told_as_unproven_on_any_plant() -> None:
    """Averages, slow refreshes, coarse digits, late converters: a load may hide the sign, and that is told."""
    found = list(liars.run(liars.liars(171000, 48, ["reversed"], liars.ANY), 1))
    assert len({each.seed for each in found}) == 48
    assert [each.seed for each in found if each.ready and not each.unproven] == []
    assert sum(not each.ready for each in found) >= 38


def test_an_average_that_shows_the_end_of_each_pulse_with_the_other_sign_is_no_turned_meter() -> None:
    """Beside one age alone this one looked turned for as long as it armed, and another was refused."""
    for seed in (130148, 130084):
        found = liars.judge(replace(liars.plants.draw(seed), seconds=60.0))
        assert found.ready and not found.verdict, found


def test_a_slow_meter_that_has_yet_to_refresh_since_the_battery_moved_shows_it_well_enough() -> None:
    """Every 11 s: nothing had moved for minutes, so nothing had changed either, and the first move stopped the site."""
    found = liars.judge(liars.plants.draw(150195))
    assert found.ready and not found.verdict, found


def lying_zoo(seed: int, lie: str, at_s: float) -> plants.Draw:
    fault = {"kind": f"meter.{liars.LIES[lie]}", "target": "grid", "on_s": at_s, "lie": lie}
    return replace(plants.draw(seed), name=lie, faults=[fault])


def test_answers_that_do_not_agree_are_no_share() -> None:
    """A load on ramps answered by 2.0, -0.5, 2.2, 1.8, 0.3, 1.7, 0.3, 0.3, 2.1 and 5.1: by their median a share."""
    found = judges.judge(plants.draw(1702928))
    assert not found.trips and found.ready_s is not None, found
    # Ten times the power before the same load is told as soon as it was.
    lies = liars.judge(lying_zoo(1702928, "tenfold", 25.0))
    assert not lies.early and lies.told_s is not None and lies.told_s - lies.clear_s < 2.5, lies


def test_a_value_from_before_an_edge_answers_nothing() -> None:
    """A meter as slow as the dead time may have any age: under -250 ms, values from before an edge were its answer."""
    found = judges.judge(plants.draw(1703021))
    assert not found.trips and found.ready_s is not None, found
    # A meter that turns there was never told: it answered edges that its values had not met.
    lies = liars.judge(lying_zoo(1703021, "flipped", 36.0))
    assert not lies.early and lies.told_s is not None and lies.told_s - lies.clear_s < 8.0, lies
