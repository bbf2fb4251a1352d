"""Arming behind a slow meter while a limit needs discharge: that it gets some, and how long a rest lasts."""

from dataclasses import replace

import numpy as np
import zoo_plants as plants

from tidegate.hal.sim.virtual import VirtualPlant

INTERVAL_S = 2.0
ARMING = 1
# A load that moves by more than the battery gives, well above the limit: the meter's sign and age stay open for long.
PLANT = plants.Draw(
    seed=5, stratum="slow", seconds=60.0, quiet_s=1.0, quiet_share=0.3,
    components=[{"kind": "constant", "seed": 1, "scale_w": 60e3},
                {"kind": "steps", "seed": 2, "scale_w": 60e3, "every_s": 1.4}],
    limit_w=20e3, power_w=15e3, energy_wh=40e3, recharge_gap_w=2e3, recharge_rate_w=2e3, baud=115200,
    settings={"meter_update_ms": 1e3 * INTERVAL_S, "pcs_tau_ms": 20.0},
)  # fmt: skip


SMALL_LOAD = replace(
    PLANT, components=[{"kind": "steps", "seed": 2, "scale_w": 12e3, "every_s": 1.4}], limit_w=2.5e3, power_w=40e3
)


def rows_while_arming(made: plants.Draw) -> dict[str, np.ndarray]:
    """From 20 s on, when pulses are as large as they get."""
    with VirtualPlant(
        plants.program(made), plants.load_of(made), seed=made.seed, overrides=plants.overrides(made), series_every=5
    ) as plant:
        plant.run(made.seconds)
        rows = plant.series()
        armed = [one["t_ns"] * 1e-9 - 1.0 for one in plant.events if one["event"] == "mode" and one["code"] >= 2]
    late = (rows["t_s"] > 20.0) & (rows["t_s"] < min([*armed, made.seconds]))
    assert late.sum() * float(rows["t_s"][1] - rows["t_s"][0]) > 15.0, "it has to be arming still"
    return {key: values[late] for key, values in rows.items()}


def test_before_the_meters_sign_is_known_the_pulses_stand_on_what_a_limit_needs() -> None:
    rows = rows_while_arming(PLANT)
    assert float((rows["setpoint_w"] > 0.5 * PLANT.power_w).mean()) > 0.95


def test_and_on_no_more_than_half_of_the_net_power_or_a_fifth_of_the_nameplate() -> None:
    rows = rows_while_arming(SMALL_LOAD)
    resting_w = np.sort(rows["setpoint_w"])[: len(rows["setpoint_w"]) // 10]
    assert resting_w.max() <= max(0.2 * SMALL_LOAD.power_w, 0.5 * float(rows["load_w"].max())) + 1.0
    assert rows["setpoint_w"].min() >= -0.2 * SMALL_LOAD.power_w


def test_a_rest_beside_a_limit_that_needs_discharge_is_short() -> None:
    with VirtualPlant(
        plants.program(PLANT), plants.load_of(PLANT), seed=PLANT.seed, overrides=plants.overrides(PLANT), series_every=5
    ) as plant:
        plant.run(PLANT.seconds)
        rows = plant.series()
        armed = [one["t_ns"] * 1e-9 - 1.0 for one in plant.events if one["event"] == "mode" and one["code"] >= 2]
    dt_s = float(rows["t_s"][1] - rows["t_s"][0])
    late = (rows["t_s"] > 20.0) & (rows["t_s"] < min([*armed, PLANT.seconds]))
    assert late.sum() * dt_s > 15.0, "it has to be arming still, else nothing is shown"
    assert float((rows["load_w"][late] > PLANT.limit_w).mean()) > 0.95
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (rows["setpoint_w"][late] < 0.8 * PLANT.power_w), [0]])))
    rests_s = (edges[1::2] - edges[0::2]) * dt_s
    assert len(rests_s) > 1 and rests_s.max() < 3.0 * INTERVAL_S  # two, as far as the interval is known


def test_a_pulse_beside_what_a_limit_needs_exports_no_more_than_one_without() -> None:
    """1400419 of the zoo: the load falls below what a pulse was begun by, and the meter shows it seconds later."""
    made = plants.draw(1400419)
    with VirtualPlant(
        plants.program(made), plants.load_of(made), seed=made.seed, overrides=plants.overrides(made), series_every=5
    ) as plant:
        plant.run(150.0)
        rows = plant.series()
    arming = rows["mode"] == ARMING
    dt_s = float(rows["t_s"][1] - rows["t_s"][0])
    assert arming.sum() * dt_s > 60.0
    assert float(np.maximum(-rows["grid_w"][arming], 0.0).sum()) * dt_s / 3600.0 < 60.0  # Wh; 153 with such pulses
