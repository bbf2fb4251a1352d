"""`tidegate get`, `why`, `watch` and `set`: clients of a site's gateway."""

import json
import sys
import time

import click

from tidegate.ext.abi.image import UNITS_LIMIT
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.messages import Message
from tidegate.runtime.api.named import word_of
from tidegate.runtime.cli.common import EXIT_REFUSED, SECONDS, WATTS, echo_answer, fail, need, with_client, with_unit
from tidegate.runtime.cli.control_commands import operator_lines
from tidegate.runtime.findings.witnesses import witness_words


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
    described = client.describe()
    units = {row["name"]: row.get("unit", "") for row in described["points"]}
    own = {name: _own_name(described, name) for name in got}
    words = {name: word_of(described.get("words") or {}, own[name], units.get(own[name], ""), point.value)
             for name, point in got.items()}  # fmt: skip
    if as_json:
        said = {
            name: {"value": p.value, "quality": QUALITIES[p.quality]}
            | ({"word": word} if (word := words[name]) is not None else {})
            for name, p in got.items()
        }
        click.echo(json.dumps(said))
        return
    width = max((len(name) for name in got), default=0)
    for name, point in got.items():
        quality = "" if point.quality == 1 else f"  ({QUALITIES[point.quality]})"
        value = with_unit(point.value, units.get(own[name], ""))
        if words[name] is not None:
            value = f"{words[name]} ({point.value:.0f})"
        click.echo(f"{name:<{width}}  {value}{quality}")


def _own_name(described: Message, name: str) -> str:
    """What the image calls a point that was asked for under the name of its storage unit."""
    owner, _, signal = name.partition(".")
    names = [unit["name"] for unit in described.get("units", [])]
    is_point = any(row["name"] == name for row in described["points"])
    return f"unit{names.index(owner)}.{signal}" if owner in names and not is_point else name


@click.command()
@with_client
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as the API gives it.")
def alarms(client: Client, as_json: bool) -> None:
    """What is wrong: active and latched alarms, and what the evidence points to. Ends with 1 where there is any."""
    answer = client.ask("alarms")
    said = {key: answer.get(key, []) for key in ("alarms", "findings")}  # an older gateway has no findings
    if as_json:
        click.echo(json.dumps(said))
    else:
        for line in alarm_lines(said):
            click.echo(line)
    sys.exit(1 if said["alarms"] else 0)


def alarm_lines(said: Message) -> list[str]:
    """Alarms and findings for people."""
    lines = [] if said["alarms"] else ["no alarm is active, none is latched"]
    for one in said["alarms"]:
        state = " and ".join(word for word in ("active", "latched") if one[word])
        since = "" if one["since_s"] is None else f", for {duration(one['since_s'])}"
        lines.append(f"{one['unit']} {one['id']}: {one['text']} ({state}{since}; does: {one['reaction']})")
        remedy = one["remedy"]
        lines.append(f"  cause: {one['cause']}")
        end = f"  over when: {remedy['condition']} for {remedy['for_ms'] / 1e3:g} s"
        lines.append(end + ("; then `tidegate set ack`" if remedy["acknowledge"] else ""))
    for one in said["findings"]:
        lines += [f"> {one['title']}", f"  because: {one['because']}", f"  do: {one['remedy']}"]
    return lines


def duration(length_s: float) -> str:
    """A length of time for people."""
    for least, size, unit in ((7200, 3600, "h"), (120, 60, "min")):
        if length_s >= least:
            return f"{length_s / size:.0f} {unit}"
    return f"{length_s:.0f} s"


@click.command()
@with_client
@click.option("--json", "as_json", is_flag=True, help="One JSON object, as the API gives it.")
def why(client: Client, as_json: bool) -> None:
    """Why the setpoint is what it is."""
    told = client.why()
    if as_json:
        click.echo(json.dumps(told))
        return
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
    for cause in told.get("causes", []):
        click.echo(f"cause    {cause}")
    lease = told["lease"]
    if lease is not None:
        click.echo(f"lease    {lease['holder']} ({lease['priority']}), {lease['expires_ms']} ms left")
    if told["unenforced"]:
        click.echo(f"not enforced: {', '.join(told['unenforced'])}")
    for line in operator_lines(told.get("grid_operator")):
        click.echo(f"grid operator: {line}")
    for line in measured_lines(client):
        click.echo(f"measured {line}")
    for line in client.describe().get("first", ()):
        click.echo(f"at first {line}")
    for name, value in told["policies"].items():
        click.echo(f"policy   {name} = {value:g} by order")
    for lock in told.get("stops", {}).get("lockouts", []):
        click.echo(f"locked   by {lock['name']}: {lock['reason']}; `tidegate unlock {lock['name']}` takes it off")
    if told["stopped"]:
        held = told.get("stops", {}).get("stop")
        who = (
            f"by {held['by']} ({held['role']}, {'on site' if held['local'] else 'from another machine'})"
            if held
            else ""
        )
        click.echo(f"stopped  {who or 'by order'}; `tidegate set run` lifts it")
    if told.get("stops", {}).get("place") == "local":
        click.echo("local    orders are taken on site only; `tidegate control remote` ends that")


def measured_lines(client: Client) -> list[str]:
    """What was learnt of the grid meter and of each converter, with the bounds in which it is believed."""
    names = ("site.grid_age_s", "site.grid_age_lo_s", "site.grid_age_hi_s", "site.grid_interval_s")
    got = {name: point.value for name, point in client.get().items() if point.quality == 1}

    def learnt(unit: int, *names: str) -> list[float]:
        found = [got.get(f"unit{unit}.{name}") for name in names]
        return [one for one in found if one is not None] if None not in found else []

    age, lo, hi, interval = (got.get(name) for name in names)
    said = []
    if age is not None and lo is not None and hi is not None:
        often = f", something new every {interval:.2f} s" if interval is not None else ""
        said.append(f"grid meter: age {age:.2f} s ({lo:.2f} to {hi:.2f}){often}")
    said += [f"grid meter: {line}" for line in witness_words(client.describe().get("words") or {}, got)]
    for unit in range(UNITS_LIMIT):
        lag = learnt(unit, "dead_s", "lag_s", "lag_lo_s", "lag_hi_s")
        gain = learnt(unit, "gain", "gain_lo", "gain_hi")
        known = []
        if lag:
            known.append("dead time {:.2f} s, lag {:.2f} s ({:.2f} to {:.2f})".format(*lag))
        if gain:
            known.append("gives {:.3f} ({:.3f} to {:.3f}) of what it is told".format(*gain))
        if known:
            said.append(f"unit{unit}: " + ", ".join(known))
    return said


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
