"""`tidegate hub` keeps the ledgers of many sites; `tidegate fleet` sends a site's ledger there."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.runtime.cli import cluster_commands, hub_report_commands, limit_commands, rollout_commands, unit_commands
from tidegate.runtime.cli.common import EXIT_SOFTWARE, EXIT_UNUSABLE, EXIT_USAGE, fail

if TYPE_CHECKING:
    from tidegate.runtime.fleet.hub.broker import Broker
    from tidegate.runtime.fleet.hub.hub_store import HubStore
    from tidegate.runtime.fleet.unit.site_sender import Sender

FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("hub"),
    show_default=True,
    help="Logins, broker, settings.",
)


@click.group()
def hub() -> None:
    """Keep the ledgers of many sites in one PostgreSQL, each entry checked as it comes."""


@hub.command("init")
@FOLDER
@click.option("--database", required=True, help="postgresql+psycopg://USER@HOST/NAME, an empty database.")
@click.option("--listen", default="127.0.0.1:4222", show_default=True, help="HOST:PORT that sites reach.")
@click.option("--tls-cert", type=click.Path(path_type=Path, exists=True), help="PEM; needed away from 127.0.0.1.")
@click.option("--tls-key", type=click.Path(path_type=Path, exists=True), help="PEM of that certificate's key.")
def init(folder: Path, database: str, listen: str, tls_cert: Path | None, tls_key: Path | None) -> None:
    """Make FOLDER and the tables. Once; the other commands read it there."""
    from tidegate.runtime.carbon.ledger.store import LedgerError
    from tidegate.runtime.fleet.hub.broker_cluster import broker_from
    from tidegate.runtime.fleet.hub.hub_store import HubStore
    from tidegate.runtime.fleet.invitation import HubError

    if (tls_cert is None) != (tls_key is None):
        fail("--tls-cert and --tls-key belong together", EXIT_USAGE, "tidegate hub")
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        fail(f"--listen {listen}: expected HOST:PORT", EXIT_USAGE, "tidegate hub")
    row = {"database": database, "host": host, "port": int(port),
           "tls": [str(tls_cert.resolve()), str(tls_key.resolve())] if tls_cert and tls_key else None}  # fmt: skip
    try:
        if (folder / "hub.json").exists():
            raise HubError(f"{folder}: there is a hub already")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        broker_from(folder, row)
        HubStore(database).close()
        (folder / "hub.json").write_text(json.dumps(row, indent=1) + "\n")
    except (HubError, LedgerError, OSError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")
    click.echo(f"{folder}: made. Next: tidegate hub run --folder {folder}")


def _opened(folder: Path) -> "tuple[Broker, HubStore]":
    """Broker and store of a folder; ends the program where there is none."""
    from tidegate.runtime.carbon.ledger.store import LedgerError
    from tidegate.runtime.fleet.hub.broker_cluster import broker_from
    from tidegate.runtime.fleet.hub.hub_store import HubStore
    from tidegate.runtime.fleet.invitation import HubError

    try:
        row = json.loads((folder / "hub.json").read_text())
        return broker_from(folder, row), HubStore(row["database"])
    except FileNotFoundError:
        fail(f"{folder}: no hub there; first: tidegate hub init --folder {folder} --database URL", EXIT_UNUSABLE)
    except (OSError, ValueError, KeyError, TypeError, HubError, LedgerError) as why:
        fail(f"{folder}: {why}", EXIT_UNUSABLE, "tidegate hub")


@hub.command("run")
@FOLDER
def run_hub(folder: Path) -> None:
    """Run the broker and the ingest until SIGTERM or Ctrl-C."""
    from tidegate.runtime.fleet.hub.broker_cluster import Cluster
    from tidegate.runtime.fleet.hub.hub_admission import Admission
    from tidegate.runtime.fleet.hub.hub_ingest import Ingest
    from tidegate.runtime.fleet.hub.hub_life import HubLife
    from tidegate.runtime.fleet.invitation import HubError

    broker, store = _opened(folder)
    life = HubLife.of(json.loads((folder / "hub.json").read_text())["database"])

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        keeping = asyncio.create_task(broker.keep(stop)) if isinstance(broker, Cluster) else None
        ingest = Ingest(store, broker.replicas)
        await ingest.open(broker.address, *broker.own_login(), broker.context())
        admission = Admission(broker, life, store)
        await admission.open()
        print(f"hub: listens at {broker.address}, {len(store.sites())} sites enrolled", flush=True)
        running = asyncio.create_task(ingest.run(stop))
        while not stop.is_set() and not running.done():
            if not broker.alive():
                print("hub: the broker ended; starting it again", file=sys.stderr, flush=True)
                broker.start()
            await asyncio.sleep(0.5)
        await running
        if keeping is not None:
            await keeping
        await ingest.close()
        await admission.close()
        print(f"hub: ended, {ingest.taken} entries taken", flush=True)

    import nats.errors

    try:
        problem = broker.certificate_problem()
        if problem:
            print(f"hub: {problem}", file=sys.stderr, flush=True)
        broker.start()
        asyncio.run(serve())
    except (HubError, nats.errors.Error, OSError) as why:
        fail(why, EXIT_SOFTWARE, "tidegate hub")
    finally:
        broker.stop()
        store.close()
        life.close()


@hub.command("invite")
@click.argument("site")
@FOLDER
@click.option("--key", required=True, help="The unit's public key: `tidegate fleet key LEDGER` on the unit prints it.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File that the unit needs; keep it secret.")
def invite(site: str, folder: Path, key: str, out: Path) -> None:
    """Let SITE in: its ledger, signed with this key, is taken; OUT holds its login."""
    from tidegate.runtime.fleet.invitation import HubError

    broker, store = _opened(folder)
    try:
        if out.exists():
            raise HubError(f"{out}: is there already")
        store.enrol(site, key)
        broker.invite(site).write(out)
    except (HubError, OSError) as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")
    click.echo(f"{out}: written. On the unit: tidegate fleet run {out} --ledger LEDGER")


@hub.command("sites")
@FOLDER
def sites(folder: Path) -> None:
    """Every site: entries that are here, when it was heard, and what is wrong; what is wrong first."""
    _, store = _opened(folder)
    now_s = int(time.time())
    for line in store.sites():
        heard = f"heard {now_s - line.heard_utc_s} s ago" if line.heard_utc_s else "never heard"
        ahead = f"{line.ahead_s} s ahead of this clock: kept; which clock is wrong?" if line.ahead_s else ""
        what = line.said or ahead or "whole"
        click.echo(f"{line.site}: {line.seq + 1} entries, {heard}, key {line.key[:16]}..., {what}")


@hub.command("accept")
@click.argument("site")
@FOLDER
@click.option("--by", required=True, help="Who accepts it.")
@click.option("--reason", required=True, help="Why.")
def accept(site: str, folder: Path, by: str, reason: str) -> None:
    """SITE went on from a backup: go on with it. What it lost is set aside here, with name and reason."""
    from tidegate.runtime.fleet.invitation import HubError

    _, store = _opened(folder)
    try:
        count = store.accept_restored(site, by, reason)
    except HubError as why:
        fail(why, EXIT_UNUSABLE, "tidegate hub")
    click.echo(f"{site}: goes on from its backup; {count} entries of before are set aside")


hub_report_commands.add_to(hub)


@click.group()
def fleet() -> None:
    """Send this site's ledger to a hub."""


@fleet.command("key")
@click.argument("ledger")
def key(ledger: str) -> None:
    """The public key that signs LEDGER, for `tidegate hub invite`."""
    from tidegate.runtime.carbon.ledger.ledger import Ledger, LedgerError

    try:
        found = Ledger(ledger, read_only=True).signer()
    except LedgerError as why:
        fail(why, EXIT_UNUSABLE, "tidegate fleet")
    if found is None:
        fail(f"{ledger}: nothing is signed yet; the first block comes within a day", EXIT_UNUSABLE, "tidegate fleet")
    click.echo(found)


@fleet.command("run")
@click.argument("invitation", type=click.Path(path_type=Path, exists=True))
@click.option("--ledger", required=True, help="The site's ledger.")
@click.option("--kb-s", type=click.FloatRange(0.1), help="At most so many kilobytes a second.")
@click.option("--site", help="Also its condition, events and minutes: name of the site that runs on this machine.")
def run_sender(invitation: Path, ledger: str, kb_s: float | None, site: str | None) -> None:
    """Send what the hub has not got, until SIGTERM or Ctrl-C. Whatever is away meanwhile is sent afterwards."""
    from tidegate.runtime.fleet.unit.lean_nats import import_lean_nats

    import_lean_nats()
    from tidegate.runtime.fleet.invitation import HubError, Invitation
    from tidegate.runtime.fleet.unit.site_sender import Sender

    try:
        invited = Invitation.read(invitation)
    except HubError as why:
        fail(why, EXIT_UNUSABLE, "tidegate fleet")

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        sender = Sender(ledger, invited, bytes_s_max=None if kb_s is None else kb_s * 1000)
        opening = asyncio.create_task(sender.open())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            beside = None if site is None else asyncio.create_task(_send_condition(sender, site, kb_s, stop))
            await sender.run(stop)
            if beside is not None:
                await beside
            await sender.close()

    import nats.errors

    try:
        asyncio.run(serve())
    except (nats.errors.Error, OSError) as why:
        fail(f"{invited.address}: {why}", EXIT_SOFTWARE, "tidegate fleet")


async def _send_condition(sender: "Sender", site: str, kb_s: float | None, stop: asyncio.Event) -> None:
    """How the site on this machine is, its events and minutes, beside its ledger."""
    from tidegate.runtime.api.async_client import AsyncClient
    from tidegate.runtime.api.connection import ClientError
    from tidegate.runtime.fleet.site_condition import ConditionReader
    from tidegate.runtime.fleet.unit.condition_sender import ConditionSender
    from tidegate.runtime.state import paths

    def report(text: str) -> None:
        print(f"fleet: {text}", file=sys.stderr, flush=True)

    name, bytes_s_max = sender.invitation.site, None if kb_s is None else kb_s * 1000
    while not stop.is_set():
        try:
            async with AsyncClient(site=site) as client:
                reader = ConditionReader(client, name, paths.state_dir(site) / "web")
                await ConditionSender(sender.client, reader, name, report, bytes_s_max).run(stop)
        except (ClientError, OSError, ValueError) as why:
            report(f"the site {site} is not there: {why}; asking again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 30.0)


hub.add_command(cluster_commands.cluster)
hub.add_command(cluster_commands.broker)
hub.add_command(limit_commands.feeder)
hub.add_command(limit_commands.share)
fleet.add_command(limit_commands.lease)
unit_commands.add_to(hub, fleet)
rollout_commands.add_to(hub, fleet)
