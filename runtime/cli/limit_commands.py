"""A limit that many sites share: `tidegate hub feeder` and `share` on the hub, `tidegate fleet lease` on the unit."""

import asyncio
import json
import math
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.config.quantities import QuantityError, watts
from tidegate.runtime.cli.common import EXIT_SOFTWARE, EXIT_UNUSABLE, WATTS, fail, with_client

if TYPE_CHECKING:
    from tidegate.runtime.api.blocking_client import Client
    from tidegate.runtime.fleet.hub.broker import Broker

HUB_FOLDER = click.option("--folder", type=click.Path(path_type=Path), default=Path("hub"), show_default=True)


def broker_of(folder: Path) -> "Broker":
    """The broker of a hub's folder. Raises HubError, OSError, ValueError, KeyError."""
    from tidegate.runtime.fleet.hub.broker_cluster import broker_from
    from tidegate.runtime.fleet.invitation import HubError

    try:
        row = json.loads((folder / "hub.json").read_text())
    except FileNotFoundError:
        raise HubError(f"{folder}: no hub there; first: tidegate hub init --folder {folder} --database URL") from None
    return broker_from(folder, row)


def stop_event() -> asyncio.Event:
    """Set by SIGTERM and Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


@click.command("feeder")
@click.argument("name")
@HUB_FOLDER
@click.option("--limit", type=WATTS, required=True, help="What all its sites may import together, such as 400kW.")
@click.option("--floor", "floors", metavar="SITE=POWER", multiple=True, required=True,
              help="A site with peak_w_max of its own file, once for each.")  # fmt: skip
@click.option("--term", type=click.IntRange(5, 60), default=60, show_default=True, help="Seconds that a lease lasts.")
def feeder(name: str, folder: Path, limit: float, floors: tuple[str, ...], term: int) -> None:
    """A limit that sites share: each has its floor, `hub share` lends the rest. Given again it is corrected."""
    from tidegate.runtime.fleet.hub.limit_coordinator import Feeder, write_feeder
    from tidegate.runtime.fleet.invitation import HubError

    floors_w: dict[str, int] = {}
    try:
        for one in floors:
            site, _, power = one.rpartition("=")
            if not site or site in floors_w:
                raise HubError(f"--floor {one}: expected SITE=POWER, each site once")
            floors_w[site] = math.ceil(watts(power))
        write_feeder(folder, Feeder(name, math.floor(limit), floors_w, term))
    except (HubError, OSError, QuantityError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")
    rest_w = math.floor(limit) - sum(floors_w.values())
    click.echo(f"{name}: {rest_w} W above the floors to lend; `tidegate hub share` reads it at its start")


@click.command("share")
@HUB_FOLDER
def share(folder: Path) -> None:
    """Lend what the feeders have above their floors, until SIGTERM or Ctrl-C; first a minute after the start."""
    from tidegate.runtime.fleet.hub.limit_coordinator import Coordinator
    from tidegate.runtime.fleet.invitation import HubError

    async def serve() -> None:
        stop = stop_event()
        broker = broker_of(folder)
        coordinator = Coordinator(folder)
        await coordinator.open(broker.address, *broker.own_login(), broker.context())
        names = ", ".join(f"{one.name} {one.limit_w} W" for one in coordinator.feeders)
        print(f"hub: shares {names}; the first leases in {coordinator.waits_ms / 1000:.0f} s", flush=True)
        await stop.wait()
        await coordinator.close()

    import nats.errors

    try:
        asyncio.run(serve())
    except (HubError, nats.errors.Error, OSError, ValueError, KeyError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")


@click.command("lease")
@with_client
@click.argument("invitation", type=click.Path(path_type=Path, exists=True))
@click.option("--most", type=WATTS, required=True, help="Never ask for more import than this: what the fuse bears.")
def lease(client: "Client", invitation: Path, most: float) -> None:
    """Ask the hub for a part of a shared limit, and widen peak_w_max by it for its time; until Ctrl-C."""
    from tidegate.runtime.fleet.invitation import HubError, Invitation
    from tidegate.runtime.fleet.unit.limit_holder import LimitHolder

    async def serve() -> None:
        stop = stop_event()
        holder = LimitHolder(client, Invitation.read(invitation), int(most))
        opening = asyncio.create_task(holder.open())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            await holder.run(stop)
            await holder.close()

    import nats.errors

    try:
        asyncio.run(serve())
    except HubError as why:
        fail(why, EXIT_UNUSABLE, "tidegate fleet")
    except (nats.errors.Error, OSError) as why:
        fail(why, EXIT_SOFTWARE, "tidegate fleet")
