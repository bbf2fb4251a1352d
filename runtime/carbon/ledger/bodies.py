"""What an entry of each kind holds, by name, and how bodies of before are read with the names of today.

Version 1 of the bodies of periods and jobs called milliwatt-hours `mwh`, which an auditor reads as megawatt-hours.
Their text stays in the ledger as it was signed; whoever reads an entry gets the names of version 2.
"""

from collections.abc import Mapping
from typing import Any

CHARGE_BOOKED = "charge booked at purchase"  # outflow of the policy at_charge


BODY_VERSION = 2  # of periods and settlements of jobs


def current(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The body of an entry with the names of BODY_VERSION; changes the one that it is given.

    Raises AttributeError or TypeError for a body that no release has written.
    """
    if kind == "period" and body.get("v") == 1:
        for flow in body["flows"].values():
            _rename(flow, "mwh", "energy_milliwh")
            _rename(flow, "open_mwh", "open_milliwh")
            _rename(flow, "close_mwh", "close_milliwh")
            _rename(flow, "integral_mwh", "integral_milliwh")
        for outflow in body["outflows"]:
            _rename(outflow, "mwh", "energy_milliwh")
        for stock in body["stock"].values():
            _rename(stock, "mwh", "energy_milliwh")
            _rename(stock, "opening_mwh", "opening_milliwh")
        for opening in body.get("opening", {}).values():
            _rename(opening, "mwh", "energy_milliwh")
        _rename(body["method"], "residual_mwh", "residual_milliwh")
        _rename(body, "residual_mwh", "residual_milliwh")
        _rename(body, "loss_mwh", "loss_milliwh")
        body["v"] = BODY_VERSION
    elif kind == "job" and body.get("v") == 1:
        for node in body["nodes"].values():
            _rename(node, "metered_mwh", "metered_milliwh")
            _rename(node, "software_mwh", "software_milliwh")
            _rename(node, "idle_mwh", "idle_milliwh")
        body["v"] = BODY_VERSION
    return body


def _rename(row: dict[str, Any], old: str, new: str) -> None:
    if old in row:
        row[new] = row.pop(old)


def period_error_ug(body: Mapping[str, Any]) -> int:
    """Carbon that came in and was there, less what went out, was lost and is there: 0 unless a number was changed."""
    booked = sum(o["ug"] for o in body["outflows"] if o["kind"] != "charge" or o["name"] == CHARGE_BOOKED)
    stocks = body["stock"].values()
    return int(
        sum(body["inflow_ug"].values())
        + body["created_ug"]
        + sum(stock["opening_ug"] for stock in stocks)
        - booked
        - sum(body["loss_ug"].values())
        - sum(stock["ug"] for stock in stocks)
    )
