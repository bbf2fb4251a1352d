"""`tidegate policy` and `tidegate schedule`: what the control aims at while the site runs, and by the clock."""

import json
import time
import tomllib
from datetime import datetime
from pathlib import Path

import click
import msgspec

from tidegate.config import calendar
from tidegate.config.quantities import QuantityError, watts
from tidegate.config.zones import zone_of
from tidegate.ext.abi.settings import POLICY_BY_NAME
from tidegate.hal.description import SiteHead, Slot
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.messages import Message
from tidegate.runtime.cli.common import SECONDS, echo_answer, with_client


@click.command()
@with_client
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option(
    "--for", "for_s", type=SECONDS, help="For so long, such as 2h; else until it is set again or the core restarts."
)
def policy(client: Client, name: str | None, value: str | None, for_s: float | None) -> None:
    """Set NAME of [control] to VALUE: a number, `off`, or `site` for the site file's own; nothing lists what is set.

    What is tighter holds at once; what is wider needs the role maintain.
    """
    if name is None or value is None:
        told = client.why()
        for key, number in told["policies"].items():
            click.echo(f"{key} = {number:g}")
        if not told["policies"]:
            click.echo("all as in the site file")
        return
    if value in ("off", "site"):
        echo_answer(client.policy(name, off=value == "off", for_s=for_s))
    else:
        echo_answer(client.policy(name, policy_value(name, value), for_s=for_s))


def policy_value(name: str, text: str) -> float:
    """A share or a power, as the policy wants it. Raises click.BadParameter."""
    try:
        return float(text) if name in POLICY_BY_NAME and POLICY_BY_NAME[name].is_share else watts(text)
    except QuantityError as error:
        raise click.BadParameter(str(error)) from None
    except ValueError:
        raise click.BadParameter(f"{name}: {text!r}: expected a number") from None


@click.group("grid-operator")
def grid_operator() -> None:
    """An order of the grid's operator, above every lease, plan and policy: a limit, a stop; its end has its proof."""


@grid_operator.command("limit")
@with_client
@click.argument("power")
@click.option("--export", "exports", is_flag=True, help="POWER limits the export; else the import.")
@click.option("--for", "for_s", type=SECONDS, required=True, help="For so long, such as 2h; then it ends by itself.")
@click.option("--reference", default="", help="The operator's own name of the order.")
def operator_limit(client: Client, power: str, exports: bool, for_s: float, reference: str) -> None:
    """Hold the import (or the export) below POWER, such as 20kW; the same again lasts longer."""
    try:
        limit_w = watts(power)
    except QuantityError as error:
        raise click.BadParameter(str(error)) from None
    echo_answer(
        client.grid_operator(
            import_w_max=None if exports else limit_w, export_w_max=limit_w if exports else None, for_s=for_s,
            reference=reference,
        )
    )  # fmt: skip


@grid_operator.command("stop")
@with_client
@click.option("--for", "for_s", type=SECONDS, required=True, help="For so long, such as 2h; then it ends by itself.")
@click.option("--reference", default="", help="The operator's own name of the order.")
def operator_stop(client: Client, for_s: float, reference: str) -> None:
    """No battery power."""
    echo_answer(client.grid_operator(stop=True, for_s=for_s, reference=reference))


@grid_operator.command("clear")
@with_client
def operator_clear(client: Client) -> None:
    """End the order before its time; that of another needs the role maintain."""
    echo_answer(client.release_grid_operator())


@grid_operator.command("show")
@with_client
def operator_show(client: Client) -> None:
    """What is in force, until when, and what the grid meter showed since."""
    click.echo("\n".join(operator_lines(client.why().get("grid_operator"))) or "no order of the grid's operator")


def operator_lines(told: Message | None) -> list[str]:
    """The order in force as `why` has it, a line each; none where there is none."""
    if told is None:
        return []
    measured, left_s = told["measured"], told["left_ms"] / 1e3
    said = [f"{told['text']}, by {told['peer']}, {left_s:.0f} s left"]
    if measured["mean_w"] is not None:
        said.append(
            f"since then: mean {measured['mean_w']:.0f} W over {measured['covered_s']:.0f} s; "
            f"above the limit for {measured['above_s']:.0f} s, {measured['above_wh']:.1f} Wh"
        )
    return said


@click.command()
@with_client
@click.argument("plan", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--clear", is_flag=True, help="End the plan that holds.")
@click.option("--days", type=click.IntRange(1, 14), default=2, show_default=True, help="How far to show the calendar.")
def schedule(client: Client, plan: Path | None, clear: bool, days: int) -> None:
    """Send a PLAN (TOML: [[step]] with start, end = ...), or show the calendar of the site."""
    if clear:
        echo_answer(client.schedule([], 0))
    elif plan is not None:
        steps, end_utc_s = read_plan(plan)
        echo_answer(client.schedule(steps, end_utc_s))
    else:
        described = client.describe()
        site = msgspec.convert(described["site"], SiteHead)
        zone = zone_of(site.timezone)
        rows = msgspec.convert(described.get("schedule") or [], list[Slot])
        now_s = int(time.time())
        for span in calendar.spans(rows, zone, now_s, now_s + days * 86_400, calendar.holidays_of(rows, site)):
            slot = rows[span.slot]
            said = {
                key: value for key in (*calendar.FIELDS, "forced") if (value := getattr(slot, key)) not in (None, False)
            }
            begin, end = (datetime.fromtimestamp(t_s, zone) for t_s in (span.start_utc_s, span.end_utc_s))
            click.echo(f"{begin:%a %Y-%m-%d %H:%M %z} to {end:%a %H:%M %z}  {slot.name}: {json.dumps(said)}")
        if not rows:
            click.echo("the site file has no [[schedule]]")


def read_plan(path: Path) -> tuple[list[dict[str, object]], int]:
    """(steps, end in UTC s) of a plan file. Raises ValueError with the step and what is wrong with it."""

    def utc_s(value: object, where: str) -> int:
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError(f"{path}: {where}: expected a time with its offset, such as 2026-11-25T17:00:00+01:00")
        return int(value.timestamp())

    try:
        raw = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as why:
        raise ValueError(f"{path}: is not TOML: {why}") from None
    rows = raw.get("step")
    if not isinstance(rows, list) or not rows or set(raw) - {"step", "end"}:
        raise ValueError(f"{path}: expected end = TIME and [[step]] tables, nothing else")
    steps = []
    for i, row in enumerate(rows):
        unknown = set(row) - {"start", "forced", *calendar.FIELDS}
        if unknown:
            raise ValueError(
                f"{path}: step[{i}]: unknown key {sorted(unknown)[0]}; "
                f"known: start, forced, {', '.join(calendar.FIELDS)}"
            )
        steps.append(
            {
                "start_utc_s": utc_s(row.get("start"), f"step[{i}].start"),
                **{k: v for k, v in row.items() if k != "start"},
            }
        )
    return steps, utc_s(raw.get("end"), "end")
