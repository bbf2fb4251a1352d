"""What a doubt about an honest grid meter costs: a question holds what the limit needs, and still gets its answers."""

from collections.abc import Iterator

import numpy as np
import pytest
import zoo_judge as judges
import zoo_plants as plants

from tidegate.ext.abi.program import describe
from tidegate.hal.sim.virtual import VirtualPlant
from tidegate.runtime.gateway.words import METER_QUESTIONS

ASK_STILL, ASK_ANSWER = 1, 2  # ext/estimate/truth.pxd
BELIEVED = 0


def plant_of(made: plants.Draw) -> VirtualPlant:
    return VirtualPlant(
        plants.program(made), plants.load_of(made), pv=plants.pv_of(made), seed=made.seed,
        overrides=plants.overrides(made), series_every=1,
    )  # fmt: skip


def steps(made: plants.Draw, from_s: float, until_s: float, every_s: float = 0.01) -> Iterator[VirtualPlant]:
    with plant_of(made) as plant:
        plant.run(from_s)
        for _ in range(round((until_s - from_s) / every_s)):
            plant.run(every_s)
            yield plant


# Loads that make an honest meter suspect. Energy above the limit outside reaction times was 1.63, 1.39, 1.51 and
# 0.62 Wh; without any question it is 0.01 at most.
@pytest.mark.parametrize("seed", [1400009, 1400165, 1400400, 1400025])
def test_an_honest_meter_that_is_asked_loses_no_limit(seed: int) -> None:
    assert judges.judge(plants.draw(seed)).outside_wh < 0.05


def test_a_step_of_a_question_goes_down_no_further_than_the_limit_leaves_it() -> None:
    """There is room below the limit for a smaller step than the whole, and none for more discharge."""
    made = plants.draw(1400009)
    edges, downs, over_w = 0, 0, 0.0
    level = None
    for plant in steps(made, 20.0, 80.0):
        asking, _, step_w = plant.world.meter_asked
        truth, now = plant.world.meter_truth, plant.world.now
        if asking != ASK_ANSWER:
            continue
        edges = max(edges, truth["edges"])
        downs += level == 1 and truth["level"] == 0 and step_w > 0.0
        level = truth["level"]
        held_w = plant.series()["setpoint_w"][-1]
        shown_w = plant.series()["grid_measured_w"][-1]
        if abs(now["ess_w"] - held_w) < 100.0:  # what was asked is given: by what the meter shows that keeps the limit
            over_w = max(over_w, shown_w - made.limit_w if shown_w == round(now["grid_w"]) else 0.0)
    assert plant.world.meter_truth["verdict"] == BELIEVED
    assert edges >= 2 and downs >= 1, "it is asked all the same"
    assert over_w < 0.05 * made.limit_w


def test_a_converter_that_shows_itself_late_makes_no_new_doubt_of_a_value_that_stands() -> None:
    """After a question the battery comes back; what its converter shows of that after the value is no move since."""
    made = plants.draw(1400476)
    begun, before = 0, 0
    for plant in steps(made, made.seconds + 0.5 * made.quiet_s, made.seconds + made.quiet_s):
        asking = plant.world.meter_asked[0]
        begun += asking == ASK_STILL and before != ASK_STILL
        before = asking
    assert begun == 1, "asked it is, and once"


@pytest.mark.parametrize(
    ("seed", "words"), [(1400476, {"standing value"}), (1400009, {"sign or share", "standing value"})]
)
def test_what_the_battery_moves_for_is_shown_while_it_does_and_only_then(seed: int, words: set[str]) -> None:
    made = plants.draw(seed)
    at = [row["name"] for row in describe(plants.program(made))["points"]].index("site.meter_question")
    shown: set[str] = set()
    for plant in steps(made, 20.0, 80.0, 0.05):
        word = METER_QUESTIONS[int(plant.picture().values[at])]
        asking, tried = plant.world.meter_asked[0], plant.world.meter_model["tried"]
        assert (word not in ("nothing", "steps beside")) == bool(asking or tried), (word, asking, tried)
        shown.add(word)
    assert words <= shown and "nothing" in shown, shown


def test_what_would_have_been_asked_for_while_a_question_moves_the_battery_is_no_chase() -> None:
    t_s = np.arange(0.0, 20.0, 0.01)
    swings_w, never = 1e3 * np.sin(2.0 * t_s), np.zeros(len(t_s))
    assert judges.asked_for(swings_w, never, 500.0)
    assert not judges.asked_for(swings_w, never + ASK_ANSWER, 500.0)
    assert not judges.asked_for(swings_w, np.where(t_s > 4.0, ASK_ANSWER, 0), 500.0)
    # What the control goes on with once a question has ended is its own.
    assert judges.asked_for(swings_w, np.where(t_s < 4.0, ASK_STILL, 0), 500.0)
