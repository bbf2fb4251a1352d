"""The fleet's report as SQL that PostgreSQL, DuckDB and Spark read alike: the same text, the same whole numbers.

A site's month fits 64 bits; above it sums are DECIMAL(38, 0), so that no engine wraps around or rounds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from tidegate.runtime.fleet.hub.fleet_rollup import SUMS

Run = Callable[[str], Iterable[Sequence[object]]]
TABLE_NAMES = ("fleet_periods", "fleet_jobs", "fleet_places")

_OF_SITE = ", ".join(f"CAST(sum({name}) AS DECIMAL(38, 0)) AS {name}" for name in SUMS)
_OF_GROUP = ", ".join(f"CAST(sum(b.{name}) AS DECIMAL(38, 0)) AS {name}" for name in SUMS)

PERIODS = f"""
WITH by_site AS (
    SELECT site, count(*) AS periods, min(start_utc_s) AS first_utc_s, max(start_utc_s) AS last_utc_s, {_OF_SITE}
    FROM fleet_periods WHERE start_utc_s >= {{start}} AND start_utc_s < {{end}} GROUP BY site
), placed AS (
    SELECT b.*, coalesce(p.owner, '') AS owner, coalesce(p.region, '') AS region
    FROM by_site b LEFT JOIN fleet_places p ON p.site = b.site
)
SELECT grouping(b.site) AS of_sites, grouping(b.owner) AS of_owners, grouping(b.region) AS of_regions,
    b.site, b.owner, b.region, CAST(sum(b.periods) AS DECIMAL(38, 0)) AS periods, count(*) AS sites,
    min(b.first_utc_s) AS first_utc_s, max(b.last_utc_s) AS last_utc_s, {_OF_GROUP}
FROM placed b GROUP BY GROUPING SETS ((b.site), (b.owner), (b.region), ())
"""

# What own sources of some sites gave to the grid while other sites of the region drew from it. Energy alone: whose it
# is, instruments say.
SAME_PERIOD = """
WITH by_period AS (
    SELECT coalesce(p.region, '') AS region, f.start_utc_s,
        CAST(sum(f.own_export_milliwh) AS DECIMAL(38, 0)) AS own_export_milliwh,
        CAST(sum(f.import_milliwh) AS DECIMAL(38, 0)) AS import_milliwh
    FROM fleet_periods f LEFT JOIN fleet_places p ON p.site = f.site
    WHERE f.start_utc_s >= {start} AND f.start_utc_s < {end} GROUP BY coalesce(p.region, ''), f.start_utc_s
)
SELECT region, count(*) AS periods, CAST(sum(own_export_milliwh) AS DECIMAL(38, 0)) AS own_export_milliwh,
    CAST(sum(import_milliwh) AS DECIMAL(38, 0)) AS import_milliwh,
    CAST(sum(least(own_export_milliwh, import_milliwh)) AS DECIMAL(38, 0)) AS same_period_milliwh
FROM by_period GROUP BY region
"""

JOBS = """
SELECT tenant, job, count(DISTINCT site) AS sites, CAST(sum(energy_milliwh) AS DECIMAL(38, 0)) AS energy_milliwh,
    CAST(sum(ug) AS DECIMAL(38, 0)) AS ug
FROM fleet_jobs WHERE start_utc_s >= {start} AND start_utc_s < {end} GROUP BY tenant, job
"""


class Group(NamedTuple):
    """A site, an owner, a region or the whole. sums : in the order of SUMS."""

    name: str
    sites: int
    periods: int
    first_utc_s: int
    last_utc_s: int
    sums: tuple[int, ...]

    def of(self, name: str) -> int:
        """The sum of this name."""
        return self.sums[SUMS.index(name)]


class RegionPeriods(NamedTuple):
    """What a region's sites had of each other's own sources in the same period, at most."""

    name: str
    periods: int
    own_export_milliwh: int
    import_milliwh: int
    same_period_milliwh: int


class JobSum(NamedTuple):
    """A job over all sites that ran it."""

    tenant: str
    job: str
    sites: int
    energy_milliwh: int
    ug: int


class Account(NamedTuple):
    """What the three queries say of a span; each in the order of names."""

    whole: Group | None
    sites: list[Group]
    owners: list[Group]
    regions: list[Group]
    same_period: list[RegionPeriods]
    jobs: list[JobSum]


def account(run: Run, start_utc_s: int, end_utc_s: int) -> Account:
    """The account of the periods and days that begin in [start, end). run : an engine that has TABLE_NAMES."""
    span = {"start": int(start_utc_s), "end": int(end_utc_s)}
    groups: dict[str, list[Group]] = {"site": [], "owner": [], "region": [], "whole": []}
    for row in run(PERIODS.format(**span)):
        of_sites, of_owners, of_regions = (_whole(value) for value in row[:3])
        kind, name = (("site", row[3]) if not of_sites else ("owner", row[4]) if not of_owners
                      else ("region", row[5]) if not of_regions else ("whole", ""))  # fmt: skip
        if row[8] is not None:  # a span without a row has one group, the whole, of nothing
            periods, sites, first, last, *sums = (_whole(value) for value in row[6:])
            groups[kind].append(Group(str(name), sites, periods, first, last, tuple(sums)))
    same = [
        RegionPeriods(str(row[0]), *(_whole(value) for value in row[1:])) for row in run(SAME_PERIOD.format(**span))
    ]
    jobs = [JobSum(str(row[0]), str(row[1]), *(_whole(value) for value in row[2:])) for row in run(JOBS.format(**span))]
    return Account(
        next(iter(groups["whole"]), None), sorted(groups["site"]), sorted(groups["owner"]), sorted(groups["region"]),
        sorted(same), sorted(jobs),
    )  # fmt: skip


def _whole(value: object) -> int:
    """A whole number of any engine. Raises ValueError for what is none."""
    made = int(str(value).split(".")[0]) if not isinstance(value, int) else value
    if made != value:
        raise ValueError(f"{value!r} is no whole number")
    return made


def tenants(jobs: Iterable[JobSum]) -> Iterator[tuple[str, int, int, int]]:
    """(tenant, jobs, mWh, ug) of each, by name."""
    found: dict[str, list[int]] = {}
    for one in jobs:
        row = found.setdefault(one.tenant, [0, 0, 0])
        row[0] += 1
        row[1] += one.energy_milliwh
        row[2] += one.ug
    for name in sorted(found):
        count, milliwh, ug = found[name]
        yield name, count, milliwh, ug
