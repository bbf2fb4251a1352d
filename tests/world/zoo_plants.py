"""Plants of the zoo: a seed makes a load, a meter, a converter and a battery, and the site file a person would write.

Nothing about the meter or the converter is told to the site: no latency, no time constant, no resolution.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from typing import Any

import numpy as np
import zoo_loads as loads

from tidegate.config.compile import compile_site
from tidegate.config.site import load_site, parse_site
from tidegate.hal.description import Simulation

PLAIN = Simulation()
DEMO = files("tidegate.config").joinpath("demo/site.toml")
DEMO_STORAGE = {
    key: value
    for key, value in tomllib.loads(DEMO.read_text())["storage"][0].items()
    if key not in ("name", "bms", "pcs")
}

# One in so many seeds; the seed's remainder says which, so that a stratum can be picked without drawing.
STRATA = ("plain", "plain", "mixed", "slow", "average", "change", "late", "slow", "converter", "battery", "derate",
          "habit", "plain", "mixed", "liar", "average")  # fmt: skip
LIES = ("frozen", "w_stuck", "absolute", "flipped", "reversed", "no_l3")


@dataclass(frozen=True)
class Draw:
    """One plant of the zoo; all numbers, so that it prints, repeats and shrinks."""

    seed: int
    stratum: str
    seconds: float  # of restless load, after the arming
    quiet_s: float  # then it stands still for so long
    quiet_share: float  # at the limit plus this share of the cabinet's power
    components: list[loads.Component]
    limit_w: float
    power_w: float  # of the cabinet, both ways
    energy_wh: float
    recharge_gap_w: float  # the recharge band ends so far below the limit
    recharge_rate_w: float
    baud: int
    settings: dict[str, Any] = field(default_factory=dict)  # [simulation], where it differs from the plain plant
    faults: list[dict[str, Any]] = field(default_factory=list)
    pv: list[tuple[float, float]] = field(default_factory=list)  # (t_s, w), each held until the next
    control: dict[str, Any] = field(default_factory=dict)  # further lines of [control]
    name: str = ""  # of a named case
    units: int = 1  # alike, each with its share of power and energy, two to a line

    def setting(self, key: str) -> float:
        """A setting of the plant, the plain one's where the draw says nothing."""
        return float(self.settings.get(key, getattr(PLAIN, key)))

    @property
    def meter_s(self) -> float:
        """Longest time between a change of the load and registers that show all of it."""
        now = (
            self.setting("meter_update_ms") * (1.0 + self.setting("meter_jitter"))
            + self.setting("meter_delay_ms") + self.setting("meter_average_ms") + 4.0 * self.setting("meter_lag_ms")
        )  # fmt: skip
        then = (
            self.setting("meter_then_update_ms") + self.setting("meter_delay_ms")
            + self.setting("meter_then_average_ms") + 4.0 * self.setting("meter_then_lag_ms")
        )  # fmt: skip
        return 1e-3 * (max(now, then) if self.setting("meter_then_s") > 0 else now)

    @property
    def converter_s(self) -> float:
        """Time until the converter has done all of what it was told."""
        return (
            1e-3 * (self.setting("pcs_dead_ms") + 7.0 * self.setting("pcs_tau_ms"))
            + 2.0 * self.power_w / self.setting("pcs_ramp_w_per_s")
        )  # fmt: skip

    @property
    def allowance_w(self) -> float:
        """What stands above the limit because meter and converter have digits: half of each, and 2 W."""
        return 2.0 + 0.5 * (self.setting("meter_resolution_w") + self.units * self.setting("pcs_quantum_w"))

    @property
    def tolerance_w(self) -> float:
        """From here on something is said to stand above the limit, or to move: dead bands count as well."""
        return self.allowance_w + 25.0 + self.setting("meter_band_w")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _log(chance: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(chance.uniform(np.log(low), np.log(high))))


def stratum_of(seed: int) -> str:
    return STRATA[seed % len(STRATA)]


def draw(seed: int) -> Draw:
    """The plant of a seed."""
    chance = np.random.Generator(np.random.PCG64(1_000_003 * 7 + seed))
    stratum = stratum_of(seed)
    settings, faults = _devices(stratum, chance)
    power_hint_w = _log(chance, 5e3, 2e5)
    components = _load(chance, power_hint_w)
    probe = Draw(seed, stratum, 0, 0, 0, components, 1.0, 1e5, 1.0, 0, 0, 115200, settings, faults)
    wait_s = probe.meter_s + 1e-3 * (probe.setting("pcs_dead_ms") + 3.0 * probe.setting("pcs_tau_ms"))
    seconds = float(round(min(max(60.0, 25.0 * wait_s), 480.0)))
    if stratum == "habit":  # a minute to learn what has changed, and some to show it
        seconds = max(seconds, 120.0)
    quiet_s = float(round(min(max(20.0, 12.0 * wait_s), 240.0)))
    for _ in range(8):  # a stretch in which the limit is touched
        _, power_w = loads.sampled(components, seconds)
        limit_w = float(round(np.percentile(power_w, chance.uniform(10.0, 95.0)) - 0.005 * power_w.max()))
        if power_w.max() > limit_w > power_w.min():
            break
        for one in components:
            if one["kind"] == "trace":
                one["start_s"] = float(np.floor(chance.uniform(0.0, loads.trace(one["trace"])[0][-1] * 0.9)))
    over_w = max(float(power_w.max()) - limit_w, 0.02 * limit_w)
    cabinet_w = max(over_w * chance.uniform(0.4, 1.8), 5e3)
    cabinet_w = float(round(min(cabinet_w, 1.5e6), -2))
    settings["pcs_ramp_w_per_s"] = settings.pop("ramp", 50.0) * cabinet_w
    for key in ("pcs_offset_w", "pcs_derate_w"):
        if key in settings:
            settings[key] *= cabinet_w
    made = Draw(
        seed, stratum, seconds, quiet_s, float(chance.uniform(-0.3, 0.5)), components, limit_w, cabinet_w,
        float(round(cabinet_w * _log(chance, 0.5, 3.0))),
        float(round(limit_w * chance.uniform(0.02, 0.12))), float(round(cabinet_w * chance.uniform(0.03, 0.4))),
        int(chance.choice([19200, 38400, 115200, 115200])), settings, faults,
    )  # fmt: skip
    return _timed(made, chance)


def _load(chance: np.random.Generator, scale_w: float) -> list[loads.Component]:
    """One kind in three of four draws, else two or three; machines that rest stand on a base."""
    count = 1 if chance.random() < 0.75 else int(chance.integers(2, 4))
    found = []
    for number in range(count):
        kind = str(chance.choice(list(loads.DRAWN)))
        found.append(loads.component(kind, chance, scale_w / (1.0 + number), int(chance.integers(1, 2**31))))
        if kind in loads.NEEDS_BASE and count == 1:
            found.append(loads.component("constant", chance, scale_w * chance.uniform(0.5, 2.0), 1))
    return found


def _devices(stratum: str, chance: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings of meter, converter and battery. Shares of the cabinet's power are made W later."""
    settings: dict[str, Any] = {
        "meter_update_ms": _log(chance, 10.0, 1000.0),
        "meter_resolution_w": float(chance.choice([1.0, 1.0, 10.0, 100.0])),
        "pcs_tau_ms": _log(chance, 10.0, 1000.0),
        "pcs_dead_ms": _log(chance, 1.0, 200.0),
        "pcs_measure_ms": _log(chance, 10.0, 200.0),
        "soc_start": float(chance.uniform(0.3, 0.9)),
        "ramp": 50.0,
    }
    faults: list[dict[str, Any]] = []
    some = stratum == "mixed"
    # A ring of readings holds 510 intervals of delay.
    delay_ms = float(chance.uniform(0.0, 1000.0)) if chance.random() < 0.5 else 0.0
    if stratum == "slow" or (some and chance.random() < 0.3):
        settings["meter_update_ms"] = _log(chance, 1000.0, 15_000.0)
        delay_ms = float(chance.uniform(0.0, 3000.0)) if chance.random() < 0.5 else 0.0
    if stratum == "average" or (some and chance.random() < 0.3):
        settings |= ({"meter_average_ms": _log(chance, 200.0, 10_000.0)} if chance.random() < 0.6
                     else {"meter_lag_ms": _log(chance, 100.0, 3000.0)})  # fmt: skip
    if stratum == "change" or (some and chance.random() < 0.2):
        settings["meter_band_w"] = float(chance.choice([20.0, 50.0, 100.0, 300.0]))
    if chance.random() < 0.3:
        settings["meter_jitter"] = float(chance.uniform(0.02, 0.5))
    if stratum == "late" or (some and chance.random() < 0.3):
        settings |= {"pcs_dead_ms": _log(chance, 200.0, 5000.0), "pcs_tau_ms": _log(chance, 10.0, 3000.0)}
    if stratum in ("converter", "late") or (some and chance.random() < 0.5):
        settings["ramp"] = _log(chance, 0.2, 50.0)
    if stratum == "converter" or (some and chance.random() < 0.5):
        settings["pcs_gain"] = float(chance.uniform(0.9, 1.05))
        settings["pcs_offset_w"] = float(chance.uniform(-0.005, 0.005)) if chance.random() < 0.5 else 0.0
        settings["pcs_quantum_w"] = float(chance.choice([0.0, 10.0, 100.0]))
    if stratum == "derate":
        if chance.random() < 0.5:
            settings["pcs_derate_share"] = float(chance.uniform(0.2, 0.95))
        else:
            settings["pcs_derate_w"] = float(chance.uniform(0.2, 0.8))  # of the cabinet's power
        settings["pcs_derate_from_s"] = 20.0
    if stratum == "battery" or (some and chance.random() < 0.3):
        settings |= {"bms_soc_step": float(chance.choice([0.0, 0.01])), "bms_taper": float(chance.uniform(0.05, 0.3))}
        settings["soc_start"] = float(chance.choice([chance.uniform(0.1, 0.2), chance.uniform(0.85, 0.97), 0.5]))
        if chance.random() < 0.4:
            settings |= {"bms_jump_s": float(chance.uniform(5.0, 40.0)), "bms_jump_lo": float(chance.uniform(0.2, 0.8))}
        if chance.random() < 0.3 and settings["soc_start"] > 0.8:
            settings["pcs_full_soc"] = float(settings["soc_start"] + chance.uniform(-0.01, 0.01))
    settings["meter_delay_ms"] = min(delay_ms, 500.0 * settings["meter_update_ms"])
    if stratum == "habit":
        settings |= {"meter_then_s": 1.0, "meter_then_update_ms": _log(chance, 20.0, 4000.0)}
        if chance.random() < 0.5:
            settings["meter_then_average_ms"] = _log(chance, 200.0, 5000.0)
    if stratum == "liar":
        lie = str(chance.choice(list(LIES)))
        kind = {"frozen": "meter.stuck", "flipped": "meter.reversed"}.get(lie, f"meter.{lie}")
        faults.append({"kind": kind, "target": "grid", "on_s": 0.0 if lie == "reversed" else 40.0, "lie": lie})
    return settings, faults


def _timed(made: Draw, chance: np.random.Generator) -> Draw:
    """Changes at run time happen in the middle third."""
    at_s = float(round(made.seconds * chance.uniform(0.35, 0.6)))
    settings, faults = dict(made.settings), [dict(one) for one in made.faults]
    if "meter_then_s" in settings:
        settings["meter_then_s"] = at_s
    for one in faults:
        if one["on_s"] > 0.0:
            one["on_s"] = at_s
    pv: list[tuple[float, float]] = []
    if any(one["lie"] == "absolute" for one in faults) or (made.stratum == "mixed" and chance.random() < 0.2):
        # A clear noon for some time: more than the site needs.
        pv = [(0.0, 0.0), (at_s + 2.0, float(round(made.limit_w * chance.uniform(0.3, 1.5)))), (at_s + 17.0, 0.0)]
    return replace(made, settings=settings, faults=faults, pv=pv)


# ---------------------------------------------------------------- the site file


def site_text(made: Draw) -> str:
    """The site file of a draw: the demo's, with its own cabinet, limits and lines, and nothing known of the devices."""
    each_w = made.power_w / made.units
    own: dict[str, dict[str, Any]] = {
        "[[serial]]": {"baud": made.baud},
        "[[storage]]": {
            "energy_wh": made.energy_wh / made.units, "charge_w_max": each_w, "discharge_w_max": each_w,
            "ramp_go_w_per_s": each_w * 100.0, "ramp_stop_w_per_s": each_w * 1000.0,
        },
        "[limits]": {"connection_import_w_max": round(made.limit_w * 4.0 + 1e5), "connection_export_w_max": 0},
        "[control]": {
            "peak_w_max": made.limit_w, "recharge_w_max": made.limit_w - made.recharge_gap_w, "target_soc": 0.8,
            "recharge_rate_w": made.recharge_rate_w, **made.control,
        },
        "[simulation]": {"seed": made.seed, "cells": 240},
    }  # fmt: skip
    dropped = {"[control]": ("deadband_w", "meter_latency_ms", "pcs_tau_ms"), "[[device]]": ("latency_ms",),
               "[simulation]": ("load_trace", "load_column", "cooling_share", "cooling_mean_s", "meter_update_ms",
                                "pcs_tau_ms", "soc_start")}  # fmt: skip
    kept, table = [], ""
    for line in DEMO.read_text().split("\n"):
        if line.startswith("["):
            table = line.strip()
            if table == "[carbon]":
                continue
            kept.append(line)
            kept += [f"{key} = {value}" for key, value in own.get(table, {}).items()]
            continue
        key = line.partition("=")[0].strip()
        if table == "[carbon]" or key in own.get(table, {}) or key in dropped.get(table, ()):
            continue
        kept.append(line)
    return "\n".join(kept) + "".join(
        _further_unit(made, number, own["[[storage]]"]) for number in range(2, made.units + 1)
    )


def _further_unit(made: Draw, number: int, storage: dict[str, Any]) -> str:
    """A further cabinet like the first: on a line with the one before or a new one, its BMS on a bus of its own."""
    line = "pcs" if number == 2 else f"pcs{(number + 1) // 2}"
    text = "" if number % 2 == 0 else f'\n[[serial]]\nname = "{line}"\ndevice = "sim"\nbaud = {made.baud}\n'
    text += f'''
[[can]]
name = "bms{number}"
interface = "sim"
bitrate = 500000
[[device]]
name = "pcs{number}"
map = "sunspec-701"
bus = "{line}"
unit_id = {number}
role = "pcs"
[[device]]
name = "bms{number}"
map = "bms-35x-hv"
bus = "bms{number}"
role = "bms"
[[storage]]
name = "cabinet{number}"
bms = "bms{number}"
pcs = "pcs{number}"
'''
    return text + "".join(f"{key} = {value}\n" for key, value in {**DEMO_STORAGE, **storage}.items())


def program(made: Draw) -> bytes:
    """The compiled site. Raises ValueError with the loader's own words where it refuses the draw."""
    text = site_text(made)
    site, problems = parse_site(tomllib.loads(text), text)
    if site is None or problems:
        raise ValueError(f"seed {made.seed}: {problems}")
    site._folder = load_site(str(DEMO)).folder
    return compile_site(site)


def load_of(made: Draw) -> tuple[loads.Array, loads.Array]:
    """(t_s, w): the restless load, then the quiet end."""
    t_s, power_w = loads.sampled(made.components, made.seconds)
    end = round(max(made.limit_w + made.quiet_share * made.power_w, 0.0))
    return np.append(t_s, made.seconds), np.append(power_w, end)


def pv_of(made: Draw) -> tuple[loads.Array, loads.Array] | None:
    """(t_s, w) of the PV, None without."""
    return (np.array([t for t, _ in made.pv]), np.array([w for _, w in made.pv])) if made.pv else None


def overrides(made: Draw) -> dict[str, Any]:
    """Settings of the simulated plant."""
    faults = [{key: value for key, value in one.items() if key != "lie"} for one in made.faults]
    settings = dict(made.settings)
    for key in ("pcs_ramp_w_per_s", "pcs_offset_w", "pcs_derate_w"):  # of all units together
        if key in settings:
            settings[key] /= made.units
    return {**settings, "trace_ppm": 0.0, "trace_phase_s": 0.0, "faults": faults}
