"""The live act: every process of the product on the steepest minute of the trace, over real wire protocols."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tidegate.config.site import Site
from tidegate.ext.abi.copies import Histogram
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.messages import Message
from tidegate.runtime.demo.runs import LiveRun
from tidegate.runtime.demo.virtual_run import simulation_of

HEAVY = ("numpy", "zmq", "pydantic")


def live_site(site: Site, start_s: float, seconds: float) -> Site:
    """The demo's site, its trace cut to the part that the live act shows; its files by whole path."""
    simulation, name = simulation_of(site)
    trace = str(site.folder / name)
    simulation = simulation.model_copy(update={"start_s": start_s, "length_s": seconds + 60.0, "load_trace": trace})
    factors = str(site.folder / site.carbon.factors) if site.carbon.factors else None
    return site.model_copy(
        update={"simulation": simulation, "carbon": site.carbon.model_copy(update={"factors": factors})}
    )


def run_live(site: Site, seconds: float, folder: Path, console: Console) -> LiveRun:
    """Run core, gateway, sidecar and simulated plant for `seconds`; give what they measured of themselves.

    folder : gets the children's messages, journal and ledger. Raises StartError if a process does not start.
    """
    from tidegate.runtime.supervisor.supervisor import Supervisor

    folder.mkdir(parents=True, exist_ok=True)
    limit_w = float(min(value for value in (site.control.peak_w_max, site.limits.connection_import_w_max) if value))
    peak_w = 0.0
    gaps = 0
    with (folder / "live.log").open("wb") as log:
        supervisor = Supervisor(site, out=console.print, log=log, runtime=folder / "run", state=folder / "state")
        with supervisor:
            shared = supervisor.shared
            assert shared is not None
            pid = supervisor.children["core"].pid
            with supervisor.client() as client:
                client.run()
                _settle(client)
                lateness0, work0 = shared.histogram("lateness"), shared.histogram("work")
                counters0 = shared.loop_counters()
                until = time.monotonic() + seconds
                messages = client.subscribe("snapshot", "meter")
                with _screen(console) as show:
                    while time.monotonic() < until and not supervisor.wait(0.0):
                        message = messages.receive(0.2)
                        if message is None:
                            continue
                        if message["kind"] == "gap":
                            gaps += int(message["count"])
                        elif message["kind"] == "snapshot":
                            grid = message["points"].get("site.grid_w", [None])[0]
                            peak_w = max(peak_w, grid or 0.0)
                            show(message, limit_w, until - time.monotonic())
                messages.close()
            lateness, work = shared.histogram("lateness").since(lateness0), shared.histogram("work").since(work0)
            counters = {name: value - counters0.get(name, 0) for name, value in shared.loop_counters().items()}
            rss_kib, threads = _status(pid)
            ring_kib = int(supervisor.core_said.get("ring_kib", 0))
            imports = {
                name: name in supervisor.core_said.get("heavy_imports", []) or _mapped(pid, name) for name in HEAVY
            }
            failure = supervisor.failure
            code = supervisor.stop()
            metered = shared.meter_head
        records = supervisor.children["carbon"].records() if "carbon" in supervisor.children else []
        booked = next((int(one["records"]) for one in reversed(records) if one.get("carbon") == "ended"), -1)
        answers = [float(ms) for one in supervisor.results for ms in one.get("step_to_wire_ms", [])]
    notes = []
    if failure:
        notes.append(failure)
    if booked != metered:
        notes.append(f"the sidecar booked {booked} of {metered} meter records")
    return LiveRun(
        seconds=seconds,
        period_us=site.site.period_us,
        cycles=counters.get("cycles", 0),
        missed=counters.get("missed", 0),
        lateness_us=_marks(lateness),
        work_us=_marks(work),
        lateness=lateness.buckets,
        work=work.buckets,
        step_to_wire_ms=answers,
        lacks=list(supervisor.core_said.get("lacks", [])),
        core_rss_kib=rss_kib,
        core_ring_kib=ring_kib,
        core_threads=threads,
        core_imports=imports,
        meter_records=metered,
        meter_booked=booked,
        meter_gaps=gaps,
        grid_peak_w=peak_w,
        limit_w=limit_w,
        clean_end=code == 0 and not failure,
        notes=notes,
    )


def _settle(client: Client, timeout_s: float = 5.0) -> None:
    """Wait until the site runs: armed, every signal seen."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        mode = client.get("site.mode")["site.mode"].value
        if mode is not None and int(mode) in (3, 4):  # run, derated
            return
        time.sleep(0.1)


def _marks(histogram: Histogram) -> dict[str, float]:
    if not histogram.count:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    marks = {name: histogram.percentile(percent) / 1e3 for name, percent in (("p50", 50), ("p99", 99))}
    return {**marks, "max": histogram.max / 1e3}


def _status(pid: int) -> tuple[int, int]:
    """(resident KiB, threads) of a process."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(rows["VmRSS"].split()[0]), int(rows["Threads"])


def _mapped(pid: int, package: str) -> bool:
    """Whether a compiled module of a package is mapped into a process."""
    try:
        return f"{os.sep}{package}{os.sep}" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


class _screen:
    """A live table on a terminal; nothing but a line at the start elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._last = 0.0

    def __enter__(self) -> Callable[[Message, float, float], None]:
        if self._live is not None:
            self._live.__enter__()
        return self.show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, message: Message, limit_w: float, left_s: float) -> None:
        if self._live is None or time.monotonic() - self._last < 0.12:
            return
        self._last = time.monotonic()
        self._live.update(live_table(message, limit_w, left_s))


def live_table(message: Message, limit_w: float, left_s: float) -> Table:
    """What the terminal shows of one snapshot."""
    from tidegate.ext.abi.image import MODES_BY_NUMBER, REASONS_BY_NUMBER

    points = message["points"]

    def value(name: str) -> float:
        point = points.get(name)
        return float("nan") if point is None or point[0] is None else float(point[0])

    def name_of(names: Sequence[str], code: float) -> str:
        return str(names[int(code)]) if code == code and 0 <= int(code) < len(names) else "-"

    def bar(w: float, scale_w: float, width: int = 36) -> str:
        if w != w:
            return ""
        filled = min(width, max(0, round(abs(w) / scale_w * width)))
        return ("█" * filled).ljust(width)

    grid, load, ess = value("site.grid_w"), value("site.load_w"), value("site.ess_w")
    soc = next((point[0] for name, point in points.items() if name.endswith(".soc") and point[0] is not None), None)
    loop = message.get("loop", {})
    table = Table(
        title=f"live: {left_s:4.0f} s left", title_justify="left", box=None, pad_edge=False, show_header=False
    )
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    top = max(65_000.0, limit_w * 1.3)
    over = "bold red" if grid > limit_w * 1.005 else "blue"
    table.add_row("compute room", f"{load / 1e3:6.2f} kW", f"[white]{bar(load, top)}[/]")
    table.add_row("grid", f"{grid / 1e3:6.2f} kW", f"[{over}]{bar(grid, top)}[/] limit {limit_w / 1e3:g} kW")
    table.add_row("battery", f"{ess / 1e3:+6.2f} kW", f"[yellow]{bar(ess, top)}[/] {'gives' if ess > 0 else 'takes'}")
    table.add_row("state of charge", "-" if soc is None else f"{soc * 100:5.2f} %", "")
    table.add_row("why", "", name_of(REASONS_BY_NUMBER, value("site.reason")))
    table.add_row("mode", "", name_of(MODES_BY_NUMBER, value("site.mode")))
    late = loop.get("lateness", {}) if isinstance(loop.get("lateness"), dict) else {}
    table.add_row(
        "cycle", f"{message['cycle']}", f"missed {loop.get('missed', '-')}, lateness p99 {_us(late.get('p99'))}"
    )
    return table


def _us(ns: float | None) -> str:
    return "-" if ns is None else f"{float(ns) / 1e3:.0f} us"
