"""Brokers on machines of their own: `tidegate hub cluster` writes their folders, `tidegate hub broker` runs one."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import click

from tidegate.runtime.cli.common import EXIT_SOFTWARE, EXIT_UNUSABLE, fail
from tidegate.runtime.cli.limit_commands import HUB_FOLDER, stop_event


@click.command("cluster")
@HUB_FOLDER
@click.option("--broker", "brokers", metavar="NAME=HOST", multiple=True, required=True,
              help="A broker's machine, as sites and the other brokers reach it: 3 of them, or 5.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="Here comes a folder for each; it holds logins and a key.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=4222, show_default=True, help="Where sites reach them.")
@click.option("--route-port", type=click.IntRange(1, 65535), default=6222, show_default=True,
              help="Where they reach each other.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 825), default=397, show_default=True, help="Their certificates last so.")
def cluster(folder: Path, brokers: tuple[str, ...], out: Path, port: int, route_port: int, days: int) -> None:
    """Let three brokers carry what comes in, instead of the hub's own; given again, it renews their certificates.

    Each folder goes to its machine, where `tidegate hub broker` runs over it. All lines are TLS by the hub's own
    authority, which it makes; those between brokers are open to its certificates only.
    """
    from tidegate.runtime.fleet.hub.broker_cluster import broker_from, members_in, write_cluster
    from tidegate.runtime.fleet.invitation import HubError
    from tidegate.runtime.state import atomic_file

    try:
        members = members_in(brokers)
        try:
            row = json.loads((folder / "hub.json").read_text())
        except FileNotFoundError:
            raise HubError(
                f"{folder}: no hub there; first: tidegate hub init --folder {folder} --database URL"
            ) from None
        before = (row.get("cluster"), row.get("cluster_port"))
        row |= {"cluster": members, "cluster_port": port}
        again = write_cluster(folder, members, out, port, route_port, days)
        broker_from(folder, row)
        atomic_file.replace(folder / "hub.json", (json.dumps(row, indent=1) + "\n").encode())
    except (HubError, OSError, ValueError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")
    for name, host in members.items():
        renewed = ", its certificate is new" if name in again else ""
        click.echo(f"{out / name}: for {host}{renewed}; there: tidegate hub broker --folder {name}")
    if before not in ((members, port), (None, None)):
        click.echo("The brokers changed: carry every folder, start `tidegate hub run` anew, and invite the sites anew.")
    elif before == (None, None):
        click.echo("Then start `tidegate hub run` anew; sites that were invited before are invited anew.")


@click.command("broker")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="As `tidegate hub cluster` made it.")
def broker(folder: Path) -> None:
    """Run one broker of a cluster, on its machine, until SIGTERM or Ctrl-C."""
    import nats.errors

    from tidegate.runtime.fleet.hub.broker import server_program
    from tidegate.runtime.fleet.hub.broker_cluster import Member, server_warning
    from tidegate.runtime.fleet.invitation import HubError

    try:
        member = Member(folder.resolve())
        version = subprocess.run([server_program(), "--version"], capture_output=True, text=True, check=False).stdout
        warning = server_warning(version)
        if warning:
            print(f"broker {member.name}: {warning}", file=sys.stderr, flush=True)

        async def serve() -> None:
            await member.run(stop_event())

        print(f"broker {member.name}: at {member.address}", flush=True)
        asyncio.run(serve())
    except (HubError, nats.errors.Error, OSError) as why:
        fail(why, EXIT_SOFTWARE, "tidegate hub")
