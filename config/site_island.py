"""The table [island] of a site file: how the site goes on without the grid."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from tidegate.config.site_buses import Share, Strict, Watt
from tidegate.config.toml_lines import Table

if TYPE_CHECKING:
    from tidegate.config.compile import Compiler
    from tidegate.config.program_rows import Row
    from tidegate.config.rules import Place

DEAD_V = 23.0
"""A phase below a tenth of 230 V is dead: a voltage interruption by IEC 61000-4-30 at the usual threshold."""
CHARGE_SHARE = 0.8  # of the genset's most power, where the file does not say what it gives while it charges


class Island(Strict):
    """What carries the site while the grid is gone. Without the table a loss of the grid is only a loss."""

    grid_forming: Annotated[
        bool, Field(description="the converters carry the site by themselves: nothing is asked of them")
    ] = False
    loss_s: Annotated[float, Field(ge=0, le=60, description="the grid is gone for so long before it counts")] = 0.3
    return_s: Annotated[float, Field(ge=0, le=600, description="and is back for so long before that counts")] = 5.0
    genset_w_max: Annotated[float, Field(gt=0, le=1e8, description="the genset gives no more")] | None = None
    genset_w_min: Annotated[Watt, Field(description="and, while it runs, no less: its minimum load")] = 0.0
    genset_charge_w: Annotated[
        Watt | None, Field(description="what it gives while the battery is charged from it; none = 0.8 genset_w_max")
    ] = None
    genset_hz: Annotated[tuple[float, float], Field(description="it carries the site between these")] = (45.0, 66.0)
    genset_start_s: Annotated[float, Field(gt=0, le=3600, description="without power after so long it is missing")] = (
        60.0
    )
    run_s_min: Annotated[float, Field(ge=0, le=86_400, description="once asked for, for so long")] = 600.0
    off_s_min: Annotated[float, Field(ge=0, le=86_400, description="once let go, not asked for so long")] = 60.0
    start_soc: Annotated[Share, Field(description="charged from the genset below; grid_forming: asked for")] = 0.3
    stop_soc: Annotated[Share, Field(description="up to this; grid_forming: then let go")] = 0.8

    @model_validator(mode="after")
    def _whole(self) -> "Island":
        if self.genset_w_max is None:
            if not self.grid_forming:
                raise ValueError(
                    "genset_w_max is missing: converters that follow a grid need a genset that makes one; "
                    "add it, or set grid_forming = true"
                )
            return self
        if self.genset_w_min >= self.genset_w_max:
            raise ValueError(
                f"genset_w_min: {self.genset_w_min:g} is not below genset_w_max = {self.genset_w_max:g}; lower it"
            )
        if self.genset_charge_w is not None and not self.genset_w_min <= self.genset_charge_w <= self.genset_w_max:
            raise ValueError(
                f"genset_charge_w: {self.genset_charge_w:g} lies outside genset_w_min..genset_w_max = "
                f"{self.genset_w_min:g}..{self.genset_w_max:g}; move it inside"
            )
        if self.start_soc >= self.stop_soc:
            raise ValueError(f"start_soc: {self.start_soc:g} is not below stop_soc = {self.stop_soc:g}; lower it")
        if not 0.0 < self.genset_hz[0] < self.genset_hz[1]:
            raise ValueError(
                f"genset_hz: {list(self.genset_hz)} is no band; give the lowest value and then the highest"
            )
        return self


def island_row(island: Island | None) -> "Row":
    """Settings of the control; nothing for a site without an island."""
    if island is None:
        return {}
    most_w = island.genset_w_max or 0.0
    charge_w = island.genset_charge_w
    if charge_w is None:
        charge_w = max(CHARGE_SHARE * most_w, island.genset_w_min)
    return {
        "island": 1.0,
        "island_forming": 1.0 if island.grid_forming else 0.0,
        "island_loss_s": island.loss_s,
        "island_return_s": island.return_s,
        "island_v_min": DEAD_V,
        "genset_w_min": min(island.genset_w_min, most_w),
        "genset_w_max": most_w,
        "genset_charge_w": min(charge_w, most_w),
        "genset_hz_min": island.genset_hz[0],
        "genset_hz_max": island.genset_hz[1],
        "genset_start_soc": island.start_soc,
        "genset_stop_soc": island.stop_soc,
        "genset_run_s_min": island.run_s_min,
        "genset_off_s_min": island.off_s_min,
        "genset_start_s": island.genset_start_s,
    }


def island_points(made: "Compiler") -> "Row":
    """Where the control finds the genset and the transfer switch; what is missing goes to the problems."""
    island = made.site.island
    row: Row = {}
    contacts = [one.name for one in made.site.input if one.what == "island"]
    if island is None:
        return row
    if contacts:
        row["island"] = f"{contacts[0]}.active"
    meters = [device for device in made.devices if device.role == "generator-meter"]
    grid = next((device for device in made.devices if device.role == "grid-meter"), None)
    sees = grid is not None and any(
        made.has(grid.name, signal) for signal in ("frequency_hz", "voltage_l1_v", "voltage_l2_v", "voltage_l3_v")
    )
    if island.grid_forming and not contacts and not sees:
        made.problems.append(
            "island: nothing tells that the grid is gone: the grid meter's map has neither frequency_hz nor "
            'voltage_l1_v; choose another map, or add an [[input]] with what = "island"'
        )
    if len(meters) > 1:
        made.problems.append(
            f"island: {' and '.join(device.name for device in meters)} are both a generator-meter, and the control "
            f"keeps one genset's limits; leave one in this role"
        )
    if meters:
        row["genset_w"] = f"{meters[0].name}.power_w"
        if made.has(meters[0].name, "frequency_hz"):
            row["genset_hz"] = f"{meters[0].name}.frequency_hz"
        if not island.grid_forming and not contacts and not sees:
            made.problems.append(
                "island: while the genset runs, nothing tells that the grid is gone: the grid meter's map has neither "
                'frequency_hz nor voltage_l1_v; choose another map, or add an [[input]] with what = "island"'
            )
    elif not island.grid_forming and not contacts:
        made.problems.append(
            "island: without a generator-meter the genset stands in the grid meter's place, and nothing tells the two "
            'apart; add an [[input]] with what = "island" on the transfer switch\'s contact, or a generator-meter'
        )
    return row


def check_island(raw: Table, place: "Place") -> list[str]:
    """An island needs a return, and a contact of its transfer switch an island."""
    problems = []
    limits, inputs = raw.get("limits"), raw.get("input")
    rows = [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
    at = [i for i, one in enumerate(rows) if one.get("what") == "island"]
    if "island" in raw and not (isinstance(limits, dict) and "reconnect_wait_s" in limits):
        problems.append(
            f"{place(('island',))}: limits.reconnect_wait_s is missing: how long a grid that is back gets no battery "
            f"power, its operator says; add it"
        )
    if at and "island" not in raw:
        problems.append(f"{place(('input', at[0], 'what'))}: there is no [island]; add the table or remove the input")
    if len(at) > 1:
        problems.append(f"{place(('input', at[1], 'what'))}: a site has one island contact; remove the other")
    return problems
