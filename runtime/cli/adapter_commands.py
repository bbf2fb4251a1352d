"""`tidegate planner kubernetes`, `node-sleep`, `cooling`, `gpu-caps`: processes of their own, each with a guard."""

import contextlib
import functools
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import click

from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_UNAVAILABLE, fail, with_client
from tidegate.runtime.planner.adapter_audit import end_doubts, write_doubts
from tidegate.runtime.planner.adapter_guard import Guard

FOLDER = click.option("--folder", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True,
                      help="Of the planner: its plan is read there, the audit is written there.")  # fmt: skip
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only write down what would be ordered.")
EVERY = click.option("--every", type=click.FloatRange(1, 300), default=30.0, show_default=True,
                     help="Seconds between rounds.")  # fmt: skip
SILENT_ROUNDS = 10  # an adapter that is silent for so many rounds hangs
SILENT_S_MIN = 120.0


def noted_by(client: Client) -> Callable[[str, str], None]:
    """Notes go to the site's journal; where that cannot be reached the adapter's own file has them."""

    def note(name: str, detail: str) -> None:
        with contextlib.suppress(ClientError):
            client.ask("note", name=name, detail=detail)

    return note


def rounds(name: str, one: Callable[[], str], guard: Guard, every: float) -> None:
    """Until Ctrl-C or SIGTERM. one: a round; gives what went wrong, "" if nothing did."""
    stop, shown = threading.Event(), ""
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    while not stop.is_set():
        error = one()
        guard.beat()
        if error != shown:
            shown = error
            click.echo(f"{name}: {shown or 'answers'}", err=True)
        stop.wait(every)


def ended(guard: Guard, left: str, command: str = "planner") -> None:
    """After the last round: the guard ends too, or goes on where something could not be undone."""
    if left:
        guard.leave()
        fail(f"{left}; the guard goes on trying", EXIT_UNAVAILABLE, command)
    guard.end()


@click.command()
@with_client
@FOLDER
@click.option("--namespace", multiple=True, required=True, help="Jobs of this namespace may wait; again for more.")
@click.option("--label", default="tidegate=flexible", show_default=True, help="Only Jobs with this label.")
@click.option("--kubeconfig", type=click.Path(dir_okay=False, exists=True), default=None,
              help="How to reach the cluster; without it, as the pod that this runs in.")  # fmt: skip
@click.option("--context", default="", help="Of the kubeconfig, where it is not the current one.")
@click.option("--suspended-max", type=click.IntRange(min=0), default=50, show_default=True, help="That wait at once.")
@click.option("--wait-max", type=click.FloatRange(min=0), default=24.0, show_default=True,
              help="Hours after which a Job does not wait any more.")  # fmt: skip
@click.option("--running", is_flag=True, help="Also Jobs that run, if they have checkpoints: their pods end.")
@click.option("--let-go", is_flag=True, help="Only resume whatever an adapter has left suspended, and end.")
@DRY_RUN
@EVERY
def kubernetes(client: Client, folder: Path, namespace: tuple[str, ...], label: str, kubeconfig: str | None,
               context: str, suspended_max: int, wait_max: float, running: bool, let_go: bool, dry_run: bool,
               every: float) -> None:  # fmt: skip
    """Have Jobs of Kubernetes begin when the plan says; a process of its own, with a guard that resumes them."""
    try:
        from tidegate.runtime.planner.kubernetes_adapter import ClusterAllowed, KubernetesAdapter, put_back
        from tidegate.runtime.planner.kubernetes_cluster import ClusterError, Kubernetes
    except ModuleNotFoundError as why:
        fail(f"{why.name} is not installed: pip install 'tidegate[kubernetes]'", EXIT_UNAVAILABLE, "planner")
    undo = functools.partial(put_back, folder, namespace, label, kubeconfig or "", context, dry_run)
    try:
        if let_go:
            made = KubernetesAdapter(Kubernetes(namespace, label, kubeconfig=kubeconfig or "", context=context), folder,
                                     ClusterAllowed(dry_run=dry_run), note=noted_by(client))  # fmt: skip
            for action in made.round(let_go=True):
                click.echo(f"resumed {action.job.kind} {action.job.namespace}/{action.job.name}")
            if made.error:
                fail(made.error, EXIT_UNAVAILABLE, "planner")
            return
        allowed = ClusterAllowed(suspended_max, wait_max * 3600, running, dry_run)
        cluster = Kubernetes(namespace, label, kubeconfig=kubeconfig or "", context=context)
    except ClusterError as why:
        fail(why, EXIT_UNAVAILABLE, "planner")
    adapter = KubernetesAdapter(cluster, folder, allowed, note=noted_by(client))
    guard = Guard(undo, max(SILENT_S_MIN, SILENT_ROUNDS * every))

    def one() -> str:
        adapter.round()
        return adapter.error

    rounds("kubernetes", one, guard, every)
    adapter.round(let_go=True)
    end_doubts(folder, "kubernetes")
    ended(guard, adapter.error)


@click.command("node-sleep")
@with_client
@FOLDER
@click.option("--state", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True,
              help="The site's state folder: its telemetry says who is at rest.")  # fmt: skip
@click.option("--nodes", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True,
              help="TOML of the machines that may sleep, and the way to the power of each.")  # fmt: skip
@click.option("--asleep-max", type=click.IntRange(min=0), default=4, show_default=True, help="That sleep at once.")
@click.option("--awake-min", type=click.IntRange(min=0), default=1, show_default=True, help="Of them, always awake.")
@click.option("--rest-min", type=click.FloatRange(10, 1440), default=60.0, show_default=True,
              help="Minutes at rest before one sleeps.")  # fmt: skip
@DRY_RUN
@EVERY
def node_sleep(client: Client, folder: Path, state: Path, nodes: Path, asleep_max: int, awake_min: int,
               rest_min: float, dry_run: bool, every: float) -> None:  # fmt: skip
    """Have idle machines sleep while work may wait, as the plan says; they wake when it says run, or is gone."""
    from tidegate.runtime.carbon.live.idle_energy import servers_at_rest
    from tidegate.runtime.planner.node_power import NodeError, read_nodes
    from tidegate.runtime.planner.node_sleep import NodeSleep, SleepAllowed, wake_all
    from tidegate.runtime.telemetry.energy_store import FILE, opened

    store = opened(state)
    if store is None:
        fail(f"{state}: no {FILE}; does the site file have [[telemetry]]?", EXIT_UNAVAILABLE, "planner")

    def resting(now: float) -> dict[str, float]:
        return servers_at_rest(store, now, round(rest_min * 60))

    try:
        read = read_nodes(nodes)
        allowed = SleepAllowed(asleep_max, awake_min, dry_run=dry_run)
        adapter = NodeSleep(read, folder, allowed, resting, note=noted_by(client))
    except NodeError as why:
        fail(why, EXIT_UNAVAILABLE, "planner")
    guard = Guard(functools.partial(wake_all, folder, nodes), max(SILENT_S_MIN, SILENT_ROUNDS * every))

    def one() -> str:
        try:
            adapter.round()
        except sqlite3.Error as why:
            adapter.doubts.append(f"{state}: telemetry cannot be read ({why}): no more machines sleep")
        with contextlib.suppress(OSError):  # a full disk costs the words, not a machine's wake
            write_doubts(folder, "node-sleep", adapter.doubts)
        return "; ".join(adapter.doubts)

    rounds("node-sleep", one, guard, every)
    end_doubts(folder, "node-sleep")
    adapter.round(let_go=True)
    ended(guard, f"asked to wake and not awake yet: {', '.join(adapter.asleep)}" if adapter.asleep else "")


@click.command()
@with_client
@FOLDER
@click.option("--unit", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True,
              help="TOML of the cooling unit: its registers, and the bands that its owner allows.")  # fmt: skip
@click.option("--learn", is_flag=True, help="Until the room is known, some hours a day one degree cooler.")
@DRY_RUN
@EVERY
def cooling(client: Client, folder: Path, unit: Path, learn: bool, dry_run: bool, every: float) -> None:
    """Advise a cooling unit's set-point by the plan, and write it where its file allows; its owner's own comes back."""
    try:
        from tidegate.runtime.planner.cooling_setpoint import CoolingAllowed, CoolingSetpoint, only_one, setpoint_back
        from tidegate.runtime.planner.cooling_unit import CoolingError, ModbusCooling, read_cooling_file
        from tidegate.runtime.tools.modbus_register import line_of_site
    except ModuleNotFoundError as why:
        fail(f"{why.name} is not installed: pip install 'tidegate[cooling]'", EXIT_UNAVAILABLE, "planner")
    try:
        file = read_cooling_file(unit)
        with contextlib.suppress(ClientError):  # a room is cooled without a site, too
            if clash := line_of_site(file.registers, client.describe()["ports"]):
                fail(f"{unit}: {clash}", EXIT_CONTENT, "planner")
        allowed = CoolingAllowed(learn, dry_run)
        alone = only_one(folder, file.name)
        adapter = CoolingSetpoint(ModbusCooling(file), file, folder, allowed, note=noted_by(client))
    except CoolingError as why:
        fail(why, EXIT_CONTENT, "planner")
    name = f"cooling-{file.name}"
    guard = Guard(functools.partial(setpoint_back, folder, unit, dry_run), max(SILENT_S_MIN, SILENT_ROUNDS * every))

    def one() -> str:
        adapter.round()
        with contextlib.suppress(OSError):  # a full disk costs the words, not the set-point's end
            write_doubts(folder, name, adapter.doubts)
        return "; ".join(adapter.doubts)

    with alone:
        rounds(name, one, guard, every)
        end_doubts(folder, name)
        adapter.round(let_go=True)
    ended(guard, "; ".join(adapter.doubts) if adapter.claim is not None and not dry_run else "")


@click.command("gpu-caps")
@with_client
@FOLDER
@click.option("--gpu", multiple=True, required=True, metavar="UUID", help="May be capped; again for more. all = all.")
@click.option("--wait-share", type=click.FloatRange(0.1, 1), default=0.7, show_default=True,
              help="Of a GPU's own limit, while work may wait.")  # fmt: skip
@click.option("--shed-share", type=click.FloatRange(0.1, 1), default=0.5, show_default=True,
              help="Of a GPU's own limit, while load is to be shed.")  # fmt: skip
@DRY_RUN
@EVERY
def gpu_caps(client: Client, folder: Path, gpu: tuple[str, ...], wait_share: float, shed_share: float, dry_run: bool,
             every: float) -> None:  # fmt: skip
    """Cap the power of this machine's GPUs while the plan says so; needs root. What was before comes back."""
    try:
        from tidegate.runtime.planner.gpu_caps import CapsAllowed, GpuCaps, restore
        from tidegate.runtime.planner.gpu_devices import Nvml
    except ModuleNotFoundError as why:
        fail(f"{why.name} is not installed: pip install 'tidegate[gpu]'", EXIT_UNAVAILABLE, "planner")
    allowed = CapsAllowed(() if "all" in gpu else gpu, wait_share, shed_share, dry_run)
    guard = Guard(functools.partial(restore, folder), max(SILENT_S_MIN, SILENT_ROUNDS * every))
    caps = GpuCaps(Nvml(), folder, allowed, note=noted_by(client))

    def one() -> str:
        caps.round()
        with contextlib.suppress(OSError):  # a full disk costs the words, not the caps' end
            write_doubts(folder, "gpu-caps", caps.doubts)
        return "; ".join(caps.doubts)

    rounds("gpu-caps", one, guard, every)
    end_doubts(folder, "gpu-caps")
    caps.round(let_go=True)
    ended(guard, caps.error)
