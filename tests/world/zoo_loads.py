"""Loads of the zoo: shipped measurements and made-up machines, each from its own seed; a load is a sum of some.

A component is a dict of plain numbers, so that a draw can be printed, repeated and shrunk:
`kind`, `seed`, `scale_w`, and what the kind needs. `sampled(components, seconds)` gives rows (t_s, w), each held until
the next. The shipped traces are those of config/demo and tests/data/load (see SOURCES.md there).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tidegate.hal.sim.trace import read_trace

Component = dict[str, Any]
Array = np.ndarray[Any, Any]

STEP_S = 0.02  # made-up loads change at most so often
DATA = Path(__file__).resolve().parents[1] / "data" / "load"

# name -> (file, column)
TRACES: dict[str, tuple[Path, str]] = {
    "9node": (
        Path(str(files("tidegate.config").joinpath("demo/smc_h100_9node_unet3d_20240509_2s.csv"))),
        "power_w_filled",
    ),
    "64node-gpt3": (DATA / "smc_h100_64node_gpt3_20240517_2s.csv", "power_w_filled"),
    "dgx-a100-2022": (DATA / "nvidia_dgxa100_20220216_1s.csv", "power_w"),
    "dgx-a100-2021": (DATA / "nvidia_dgxa100_20210317_1s.csv", "power_w"),
    "64node-llama": (DATA / "smc_h100_64node_llama2lora_20240516_2s.csv", "power_w_filled"),
}


@cache
def trace(name: str) -> tuple[Array, Array]:
    """(t_s, w) of a shipped trace, as it was measured."""
    path, column = TRACES[name]
    return read_trace(path, column)


def _grid(seconds: float, step_s: float = STEP_S) -> Array:
    return np.arange(0.0, seconds, step_s)


def _chance(one: Component) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int(one["seed"])))


def _held(t: Array, every_s: float, values: Callable[[int], Array]) -> Array:
    """Values that hold for every_s each."""
    at = (t / every_s).astype(int)
    return values(int(at[-1]) + 1)[at]


def _trace(one: Component, t: Array) -> Array:
    t_s, power_w = trace(one["trace"])
    at = np.searchsorted(t_s, (t + one["start_s"]) % (t_s[-1] + 2.0), side="right") - 1
    return power_w[at] * one["scale"]


def _walk(one: Component, t: Array) -> Array:
    """A random walk, reflected at 0.3 and 1 of its scale."""
    steps = _held(t, one["every_s"], lambda n: np.cumsum(_chance(one).normal(0.0, one["step_w"], n)))
    lo_w, hi_w = 0.3 * one["scale_w"], one["scale_w"]
    folded = np.abs((steps + one["start_w"] - lo_w) % (2.0 * (hi_w - lo_w)) - (hi_w - lo_w))
    return hi_w - folded


def _free_walk(one: Component, t: Array) -> Array:
    """start + N(0, step) added every so often, never below 0."""
    return np.maximum(
        _held(t, one["every_s"], lambda n: one["start_w"] + np.cumsum(_chance(one).normal(0.0, one["step_w"], n))), 0.0
    )


def _ar(one: Component, t: Array) -> Array:
    """First-order autoregression about a mean."""

    def values(n: int) -> Array:
        noise, out, now = _chance(one).normal(0.0, 1.0, n), np.empty(n), 0.0
        for i in range(n):
            now = one["memory"] * now + noise[i]
            out[i] = now
        return out * one["sigma_w"] * np.sqrt(1.0 - one["memory"] ** 2)

    return np.maximum(one["mean_w"] + _held(t, one["every_s"], values), 0.0)


def _jumps(one: Component, t: Array) -> tuple[Array, np.random.Generator]:
    """Times of jumps, exponential gaps about every_s, none below a tenth of it; the rest of the chance."""
    chance = _chance(one)
    gaps = np.maximum(chance.exponential(one["every_s"], int(t[-1] / one["every_s"] * 3) + 8), 0.1 * one["every_s"])
    return np.cumsum(gaps), chance


def _steps(one: Component, t: Array) -> Array:
    at, chance = _jumps(one, t)
    levels = chance.uniform(0.2, 1.0, len(at) + 1) * one["scale_w"]
    return levels[np.searchsorted(at, t, side="right")]


def _square(one: Component, t: Array) -> Array:
    """GPUs that compute and wait in step: a square wave whose phase wanders."""
    chance = _chance(one)
    noise = np.cumsum(chance.normal(0.0, one["phase_noise"], int(t[-1] * one["hz"]) + 2))
    cycle = t * one["hz"]
    phase = (cycle + noise[cycle.astype(int)] - noise[0]) % 1.0
    return np.where(phase < one["duty"], one["scale_w"], one["low"] * one["scale_w"])


def _ramps(one: Component, t: Array) -> Array:
    at, chance = _jumps(one, t)
    at = np.concatenate(([0.0], at))
    return np.interp(t, at, chance.uniform(0.2, 1.0, len(at)) * one["scale_w"])


def _inrush(one: Component, t: Array) -> Array:
    """Machines that start with several times their power, which dies away."""
    at, chance = _jumps(one, t)
    out = np.zeros(len(t))
    for start_s, on_s in zip(at, chance.uniform(2.0, 30.0, len(at)), strict=True):
        since = t - start_s
        on = (since >= 0.0) & (since < on_s)
        out[on] += one["scale_w"] * (1.0 + one["peak"] * np.exp(-since[on] / one["fade_s"]))
    return out


def _ev(one: Component, t: Array) -> Array:
    """Car chargers: a few seconds of rise, hold in steps of the pilot signal, taper off."""
    at, chance = _jumps(one, t)
    out = np.zeros(len(t))
    for start_s, hold_s, share in zip(
        at, chance.uniform(10.0, 120.0, len(at)), chance.uniform(0.3, 1.0, len(at)), strict=True
    ):
        since = t - start_s
        rise, fall = np.clip(since / 3.0, 0.0, 1.0), np.clip(1.0 - (since - hold_s) / 20.0, 0.0, 1.0)
        out += one["scale_w"] * share * np.floor(np.minimum(rise, fall) * 16.0) / 16.0
    return out


def _compressor(one: Component, t: Array) -> Array:
    """Cooling that starts with six times its power for a fifth of a second, and runs a share of its period."""
    chance = _chance(one)
    at = (t + chance.uniform(0.0, one["every_s"])) % one["every_s"]
    run = at < 0.4 * one["every_s"]
    return np.where(run, np.where(at < 0.2, 6.0, 1.0 + 0.1 * np.exp(-at)), 0.0) * one["scale_w"]


def _constant(one: Component, t: Array) -> Array:
    return np.full(len(t), float(one["scale_w"]))


KINDS: dict[str, Callable[[Component, Array], Array]] = {
    "trace": _trace, "walk": _walk, "free_walk": _free_walk, "ar": _ar, "steps": _steps, "square": _square,
    "ramps": _ramps, "inrush": _inrush, "ev": _ev, "compressor": _compressor, "constant": _constant,
}  # fmt: skip
DRAWN = ("trace", "walk", "ar", "steps", "square", "ramps", "inrush", "ev", "compressor")
NEEDS_BASE = ("inrush", "ev", "compressor")


def component(kind: str, chance: np.random.Generator, scale_w: float, seed: int) -> Component:
    """A component of a kind, about scale_w high."""
    one: Component = {"kind": kind, "seed": seed, "scale_w": round(scale_w)}
    if kind == "trace":
        name = str(chance.choice(list(TRACES)))
        many = (
            float(chance.integers(8, 41)) if name.startswith("dgx") else 1.0
        )  # one server was measured, a room has many
        one |= {"trace": name, "scale": many, "start_s": float(np.floor(chance.uniform(0.0, trace(name)[0][-1] * 0.9)))}
        one["scale_w"] = round(float(trace(name)[1].max() * many))
    elif kind == "walk":
        one |= {"every_s": float(chance.choice([0.05, 0.2, 1.0, 2.0])), "step_w": scale_w * chance.uniform(0.005, 0.05),
                "start_w": scale_w * chance.uniform(0.4, 0.9)}  # fmt: skip
    elif kind == "ar":
        one |= {"every_s": float(chance.choice([0.05, 0.2, 1.0])), "memory": chance.uniform(0.3, 0.98),
                "mean_w": 0.7 * scale_w, "sigma_w": scale_w * chance.uniform(0.02, 0.15)}  # fmt: skip
    elif kind in ("steps", "ramps"):
        one |= {"every_s": float(np.exp(chance.uniform(np.log(0.5), np.log(20.0))))}
    elif kind == "square":
        one |= {"hz": float(np.exp(chance.uniform(np.log(0.05), np.log(2.0)))), "phase_noise": chance.uniform(0.0, 0.1),
                "duty": chance.uniform(0.2, 0.8), "low": chance.uniform(0.2, 0.8)}  # fmt: skip
    elif kind == "inrush":
        one |= {
            "every_s": chance.uniform(5.0, 30.0),
            "peak": chance.uniform(1.0, 5.0),
            "fade_s": chance.uniform(0.05, 1.0),
        }
    elif kind == "ev":
        one |= {"every_s": chance.uniform(8.0, 40.0)}
    elif kind == "compressor":
        one |= {"every_s": chance.uniform(10.0, 60.0)}
    return one


def sampled(components: list[Component], seconds: float) -> tuple[Array, Array]:
    """(t_s, w) of the sum; rows in which nothing changes are left out, but the first."""
    t = _grid(seconds)
    power_w = np.zeros(len(t))
    for one in components:
        power_w += KINDS[one["kind"]](one, t)
    power_w = np.round(power_w)
    keep = np.concatenate(([True], np.diff(power_w) != 0.0))
    return t[keep], power_w[keep]
