"""What the simulated devices add to plain ones when the settings say so: averages, jitter, derating, whole percents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.hal.description import Simulation

if TYPE_CHECKING:
    from tidegate.hal.sim.build import Built

PLAIN = Simulation()  # all habits off: then the plant is the plain one, to the last bit


def add_habits(built: Built) -> None:
    """Give the grid meter, the converters and the batteries of a plant the habits that its settings name."""
    settings, world = built.settings, built.world

    def changed(*keys: str) -> bool:
        return any(getattr(settings, key) != getattr(PLAIN, key) for key in keys)

    seed = settings.seed
    grid = built.rows["site"]["grid_w"]
    name = str(built.rows["points"][grid]["name"]).split(".")[0] if grid >= 0 else ""
    if name in built.meters and changed(
        "meter_jitter", "meter_average_ms", "meter_lag_ms", "meter_band_w", "meter_then_s"
    ):
        world.meter_habits(
            built.meters[name],
            jitter=settings.meter_jitter,
            average_s=settings.meter_average_ms * 1e-3,
            lag_s=settings.meter_lag_ms * 1e-3,
            band_w=settings.meter_band_w,
            random=_random(seed, 1),
            then_at_s=settings.meter_then_s,
            then_interval_s=settings.meter_then_update_ms * 1e-3,
            then_average_s=settings.meter_then_average_ms * 1e-3,
            then_lag_s=settings.meter_then_lag_ms * 1e-3,
        )
    shares = ("pcs_gain", "pcs_offset_w", "pcs_quantum_w", "pcs_derate_share", "pcs_derate_w", "pcs_full_soc")
    if changed(*shares, "pcs_own_w"):
        told = {device.name for device in built.site.devices if device.battery_power == "battery_w"}
        for device, number in built.converters.items():
            world.pcs_habits(
                number,
                gain=settings.pcs_gain,
                offset_w=settings.pcs_offset_w,
                quantum_w=settings.pcs_quantum_w,
                share=settings.pcs_derate_share,
                cap_w=settings.pcs_derate_w,
                from_s=settings.pcs_derate_from_s,
                until_s=settings.pcs_derate_until_s,
                full_soc=settings.pcs_full_soc,
                own_w=settings.pcs_own_w,
                own_from_s=settings.pcs_own_from_s,
                own_told=device in told,
            )
    if changed("bms_soc_step", "bms_jump_s"):
        for number in built.batteries.values():
            world.battery_habits(
                number,
                soc_step=settings.bms_soc_step,
                jump_s=settings.bms_jump_s,
                jump_lo=settings.bms_jump_lo,
                random=_random(seed, 2 + number),
            )


def _random(seed: int, number: int) -> int:
    """A start for a device's own chance: splitmix64 of seed and number, never 0."""
    mixed = (seed * 64 + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) or 1
