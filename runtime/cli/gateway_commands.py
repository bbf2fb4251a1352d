"""`tidegate get`, `why`, `watch` and `set`: clients of a site's gateway."""

import json
import time

import click

from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.cli.common import EXIT_REFUSED, SECONDS, WATTS, echo_answer, fail, need, with_client, with_unit


@click.command()
@with_client
@click.argument("points", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def get(client: Client, points: tuple[str, ...], as_json: bool) -> None:
    """Present values of POINTS; a word that ends in . gives all that begin so; none gives all."""
    from tidegate.runtime.api.messages import QUALITIES

    exact = [name for name in points if not name.endswith(".")]
    starts = tuple(name for name in points if name.endswith("."))
    got = client.get(*exact) if exact and not starts else client.get()
    if points:
        got = {name: point for name, point in got.items() if name in exact or (starts and name.startswith(starts))}
    if as_json:
        click.echo(json.dumps({name: {"value": p.value, "quality": QUALITIES[p.quality]} for name, p in got.items()}))
        return
    units = {row["name"]: row.get("unit", "") for row in client.describe()["points"]}
    width = max((len(name) for name in got), default=0)
    for name, point in got.items():
        quality = "" if point.quality == 1 else f"  ({QUALITIES[point.quality]})"
        click.echo(f"{name:<{width}}  {with_unit(point.value, units.get(name, ''))}{quality}")


@click.command()
@with_client
def why(client: Client) -> None:
    """Why the setpoint is what it is."""
    told = client.why()
    click.echo(f"setpoint {with_unit(told['setpoint_w'], 'W')}, because of: {told['reason']} (mode {told['mode']})")
    click.echo(f"request  {with_unit(told['request_w'], 'W')}, preferred by: {told['preference']}")
    for name in ("corridor", "envelope"):
        click.echo(f"{name:<8} {with_unit(told[f'{name}_lo_w'], 'W')} to {with_unit(told[f'{name}_hi_w'], 'W')}")
    grid = ", ".join(f"{name} {with_unit(told[f'{name}_w'], 'W')}" for name in ("grid", "load", "ess", "grid_limit"))
    click.echo(f"site     {grid}")
    if told["shortfall_w"]:
        click.echo(f"short of the limit by {with_unit(told['shortfall_w'], 'W')}")
    for name in ("faults", "latches"):
        click.echo(f"{name:<8} {', '.join(told[name]) or 'none'}")
    lease = told["lease"]
    if lease is not None:
        click.echo(f"lease    {lease['holder']} ({lease['priority']}), {lease['expires_ms']} ms left")
    if told["unenforced"]:
        click.echo(f"not enforced: {', '.join(told['unenforced'])}")
    for name, value in told["policies"].items():
        click.echo(f"policy   {name} = {value:g} by order")
    if told["stopped"]:
        click.echo("stopped  by order; `tidegate set run` lifts it")


@click.command()
@with_client
@click.option("--json", "as_json", is_flag=True, help="Messages as JSON lines instead of the table.")
@click.option("--topic", "-t", multiple=True, help="snapshot, meter, event (with --json).")
@click.option("--count", "-n", type=int, help="End after so many messages.")
def watch(client: Client, as_json: bool, topic: tuple[str, ...], count: int | None) -> None:
    """Watch the site live."""
    if not as_json:
        module = need("tidegate.runtime.cli.watch", "tools")
        module.watch_live(client, count)
        return
    heard = client.subscribe(*(topic or ("event", "meter")))
    for number, message in enumerate(heard, 1):
        click.echo(json.dumps(message))
        if count is not None and number >= count:
            return


@click.command("set", context_settings={"ignore_unknown_options": True})
@with_client
@click.argument("what", type=click.Choice(["setpoint", "import-limit", "export-limit", "stop", "run", "ack"]))
@click.argument("value", type=WATTS, required=False)
@click.option("--for", "for_s", type=SECONDS, default="30s", show_default=True,
              help="How long a setpoint or a limit holds.")  # fmt: skip
@click.option("--priority", type=click.Choice(["optimiser", "ems", "maintenance"]), default="ems", show_default=True)
def set_(client: Client, what: str, value: float | None, for_s: float, priority: str) -> None:
    """Order a setpoint or a limit for a time, or stop, run, ack.

    A setpoint is held by this command under a lease: ending it (Ctrl-C) gives the setpoint back at once.
    """
    if what in ("stop", "run", "ack"):
        if value is not None:
            raise click.UsageError(f"set {what} takes no value")
        echo_answer({"stop": client.stop, "run": client.run, "ack": client.ack}[what]())
        return
    if value is None:
        raise click.UsageError(f"set {what} needs a value in W, such as 5kW")
    if what == "setpoint":
        hold_setpoint(client, value, for_s, priority)
    else:
        side = "import_w_max" if what == "import-limit" else "export_w_max"
        echo_answer(client.limit(**{side: value}, for_s=for_s))


def hold_setpoint(client: Client, setpoint_w: float, for_s: float, priority: str) -> None:
    """Order a setpoint and renew its lease until the time is over."""
    with client.lease(priority) as lease:
        echo_answer(lease.setpoint(setpoint_w, for_s))
        until = time.monotonic() + for_s
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            if lease.lost:
                fail(f"the lease was lost: {lease.lost}", EXIT_REFUSED)
