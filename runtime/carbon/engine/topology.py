"""Which flows a site has: from the nodes of its describe to the accountant's flows and batteries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.hal.description import Description, Node
from tidegate.runtime.carbon.engine.counter import HIGH, W_MAX, Flow
from tidegate.runtime.carbon.integers import to_whole

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
# Role -> the core's monotone integrals of its power: what is positive inside (W s), the other direction, s covered.
SITE_INTEGRALS = {
    "grid": ("site.grid_in_ws", "site.grid_out_ws", "site.grid_covered_s"),
    "pv": ("site.pv_in_ws", "site.pv_out_ws", "site.pv_covered_s"),
    "ess": ("site.ess_discharged_ws", "site.ess_charged_ws", "site.ess_covered_s"),
}
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
    soc_weights: dict[str, float] = field(
        default_factory=dict
    )  # point of each storage's state of charge -> its energy, Wh


def nodes_of(site: Description) -> Nodes:
    """Find the flows of a site, from its metered nodes and their energy registers.

    The core's integrals bridge where a role has one device. Raises ValueError if nothing measures the grid.
    """
    points = site.point_units
    rows = [row for row in site.nodes if row.role in ROLES]
    nameplate_w = site.limits.connection_import_w_max or 0.0
    plausible = site.carbon.meter_w_max or nameplate_w * 3.0 or W_MAX
    ranges = {name: to_whole(str(kwh), 1_000_000) for name, kwh in site.carbon.register_range_kwh.items()}
    if not any(row.role == "grid" for row in rows):
        raise ValueError("no device has the role grid-meter; without it no energy of the site can be booked")
    flows: list[Flow] = []
    notes: list[str] = []
    kinds: dict[str, str] = {}
    storages: tuple[Storage, ...] = ()
    with_storage = {device.name for device in site.devices if device.circuit_storage}
    for role in ROLES:
        mine = [row for row in rows if row.role == role]
        if role == "ess":
            if mine:
                storages, found = _storage(site, mine, points, plausible, notes)
                flows += found
                kinds.update({storage.node: "ess" for storage in storages})
            continue
        for number, row in enumerate(mine):
            if role == "circuit" and row.device in with_storage:
                notes.append(f"{row.device}: storage lies behind this circuit; it guards and is no load of its own")
                continue
            if role == "grid" and number:
                notes.append(f"{row.device}: a second grid meter; the first one counts")
                continue
            node = "grid" if role == "grid" else row.device
            kinds[node] = role
            integral = _integral(SITE_INTEGRALS.get(role), points) if len(mine) == 1 or role == "grid" else None
            for side, kind in enumerate(ROLES[role]):
                if kind is None:
                    continue
                register = row.positive_wh if side == 0 else row.negative_wh
                if register not in points:
                    register = None
                shape = (integral[side], integral[2]) if integral else (None, None)
                if register is None and shape[0] is None:
                    notes.append(f"{row.device}: no register for its {kind}; that energy is not booked by itself")
                    continue
                if register is None:
                    notes.append(f"{node} {kind}: no register; booked from the fast power")
                name = f"{node}.{kind}"
                flows.append(
                    Flow(name, node, kind, register, shape[0], shape[1], plausible, ranges.get(name, 0),
                         nameplate_w if kind in HIGH else 0.0)
                )  # fmt: skip
    strange = sorted(set(ranges) - {flow.name for flow in flows})
    notes += [f"register_range_kwh: {name} is no flow of this site; known: {', '.join(f.name for f in flows)}"
              for name in strange]  # fmt: skip
    by_difference = None
    if "it" not in kinds.values():
        by_difference = BY_DIFFERENCE
        kinds[by_difference] = "it"
        notes.append("no meter of the IT load: it is what grid, generation and storage leave after the metered loads, "
                     "and a residual cannot show")  # fmt: skip
    weights = {f"{unit.battery}.soc": unit.energy_wh for unit in site.units if f"{unit.battery}.soc" in points}
    return Nodes(tuple(flows), storages, by_difference, kinds, tuple(notes), weights)


def _integral(names: tuple[str, str, str] | None, points: Mapping[str, str]) -> tuple[str, str, str] | None:
    return names if names is not None and all(name in points for name in names) else None


def _storage(
    site: Description,
    rows: Sequence[Node],
    points: Mapping[str, str],
    plausible: float,
    notes: list[str],
) -> tuple[tuple[Storage, ...], list[Flow]]:
    units = site.units
    efficiency = {
        "charge_ppm": round(site.carbon.charge_efficiency * 1e6),
        "discharge_ppm": round(site.carbon.discharge_efficiency * 1e6),
        "standby_milliw": round(site.carbon.standby_w * 1000),
    }
    integral = _integral(SITE_INTEGRALS["ess"], points)
    by_pcs = {row.device: row for row in rows}
    if len(units) > 1 and all(unit.pcs in by_pcs and _both(by_pcs[unit.pcs], points) for unit in units):
        flows, storages = [], []
        for unit in units:
            node, row = unit.name, by_pcs[unit.pcs]
            for kind, register in (("discharge", row.positive_wh), ("charge", row.negative_wh)):
                flows.append(Flow(f"{node}.{kind}", node, kind, register, w_max=plausible))
            storages.append(Storage(node, round(unit.energy_wh * 1000), **efficiency))
        return tuple(storages), flows
    node = units[0].name if len(units) == 1 else "storage"
    row = rows[0] if len(rows) == 1 and _both(rows[0], points) else Node(role="ess", device=node)
    if row.positive_wh is None:
        if integral is None:
            notes.append("storage: neither energy registers nor integrals; charge and discharge stay in the residual")
            return (), []
        notes.append("storage: no energy registers of the converter; charge and discharge booked from the fast power")
    shape = integral or (None, None, None)
    energy = sum(round(unit.energy_wh * 1000) for unit in units)
    return (Storage(node, energy, **efficiency),), [
        Flow(f"{node}.discharge", node, "discharge", row.positive_wh, shape[0], shape[2], plausible),
        Flow(f"{node}.charge", node, "charge", row.negative_wh, shape[1], shape[2], plausible),
    ]


def _both(row: Node, points: Mapping[str, str]) -> bool:
    return row.positive_wh in points and row.negative_wh in points
