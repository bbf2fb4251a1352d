"""What a job is when it is pushed."""

from typing import Annotated

import msgspec

from tidegate.runtime.api.messages import Count


class JobRecord(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One job on one node, after its end, or while it runs with the end that is planned, at most a day from now.

    A record with the same job, node and start replaces the one before.
    """

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    start_utc_s: Count
    end_utc_s: Count
    owner: Annotated[str, msgspec.Meta(max_length=200)] = ""
    node: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """The IT load of the site that it ran on, by its meter's name; empty = all of the IT load."""
    slots: Annotated[int, msgspec.Meta(ge=1, le=10_000_000, description="GPUs, or what else it held")] = 1
    energy_j: Annotated[float, msgspec.Meta(ge=0, le=1e15, description="counted by software")] | None = None
    units: Annotated[dict[str, Annotated[float, msgspec.Meta(ge=0, le=1e15)]], msgspec.Meta(max_length=16)] = {}
    """What it made: {"token": 1.2e6, "request": 300}."""
