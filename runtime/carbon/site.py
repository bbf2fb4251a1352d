"""Which flows a site has: from the roles of its devices and the names of its points to the accountant's nodes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.runtime.carbon.booking import W_MAX, Flow

LOAD_ROLES = {"it-meter": "it", "cooling-meter": "cooling", "lighting-meter": "lighting", "circuit-meter": "circuit"}


@dataclass(frozen=True, slots=True)
class Storage:
    """One battery as the account sees it: node name, usable energy, declared efficiencies."""

    node: str
    energy_mwh: int
    charge_ppm: int = 970_000
    discharge_ppm: int = 970_000


@dataclass(frozen=True, slots=True)
class Nodes:
    """The flows of a site, and its batteries."""

    flows: tuple[Flow, ...]
    storages: tuple[Storage, ...]
    notes: tuple[str, ...] = ()


def _first(names: set[str], *candidates: str) -> str | None:
    return next((name for name in candidates if name in names), None)


def nodes_of(describe: Mapping[str, Any]) -> Nodes:
    """Find the flows in a site's describe: devices with name and role, points by name.

    A meter's registers are `<device>.import_wh` and `.export_wh`; the core's integrals are the site's own points.
    Raises ValueError if no device measures the grid.
    """
    points = {point if isinstance(point, str) else point["name"] for point in describe["points"]}
    devices: list[tuple[str, str]] = [(device["name"], device.get("role", "")) for device in describe["devices"]]
    limits = describe.get("limits") or {}
    plausible = float(limits.get("connection_import_w_max") or 0.0) * 3 or W_MAX
    flows: list[Flow] = []
    notes: list[str] = []
    grid = [name for name, role in devices if role == "grid-meter"]
    if not grid:
        raise ValueError("no device has the role grid-meter; without it no energy of the site can be booked")
    covered = _first(points, "site.grid_covered_s")
    for kind, signal, integral in (("import", "import_wh", "in"), ("export", "export_wh", "out")):
        register = _first(points, f"{grid[0]}.{signal}")
        if register is None:
            notes.append(f"grid {kind}: {grid[0]} gives no register {signal}; booked from the fast power")
        flows.append(
            Flow(f"grid.{kind}", "grid", kind, register, _first(points, f"site.grid_{integral}_ws"), covered, plausible)
        )
    flows += _generation(devices, points, plausible)
    storages, storage_flows = _storage(describe, devices, points, plausible, notes)
    flows += storage_flows
    loads = []
    for name, role in devices:
        if role in LOAD_ROLES:
            register = _first(points, f"{name}.import_wh")
            if register is None:
                notes.append(f"{name}: no register import_wh; its energy stays in the residual")
                continue
            loads.append(Flow(f"{name}.load", name, "load", register, w_max=plausible))
    if not loads:
        notes.append("no meter of a load: all of it is one node, from grid, storage and generation")
        if "site.load_in_ws" in points:
            loads.append(
                Flow(
                    "load.load",
                    "load",
                    "load",
                    None,
                    "site.load_in_ws",
                    _first(points, "site.load_covered_s"),
                    plausible,
                )
            )
    return Nodes(tuple(flows + loads), storages, tuple(notes))


def _generation(devices: Iterable[tuple[str, str]], points: set[str], plausible: float) -> list[Flow]:
    meters = [name for name, role in devices if role == "pv-meter"]
    flows = []
    for name in meters:
        # A generator's meter counts export where it looks from the grid, import where it looks from the roof.
        register = _first(points, f"{name}.generation_wh", f"{name}.export_wh", f"{name}.import_wh")
        only = len(meters) == 1
        integral = _first(points, "site.pv_in_ws") if only else None
        if register is not None or integral is not None:
            covered = _first(points, "site.pv_covered_s") if only else None
            flows.append(Flow(f"{name}.generation", name, "generation", register, integral, covered, plausible))
    return flows


def _storage(
    describe: Mapping[str, Any],
    devices: Iterable[tuple[str, str]],
    points: set[str],
    plausible: float,
    notes: list[str],
) -> tuple[tuple[Storage, ...], list[Flow]]:
    units = list(describe.get("storage") or describe.get("units") or [])
    settings = describe.get("carbon") or {}
    efficiency = {
        "charge_ppm": round(float(settings.get("charge_efficiency") or 0.97) * 1e6),
        "discharge_ppm": round(float(settings.get("discharge_efficiency") or 0.97) * 1e6),
    }
    pcs = [name for name, role in devices if role == "pcs"]
    if not pcs and not units:
        return (), []
    energy = [round(float(unit.get("energy_wh") or 0.0) * 1000) for unit in units] or [0]
    registers = [
        (
            _first(points, f"{name}.discharge_wh", f"{name}.export_wh"),
            _first(points, f"{name}.charge_wh", f"{name}.import_wh"),
        )
        for name in pcs
    ]
    if registers and all(out and into for out, into in registers) and len(units) == len(pcs):
        flows, storages = [], []
        for unit, (out, into), mwh in zip(units, registers, energy, strict=True):
            node = str(unit["name"])
            one = len(units) == 1
            covered = _first(points, "site.ess_covered_s") if one else None
            for kind, register, side in (("discharge", out, "in"), ("charge", into, "out")):
                integral = _first(points, f"site.ess_{side}_ws") if one else None
                flows.append(Flow(f"{node}.{kind}", node, kind, register, integral, covered, plausible))
            storages.append(Storage(node, mwh, **efficiency))
        return tuple(storages), flows
    notes.append("storage: the converters give no energy registers; booked from the fast power")
    covered = _first(points, "site.ess_covered_s")
    node = str(units[0]["name"]) if len(units) == 1 else "storage"
    return (Storage(node, sum(energy), **efficiency),), [
        Flow(f"{node}.discharge", node, "discharge", None, _first(points, "site.ess_in_ws"), covered, plausible),
        Flow(f"{node}.charge", node, "charge", None, _first(points, "site.ess_out_ws"), covered, plausible),
    ]
