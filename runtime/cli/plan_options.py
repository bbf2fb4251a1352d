"""Options that the commands of `tidegate plan` and `tidegate planner` share, packed into one `Wishes`."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime

import click

from tidegate.runtime.cli.common import EXIT_USAGE, fail
from tidegate.runtime.planner.day_ahead import Wishes
from tidegate.runtime.planner.outlook import WEAR_EUR_PER_KWH


def moment(option: str, text: str | None) -> datetime:
    """The time that an option gives, now where it gives none; ends the command where it is no time."""
    if text is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option} {text}: is no time; write 2026-11-28T17:00Z", EXIT_USAGE, "plan")
    if found.tzinfo is None:
        fail(f"{option} {text}: has no offset; write 2026-11-28T17:00Z", EXIT_USAGE, "plan")
    return found


FEES = click.option("--fees", type=float, default=0.0, show_default=True, help="EUR/kWh of import beside the price.")
WEAR = click.option("--wear", type=click.FloatRange(min=0), default=WEAR_EUR_PER_KWH, show_default=True,
                    help="EUR for each kWh discharged.")  # fmt: skip
EFFICIENCY = click.option("--efficiency", multiple=True, metavar="KW=SHARE",
                          help="Share kept each way at this power, once for each power; default is the site file's "
                               "[carbon] charge_efficiency and discharge_efficiency.")  # fmt: skip
OF_A_PLAN = (
    click.option("--ahead", type=click.IntRange(1, 48), default=24, show_default=True, help="Hours to plan."),
    FEES,
    click.option("--demand", type=click.FloatRange(min=0), default=0.0, help="EUR per kW of the month's peak."),
    click.option("--paid-kw", type=click.FloatRange(min=0), default=0.0, help="Peak that is on the bill already."),
    WEAR,
    EFFICIENCY,
    click.option("--backup", type=click.FloatRange(0, 48), default=0.0, metavar="HOURS",
                 help="Keep energy for an outage so long, as load and sun are forecast."),
    click.option("--carbon", type=click.FloatRange(min=0), default=0.0, metavar="EUR/KG",
                 help="What a kilogram of CO2 counts beside the bill, by the g_per_kwh that is given."),
    click.option("--backup-share", type=click.FloatRange(0, 1), default=1.0, help="Of the load that is served then."),
    click.option("--backup-covered", type=click.FloatRange(0, 0.99), default=0.0, metavar="SHARE",
                 help="Of the errors that forecasts of the load had, so many are to be covered; 0 = the middle one."),
)  # fmt: skip


def efficiency_points(given: tuple[str, ...]) -> tuple[tuple[float, float], ...]:
    """(kW, share) of each KW=SHARE; ends the command where one is none."""
    points = []
    for text in given:
        kw, _, share = text.partition("=")
        try:
            points.append((float(kw), float(share)))
        except ValueError:
            fail(f"--efficiency {text}: write KW=SHARE, such as 15=0.96", EXIT_USAGE, "plan")
    return tuple(points)


def with_wishes(command: Callable[..., None]) -> Callable[..., None]:
    """The options of OF_A_PLAN; the command gets them as `wishes`."""

    @functools.wraps(command)
    def wrapped(*words: object, ahead: int, fees: float, demand: float, paid_kw: float, wear: float,
                efficiency: tuple[str, ...], backup: float, backup_share: float, backup_covered: float,
                carbon: float, **more: object) -> None:  # fmt: skip
        points = efficiency_points(efficiency)
        wishes = Wishes(ahead, fees, demand, paid_kw, wear, points, backup, backup_share, carbon, backup_covered)
        command(*words, wishes=wishes, **more)

    for option in reversed(OF_A_PLAN):
        wrapped = option(wrapped)
    return wrapped
