"""Which flows a site has: from the nodes of its describe to the accountant's flows and batteries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.runtime.carbon.engine.counter import W_MAX, Flow

# Role of a node in describe -> the two kinds of its flows (what is positive inside, the other direction).
ROLES = {
    "grid": ("import", "export"),
    "pv": ("generation", None),
    "generator": ("generation", None),
    "ess": ("discharge", "charge"),
    "it": ("load", None),
    "cooling": ("load", None),
    "lighting": ("load", None),
    "other": ("load", None),
    "circuit": ("load", None),
}
SITE_INTEGRALS = {"grid": "site.grid", "pv": "site.pv", "ess": "site.ess"}
BY_DIFFERENCE = "it"


@dataclass(frozen=True, slots=True)
class Storage:
    """One battery as the account sees it: node name, usable energy, declared efficiencies."""

    node: str
    energy_milliwh: int
    charge_ppm: int = 970_000
    discharge_ppm: int = 970_000
    standby_milliw: int = 0  # milliwatts, DC


@dataclass(frozen=True, slots=True)
class Nodes:
    """The flows of a site, its batteries, and what a reader must know about them.

    by_difference : name of the load that no meter measures and that is what the others leave; None if all are metered.
    kinds : node -> role, for sums by role.
    """

    flows: tuple[Flow, ...]
    storages: tuple[Storage, ...]
    by_difference: str | None
    kinds: dict[str, str]
    notes: tuple[str, ...] = ()


def nodes_of(describe: Mapping[str, Any]) -> Nodes:
    """Find the flows in a site's describe.

    describe["nodes"] lists metered devices: role, device, in_wh, out_wh (names of energy registers, or None). The
    core's integrals bridge where a role has one device. Raises ValueError if nothing measures the grid.
    """
    points = {point["name"]: point.get("unit", "") for point in describe["points"]}
    rows: list[Mapping[str, Any]] = [row for row in describe.get("nodes") or [] if row["role"] in ROLES]
    limits = describe.get("limits") or {}
    plausible = float(limits.get("connection_import_w_max") or 0.0) * 3.0 or W_MAX
    if not any(row["role"] == "grid" for row in rows):
        raise ValueError("no device has the role grid-meter; without it no energy of the site can be booked")
    flows: list[Flow] = []
    notes: list[str] = []
    kinds: dict[str, str] = {}
    storages: tuple[Storage, ...] = ()
    behind = {device["name"] for device in describe.get("devices") or [] if device.get("circuit_storage")}
    for role in ROLES:
        mine = [row for row in rows if row["role"] == role]
        if role == "ess":
            if mine:
                storages, found = _storage(describe, mine, points, plausible, notes)
                flows += found
                kinds.update({storage.node: "ess" for storage in storages})
            continue
        for number, row in enumerate(mine):
            if role == "circuit" and row["device"] in behind:
                notes.append(f"{row['device']}: storage lies behind this circuit; it guards and is no load of its own")
                continue
            if role == "grid" and number:
                notes.append(f"{row['device']}: a second grid meter; the first one counts")
                continue
            node = "grid" if role == "grid" else str(row["device"])
            kinds[node] = role
            integral = _integral(SITE_INTEGRALS.get(role), points) if len(mine) == 1 or role == "grid" else None
            for side, kind in enumerate(ROLES[role]):
                if kind is None:
                    continue
                register = row["in_wh"] if side == 0 else row["out_wh"]
                if register not in points:
                    register = None
                shape = (integral[side], integral[2]) if integral else (None, None)
                if register is None and shape[0] is None:
                    notes.append(f"{row['device']}: no register for its {kind}; that energy is not booked by itself")
                    continue
                if register is None:
                    notes.append(f"{node} {kind}: no register; booked from the fast power")
                flows.append(Flow(f"{node}.{kind}", node, kind, register, shape[0], shape[1], plausible))
    by_difference = None
    if "it" not in kinds.values():
        by_difference = BY_DIFFERENCE
        kinds[by_difference] = "it"
        notes.append("no meter of the IT load: it is what grid, generation and storage leave after the metered loads, "
                     "and a residual cannot show")  # fmt: skip
    return Nodes(tuple(flows), storages, by_difference, kinds, tuple(notes))


def _integral(stem: str | None, points: Mapping[str, str]) -> tuple[str, str, str] | None:
    if stem is None:
        return None
    names = (f"{stem}_in_ws", f"{stem}_out_ws", f"{stem}_covered_s")
    return names if all(name in points for name in names) else None


def _storage(
    describe: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    points: Mapping[str, str],
    plausible: float,
    notes: list[str],
) -> tuple[tuple[Storage, ...], list[Flow]]:
    units = list(describe.get("units") or [])
    settings = describe.get("carbon") or {}
    efficiency = {
        "charge_ppm": round(float(settings.get("charge_efficiency") or 0.97) * 1e6),
        "discharge_ppm": round(float(settings.get("discharge_efficiency") or 0.97) * 1e6),
        "standby_milliw": round(float(settings.get("standby_w") or 0.0) * 1000),
    }
    integral = _integral(SITE_INTEGRALS["ess"], points)
    by_pcs = {row["device"]: row for row in rows}
    if len(units) > 1 and all(unit.get("pcs") in by_pcs and _both(by_pcs[unit["pcs"]], points) for unit in units):
        flows, storages = [], []
        for unit in units:
            node, row = str(unit["name"]), by_pcs[unit["pcs"]]
            for kind, key in (("discharge", "in_wh"), ("charge", "out_wh")):
                flows.append(Flow(f"{node}.{kind}", node, kind, row[key], w_max=plausible))
            storages.append(Storage(node, round(float(unit["energy_wh"]) * 1000), **efficiency))
        return tuple(storages), flows
    node = str(units[0]["name"]) if len(units) == 1 else "storage"
    row = rows[0] if len(rows) == 1 and _both(rows[0], points) else {"in_wh": None, "out_wh": None}
    if row["in_wh"] is None:
        if integral is None:
            notes.append("storage: neither energy registers nor integrals; charge and discharge stay in the residual")
            return (), []
        notes.append("storage: no energy registers of the converter; charge and discharge booked from the fast power")
    shape = integral or (None, None, None)
    energy = sum(round(float(unit.get("energy_wh") or 0.0) * 1000) for unit in units)
    return (Storage(node, energy, **efficiency),), [
        Flow(f"{node}.discharge", node, "discharge", row["in_wh"], shape[0], shape[2], plausible),
        Flow(f"{node}.charge", node, "charge", row["out_wh"], shape[1], shape[2], plausible),
    ]


def _both(row: Mapping[str, Any], points: Mapping[str, str]) -> bool:
    return row["in_wh"] in points and row["out_wh"] in points
