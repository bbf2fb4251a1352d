"""What a site file may say and hardly means: a number in another unit, a limit that never acts, a clock that is UTC.

None of it keeps a site from running; `tidegate check` warns, `tidegate check --strict` refuses.
"""

from collections.abc import Iterator

from tidegate.config.site import Site

SMALL_SHARE = 0.01  # of the battery's power: a limit below that is mostly a number in kW
LARGE_TIMES = 1000.0  # and one above that mostly in mW, or with digits too many
FITS_SHARE, FITS_TIMES = 0.05, 50.0  # what another unit has to come to for it to be offered
C_RATE_MAX, C_RATE_MIN = 20.0, 0.02  # of the power against the energy, 1/h
SIDES_APART = 20.0  # charge against discharge
RAMP_S_MAX = 3600.0  # from rest to full power
PRICE_MAX = 3.0  # of a kWh in the site's currency, where that is one with cents
CENTS = ("EUR", "USD", "GBP", "CHF")

LIMIT_KEYS = ("connection_import_w_max", "connection_export_w_max", "base_load_w")
CONTROL_KEYS = ("peak_w_max", "demand_w_max", "recharge_w_max", "range_w_max", "recharge_rate_w", "demand_paid_w")
SLOT_KEYS = ("setpoint_w", "import_w_max", "export_w_max", "peak_w_max", "demand_w_max", "charge_w_max",
             "discharge_w_max", "target_grid_w")  # fmt: skip


def unlikely(site: Site) -> list[str]:
    """One sentence for each thing that is allowed and hardly meant: key, value, beside what, and what was meant."""
    return [*_units(site), *_order(site), *_storage(site), *_times(site), *_clock(site), *_money(site)]


def _storage_w_max(site: Site) -> float:
    return sum(max(unit.charge_w_max, unit.discharge_w_max) for unit in site.storage)


def _kilo(value_w: float) -> str:
    return f"{value_w / 1e3:g} kW" if abs(value_w) >= 1000 else f"{value_w:g} W"


def _units(site: Site) -> Iterator[str]:
    """Powers that lie far from the battery's."""
    storage_w = _storage_w_max(site)
    keys = [("limits", site.limits, LIMIT_KEYS), ("control", site.control, CONTROL_KEYS)]
    keys += [(f"schedule[{slot.name}]", slot, SLOT_KEYS) for slot in site.schedule]
    for place, table, names in keys:
        for name in names:
            value_w = getattr(table, name, None)
            if not isinstance(value_w, int | float) or not value_w or storage_w <= 0:
                continue
            yield from _another_unit(f"{place}.{name}", float(value_w), storage_w)


def _another_unit(place: str, value_w: float, storage_w: float) -> Iterator[str]:
    share = abs(value_w) / storage_w
    if SMALL_SHARE <= share <= LARGE_TIMES:
        return
    said = f"{place} = {value_w:g} W beside {_kilo(storage_w)} of battery"
    meant_w = value_w * 1e3 if share < SMALL_SHARE else value_w / 1e3
    if FITS_SHARE <= abs(meant_w) / storage_w <= FITS_TIMES:
        yield f"{said}; did you mean {meant_w:.0f} ({_kilo(meant_w)})?"
    else:
        yield f"{said}; powers are written in W"


def _order(site: Site) -> Iterator[str]:
    """Limits that never act, because a tighter one stands before them; and those that work against each other."""
    limits, control = site.limits, site.control
    fuse_w, peak_w = limits.connection_import_w_max, control.peak_w_max
    demand_w, recharge_w = getattr(control, "demand_w_max", None), control.recharge_w_max
    if demand_w is not None and fuse_w is not None and demand_w > fuse_w:
        yield (
            f"control.demand_w_max = {demand_w:g} W is above limits.connection_import_w_max = {fuse_w:g} W: it never "
            f"acts, for the connection is held below it"
        )
    elif demand_w is not None and peak_w is not None and demand_w > peak_w:
        yield f"control.demand_w_max = {demand_w:g} W is above peak_w_max = {peak_w:g} W: it never acts"
    if recharge_w is not None and demand_w is not None and recharge_w > demand_w:
        yield (
            f"control.recharge_w_max = {recharge_w:g} W is above demand_w_max = {demand_w:g} W: recharging fills the "
            f"window that the battery is to keep free"
        )
    if recharge_w is not None and fuse_w is not None and recharge_w > fuse_w:
        yield f"control.recharge_w_max = {recharge_w:g} W is above connection_import_w_max = {fuse_w:g} W: no limit"
    if fuse_w is not None and limits.base_load_w > fuse_w:
        yield f"limits.base_load_w = {limits.base_load_w:g} W is above connection_import_w_max = {fuse_w:g} W"
    reserve, force = getattr(control, "reserve_soc", 0.0) or 0.0, getattr(control, "force_soc", None)
    if control.target_soc < reserve:
        yield f"control.target_soc = {control.target_soc:g} is below reserve_soc = {reserve:g}: it is never rested at"
    if force is not None and force > control.target_soc:
        yield f"control.force_soc = {force:g} is above target_soc = {control.target_soc:g}: charging is always forced"
    for unit in site.storage:
        if 0 < reserve <= unit.soc_min:
            yield (
                f"control.reserve_soc = {reserve:g} is not above soc_min = {unit.soc_min:g} of storage[{unit.name}]: "
                f"it keeps nothing back"
            )


def _storage(site: Site) -> Iterator[str]:
    """A storage unit whose own figures do not go together."""
    plates = {device.name: device.nameplate_w_max for device in site.device}
    for unit in site.storage:
        place = f"storage[{unit.name}]"
        widest_w, least_w = max(unit.charge_w_max, unit.discharge_w_max), min(unit.charge_w_max, unit.discharge_w_max)
        rate = widest_w / unit.energy_wh
        energy = f"{place}.energy_wh = {unit.energy_wh:g} Wh beside {_kilo(widest_w)}"
        if rate > C_RATE_MAX:
            meant = f"; did you mean {unit.energy_wh * 1e3:.0f} (kWh)?" if rate / 1e3 >= C_RATE_MIN else ""
            yield f"{energy}: empty in {3600 / rate:.0f} s{meant}"
        elif 0 < rate < C_RATE_MIN:
            meant = f"; did you mean {unit.energy_wh / 1e3:.0f}?" if rate * 1e3 <= C_RATE_MAX else ""
            yield f"{energy}: full after {1 / rate:.0f} h{meant}"
        if least_w and widest_w / least_w > SIDES_APART:
            sides = f"charge_w_max = {unit.charge_w_max:g} W and discharge_w_max = {unit.discharge_w_max:g} W"
            yield f"{place}: {sides} lie far apart"
        plate_w = plates.get(unit.pcs)
        if plate_w is not None and widest_w and plate_w / widest_w > SIDES_APART:
            yield f"device[{unit.pcs}].nameplate_w_max = {plate_w:g} W beside at most {widest_w:g} W of {place}"
        if unit.soc_max - unit.soc_min < 0.1:
            yield f"{place}: between soc_min = {unit.soc_min:g} and soc_max = {unit.soc_max:g} hardly anything is left"


def _times(site: Site) -> Iterator[str]:
    """Intervals longer than what waits for them, and powers below what the control can tell apart."""
    control = site.control
    for device in site.device:
        age_ms, fast_ms, timeout_ms = device.age_max_ms, device.poll_fast_ms, device.timeout_ms
        place = f"device[{device.name}]"
        if age_ms is not None and fast_ms > age_ms:
            yield f"{place}.poll_fast_ms = {fast_ms:g} is longer than age_max_ms = {age_ms:g}: readings are stale first"
        if age_ms is not None and timeout_ms is not None and timeout_ms > age_ms:
            said = f"{place}.timeout_ms = {timeout_ms:g} is longer than age_max_ms = {age_ms:g}"
            yield f"{said}: one lost answer makes readings stale"
    storage_w = _storage_w_max(site)
    for name in ("ramp_up_w_per_s", "ramp_down_w_per_s"):
        ramp = getattr(control, name, None)
        if ramp and storage_w / ramp > RAMP_S_MAX:
            hours = storage_w / ramp / 3600
            yield f"control.{name} = {ramp:g} W/s: the battery's {_kilo(storage_w)} take {hours:.1f} h"
    band_w = getattr(control, "deadband_w", None)
    for name in ("peak_w_max", "range_w_max", "demand_w_max"):
        value_w = getattr(control, name, None)
        if band_w and value_w and value_w <= band_w:
            yield f"control.{name} = {value_w:g} W is not above deadband_w = {band_w:g} W, which is never acted on"
    gateway = site.gateway
    if gateway.endpoint and gateway.publish:
        host, _, port = gateway.endpoint.rpartition(":")
        if gateway.publish != f"{host}:{int(port) + 1}":
            yield f"gateway.publish = {gateway.publish}: our clients look for the streams at {host}:{int(port) + 1}"


def _clock(site: Site) -> Iterator[str]:
    """Tariffs go by the site's clock."""
    by_clock = "schedule" if site.schedule else "control.demand_billing" if site.control.demand_billing else ""
    if by_clock and "timezone" not in site.site.model_fields_set:
        yield f"{by_clock} goes by the site's clock, and site.timezone is not given: it is UTC"


def _money(site: Site) -> Iterator[str]:
    """Prices and factors in another unit."""
    price, factor = site.carbon.price_per_kwh, site.carbon.grid_factor_g_per_kwh
    if price is not None and price > PRICE_MAX and site.carbon.currency in CENTS:
        yield (
            f"carbon.price_per_kwh = {price:g} {site.carbon.currency}; did you mean {price / 100:g} "
            f"({price:g} hundredths)?"
        )
    if factor is not None and 0 < factor < 2:
        yield f"carbon.grid_factor_g_per_kwh = {factor:g} g; did you mean {factor * 1e3:g} ({factor:g} kg)?"
