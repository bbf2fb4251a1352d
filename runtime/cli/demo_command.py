"""`tidegate demo`."""

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidegate.runtime.cli.common import EXIT_CONTENT, EXIT_INTERRUPTED, EXIT_SOFTWARE, fail, refuse_site

if TYPE_CHECKING:
    from tidegate.runtime.demo.demo_subject import Subject
    from tidegate.runtime.demo.runs import LiveRun, WholeRun
    from tidegate.runtime.demo.virtual_run import Trace

QUICK_LIVE_S, LIVE_S = 5.0, 30.0
QUICK_WHOLE_S = 1200.0


@click.command()
@click.option("--quick", is_flag=True, help="The same in under 20 s: a shorter live act, twenty minutes of the trace.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True, help="Folder of the report."
)
@click.option("--site", "site_path", type=click.Path(path_type=Path), help="Another simulated site file.")
@click.option("--no-live", is_flag=True, help="Only the run in virtual time.")
@click.pass_context
def demo(ctx: click.Context, quick: bool, out: Path, site_path: Path | None, no_live: bool) -> None:
    """Hold a room of 72 GPUs under its grid limit: live, then the whole trace in virtual time, then a report."""
    from tidegate.config.site import SiteError
    from tidegate.hal.sim.trace import TraceError
    from tidegate.runtime.carbon.factors.series import FactorError
    from tidegate.runtime.state.paths import SiteBusy
    from tidegate.runtime.supervisor.supervisor import StartError

    console = Console(highlight=False, soft_wrap=True)
    try:
        ctx.exit(run_demo(out, console, quick=quick, live=not no_live, site_path=site_path))
    except SiteError as error:
        refuse_site(error)
    except (TraceError, FactorError) as error:
        fail(f"{error}; nothing was started", EXIT_CONTENT, "tidegate demo")
    except (StartError, SiteBusy, OSError) as error:
        fail(error, EXIT_SOFTWARE, "tidegate demo")
    except KeyboardInterrupt:
        fail("stopped; setpoint 0 went out first", EXIT_INTERRUPTED, "tidegate demo")


def demo_site() -> Path:
    """The site file that the demo ships with."""
    import tidegate.config

    return Path(str(tidegate.config.__file__)).parent / "demo" / "site.toml"


def run_demo(
    out: Path, console: Console, *, quick: bool = False, live: bool = True, site_path: Path | None = None
) -> int:
    """Both acts and the report into `out`. -> exit code; 1 if an act did not end cleanly.

    Raises SiteError, TraceError, FactorError, StartError with what to do.
    """
    from tidegate.config.compile import compile_site
    from tidegate.config.site import load_site
    from tidegate.runtime.carbon.factors.files import factors_of
    from tidegate.runtime.demo.demo_subject import subject_of
    from tidegate.runtime.demo.live_run import live_site, run_live
    from tidegate.runtime.demo.virtual_run import run_whole, trace_of

    # Everything that may be wrong with the input is looked at before anything starts.
    site = load_site(site_path or demo_site())
    if site.simulation is None or site.simulation.load_trace is None:
        raise click.UsageError(f"{site_path}: the demo needs a [simulation] with a load_trace")
    trace = trace_of(site)
    factors_of(site.carbon.model_dump(), site.folder)
    blob = compile_site(site)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    subject = subject_of(site, trace)
    console.print(f"tidegate demo: {subject.load}; {subject.cabinet}")
    live_run = None
    if live:
        seconds = QUICK_LIVE_S if quick else LIVE_S
        start_s = site.simulation.start_s + trace.steepest_s() + (16.0 if quick else 0.0)
        console.print(
            f"live act: core, gateway, carbon sidecar and simulated plant for {seconds:g} s of the steepest minute"
        )
        folder = out / "live"
        shutil.rmtree(folder, ignore_errors=True)
        live_run = run_live(live_site(site, start_s, seconds), seconds, folder, console)
    seconds = min(QUICK_WHOLE_S, trace.seconds) if quick else trace.seconds
    console.print(f"whole run: {seconds / 3600:.2f} h in virtual time through the same core")
    whole = run_whole(site, blob, trace, out / "ledger.db", seconds)
    code = finish(out, console, whole, live_run, trace, quick, started, subject)
    return code


def finish(
    out: Path,
    console: Console,
    whole: "WholeRun",
    live: "LiveRun | None",
    trace: "Trace",
    quick: bool,
    started: float,
    subject: "Subject",
) -> int:
    """Write summary and report, print the lines."""
    from tidegate.runtime.carbon.report.totals import add_up, indicators
    from tidegate.runtime.demo.demo_report import render
    from tidegate.runtime.demo.run_summary import summary_of

    sums = add_up(whole.bodies)
    ratios = indicators(sums, whole.kinds)
    summary = summary_of(whole, live, sums, ratios, trace, quick, subject)
    (out / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = out / "report.html"
    page.write_text(render(whole, live, sums, ratios, summary, subject), encoding="utf-8")
    for line in ten_lines(summary, subject.factors):
        console.print(line)
    console.print(f"report      {page.resolve()}  ({time.monotonic() - started:.0f} s in all)")
    return 0 if live is None or (live.clean_end and not live.notes) else 1


def ten_lines(summary: dict[str, Any], factors: str) -> list[str]:
    """What the terminal says at the end, beside the path of the report."""
    v, c = summary["virtual"], summary["carbon"]
    peak, above = v["grid_peak_w"], v["energy_above_limit_wh"]
    lines = [
        f"grid peak   {peak['without'] / 1e3:.1f} kW without, {peak['with_outside_reaction'] / 1e3:.2f} kW with the "
        f"cabinet (limit {v['limit_w'] / 1e3:g} kW, outside the {v['reaction_s'] * 1e3:.0f} ms that a step needs)",
        f"above limit {above['without'] / 1e3:.2f} kWh without, {above['with']:.1f} Wh with the cabinet; "
        f"a perfect controller behind the same meter and converter: {above['floor']:.1f} Wh",
        f"speed       {v['speed_x_realtime']:.0f} x real time, {v['cycles']:,} cycles in {v['wall_s']:.1f} s",
        f"output      sha256 {v['sha256'][:16]}..., the same on every run of seed {v['seed']}",
    ]
    live = summary.get("live")
    if live:
        late, work, step = live["lateness_us"], live["work_us"], live["step_to_wire_ms"]
        said = (
            "no step answered" if step["p50"] is None else f"{step['p50']:.1f} ms median, {step['max']:.1f} ms at most"
        )
        lines += [
            f"live        load step to setpoint on the wire: {said} ({step['count']} steps)",
            f"live        lateness p50 {late['p50']:.0f}, p99 {late['p99']:.0f}, max {late['max']:.0f} us; "
            f"work p99 {work['p99']:.1f} us; {live['missed_cycles']} of {live['cycles']:,} cycles missed",
            f"core        {summary['core']['rss_mib']:.1f} MiB resident, of these {summary['core']['ring_mib']:.1f} "
            f"the recorder's last minutes; imports of numpy, zmq, pydantic: "
            f"{sum(summary['core']['imports'].values())}",
        ]
        lines += [f"lacks       {lack}" for lack in live["lacks"][:1]]
    lines += [
        f"energy      grid {c['grid_import_wh'] / 1e3:.2f}, IT {c['it_wh'] / 1e3:.2f}, cooling (a model) "
        f"{c['cooling_wh'] / 1e3:.2f} kWh; interim PUE {told(c['pue_interim'], 'not defined, no IT energy')}",
        f"carbon      {c['grid_import_g'] / 1e3:.2f} kg imported at {told(c['grid_g_per_kwh'], 'no')} g/kWh "
        f"({factors}); balance error {c['balance_error_ug']} ug",
    ]
    lines += [f"caution     {caution}" for caution in summary["cautions"]]
    return lines


def told(value: float | None, without: str) -> str:
    return without if value is None else str(value)
