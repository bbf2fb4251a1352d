"""What an entry of each kind holds, by name."""

from collections.abc import Mapping
from typing import Any

CHARGE_BOOKED = "charge booked at purchase"  # outflow of the policy at_charge


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
