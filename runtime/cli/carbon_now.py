"""`tidegate carbon now`: what the site, a rack, a namespace or a running job emits, before it is booked."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from tidegate.runtime.cli.common import EXIT_CONTENT, fail, with_client

if TYPE_CHECKING:
    from tidegate.runtime.api.blocking_client import Client
    from tidegate.runtime.api.messages import Message

COMMAND = "tidegate carbon now"
TOP = 20


@click.command("now")
@with_client
@click.option("--job", help="One job, by its name.")
@click.option("--namespace", help="One namespace.")
@click.option("--rack", help="One rack.")
@click.option(
    "--by", type=click.Choice(["site", "node", "rack", "namespace", "job"]), default="site", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="As the API has it.")
def now(client: "Client", job: str | None, namespace: str | None, rack: str | None, by: str, as_json: bool) -> None:
    """Carbon and energy now and since local midnight, provisional until booked; each number says what it lacks."""
    name = None
    for of, named in (("job", job), ("namespace", namespace), ("rack", rack)):
        if named is not None:
            by, name = of, named
    fields = {"of": by} if name is None else {"of": by, "name": name}
    answer = client.ask("carbon", **fields)
    if as_json:
        click.echo(json.dumps({key: answer[key] for key in ("of", "utc_s", "age_s", "late", "rows")}))
    elif answer["rows"]:
        echo_rows(answer)
    if not answer["rows"]:
        what = f"{by} {name!r} is not" if name is not None else f"no {by} is"
        fail(f"{what} among today's figures; `tidegate carbon now --by {by}` lists them", EXIT_CONTENT, COMMAND)


def echo_rows(answer: "Message") -> None:
    """Print rows for people, those with the most carbon first."""
    late = ", LATE: the sidecar has shown nothing for a minute" if answer["late"] else ""
    when = datetime.fromtimestamp(answer["utc_s"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    click.echo(f"provisional, {when}, {answer['age_s']:.0f} s old{late}")
    for row in answer["rows"][:TOP]:
        node = f" (on {row['node']})" if row["node"] else ""
        click.echo(f"{answer['of']} {row['name']}{node}")
        for span, title in (("now", "open period"), ("today", "since midnight")):
            if row.get(span):
                click.echo(f"  {title + ':':16}{figures_text(row[span])}")
        more = row.get("more") or {}
        if more.get("earlier_kg") is not None:
            click.echo(f"  {'days before:':16}{more['earlier_kwh']:.3f} kWh, {more['earlier_kg']:.3f} kg, settled")
        if row.get("difference_kwh") is not None:
            click.echo(f"  meter less what telemetry counted: {row['difference_kwh']:.3f} kWh")
    if len(answer["rows"]) > TOP:
        click.echo(f"and {len(answer['rows']) - TOP} more; --json has them all")


def figures_text(span: "Message") -> str:
    """The figures of a span on one line, and why they are not good on the next ones."""
    parts = [f"{span['energy_kwh']:.3f} kWh", f"{span['kg']:.3f} kg"]
    for key, unit in (("g_per_kwh", "g/kWh"), ("pue", "PUE")):
        if span[key] is not None:
            parts.append(f"{span[key]:.0f} {unit}" if key == "g_per_kwh" else f"{unit} {span[key]:.3f}")
    if span["renewable_direct"] is not None:
        parts.append(f"renewable {span['renewable_direct']:.1%} direct, {span['renewable_stored'] or 0.0:.1%} stored")
    lines = [", ".join(parts)]
    lines += [f"    not good: {text}" for text in span["doubts"]]
    return "\n".join(lines)
