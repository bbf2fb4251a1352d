"""The command line, `tidegate`.

Each command imports what it needs when it runs, so that `--help` is quick and a missing extra is named by the command
that wants it.
"""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import click

EXIT_BUSY = 75  # EX_TEMPFAIL: the site is already run
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE: no gateway answers
EXIT_REFUSED = 77  # EX_NOPERM: the gateway refused
EXIT_SOFTWARE = 70


def fail(text: str, code: int) -> NoReturn:
    """Say what is wrong and end."""
    click.echo(f"tidegate: {text}", err=True)
    sys.exit(code)


def need(module: str, extra: str) -> Any:
    """Import a module of an extra, or say which extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as why:
        missing = why.name or ""
        if missing.startswith("tidegate"):
            fail(f"this build has no {missing}", EXIT_UNAVAILABLE)
        fail(f"{missing} is not installed; run: pip install 'tidegate[{extra}]'", EXIT_UNAVAILABLE)


class Lazy(click.Group):
    """A group whose commands may live in other modules that are imported when they are asked for.

    elsewhere : command name -> (module:attribute, extra, one line of help).
    """

    elsewhere: ClassVar[dict[str, tuple[str, str, str]]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.elsewhere})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        found = super().get_command(ctx, name)
        if found is not None or name not in self.elsewhere:
            return found
        place, extra, _ = self.elsewhere[name]
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(need(module, extra), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            if name in self.elsewhere and name not in self.commands:
                rows.append((name, self.elsewhere[name][2]))
            else:
                command = self.commands[name]
                if not command.hidden:
                    rows.append((name, command.get_short_help_str(90)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Tidegate(Lazy):
    elsewhere: ClassVar[dict[str, tuple[str, str, str]]] = {
        "carbon": ("tidegate.runtime.cli.carbon_commands:carbon", "carbon", "Energy and carbon: book, report, verify."),
        "demo": (
            "tidegate.runtime.cli.demo_command:demo",
            "carbon",
            "The whole chain on a GPU cluster's power, with a report.",
        ),
        "devices": ("tidegate.runtime.cli.device_commands:devices", "tools", "Shipped device maps and what they know."),
        "scan": ("tidegate.runtime.cli.device_commands:scan", "tools", "Look for devices on a bus."),
        "read": ("tidegate.runtime.cli.device_commands:read", "tools", "Read a device once."),
        "sniff": ("tidegate.runtime.cli.device_commands:sniff", "tools", "Listen to a bus."),
        "simulate": ("tidegate.runtime.cli.simulate:simulate", "sim", "A simulated cabinet behind ptys, to talk to."),
        "commission": (
            "tidegate.runtime.cli.commission_command:commission",
            "commission",
            "Move the battery a little, measure, sign a protocol.",
        ),
        "doctor": (
            "tidegate.runtime.cli.doctor_command:doctor",
            "tools",
            "What the machine lacks and costs.",
        ),
        "init": ("tidegate.runtime.cli.init_command:init", "tools", "Look at the buses, draft a site file."),
        "record": ("tidegate.runtime.cli.recording_commands:record", "recorder", "Write the last minutes to a file."),
        "replay": (
            "tidegate.runtime.cli.recording_commands:replay",
            "recorder",
            "Run the core over a recording again.",
        ),
        "keys": ("tidegate.runtime.cli.key_commands:keys", "gateway", "Keys and roles of remote clients."),
        "console": ("tidegate.runtime.cli.console_command:console", "", "The serial console, in this terminal."),
        "policy": (
            "tidegate.runtime.cli.control_commands:policy",
            "gateway",
            "Another limit or wish while the site runs.",
        ),
        "schedule": (
            "tidegate.runtime.cli.control_commands:schedule",
            "gateway",
            "The calendar and a plan by the clock.",
        ),
        "export": ("tidegate.runtime.cli.export_commands:export", "export", "Prometheus, Modbus TCP, MQTT."),
    }


@click.group(cls=Tidegate, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidegate", prog_name="tidegate")
def main() -> None:
    """Millisecond controller and carbon accountant for a battery cabinet beside a compute room."""


# ---- a site ----


def refuse_site(why: Any) -> NoReturn:
    """Show every problem of a site and end with the class of the worst."""
    for problem in why.problems:
        click.echo(f"{why.path}: {problem}", err=True)
    count = len(why.problems)
    click.echo(f"{why.path}: {count} problem{'s' if count > 1 else ''}; nothing was started", err=True)
    sys.exit(why.exit_code)


@main.command()
@click.argument("site", type=click.Path(path_type=Path))
def check(site: Path) -> None:
    """Check a site file; say what is wrong, or what it would do."""
    from tidegate.config.site import SiteError
    from tidegate.config.summary import summary
    from tidegate.runtime.supervisor.preflight import prepare

    try:
        _, blob = prepare(site)
    except SiteError as why:
        refuse_site(why)
    for line in summary(blob):
        click.echo(line)
    click.echo(f"{site}: good")


@main.command()
@click.argument("site", type=click.Path(path_type=Path))
@click.option("--state-dir", type=click.Path(path_type=Path), help="Folder for journal and ledger.")
@click.option("--no-carbon", is_flag=True, help="Without the carbon sidecar.")
@click.option("--cpu", type=int, help="Pin the loop to this CPU.")
def run(site: Path, state_dir: Path | None, no_carbon: bool, cpu: int | None) -> None:
    """Run a site: core, gateway and carbon sidecar, until Ctrl-C or SIGTERM."""
    # Until the supervisor has handlers of its own nothing is started, and a KeyboardInterrupt that rises inside an
    # import may be swallowed there ("Exception ignored in ..."): then nobody would end this run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tidegate.config.site import SiteError
    from tidegate.runtime.state.paths import SiteBusy
    from tidegate.runtime.supervisor import supervisor

    words = ["--cpu", str(cpu)] if cpu is not None else []
    try:
        sys.exit(supervisor.run(str(site), state=state_dir, sidecar=not no_carbon, core_words=words))
    except SiteError as why:
        refuse_site(why)
    except SiteBusy as why:
        fail(str(why), EXIT_BUSY)
    except supervisor.StartError as why:
        fail(str(why), EXIT_SOFTWARE)
    except OSError as why:
        fail(str(why), EXIT_SOFTWARE)


# ---- its gateway ----


def with_client(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every client command has; the command gets an open client as its first argument."""

    @click.option("--site", "-s", help="Name of the site on this machine; not needed where only one runs.")
    @click.option("--endpoint", "-e", help="ipc://FOLDER or tcp://HOST:PORT.")
    @click.option("--key", type=click.Path(path_type=Path), help="Key file for tcp (tidegate keys make).")
    @click.option("--timeout", "timeout_s", type=float, default=3.0, show_default=True, help="s")
    @click.pass_context
    def wrapped(
        ctx: click.Context,
        site: str | None,
        endpoint: str | None,
        key: Path | None,
        timeout_s: float,
        **more: Any,
    ) -> None:
        from tidegate.runtime.api.blocking_client import Client, ClientError

        try:
            keys = None
            if key is not None:
                from tidegate.runtime.api.curve_keys import client_keys

                keys = client_keys(key)
            with Client(endpoint, site=site, timeout_s=timeout_s, keys=keys) as client:
                ctx.invoke(command, client, **more)
        except ClientError as why:
            fail(str(why), EXIT_UNAVAILABLE if why.code == "no-answer" else EXIT_REFUSED)
        except ValueError as why:
            fail(str(why), 64)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    wrapped.__name__ = command.__name__
    wrapped.__doc__ = command.__doc__
    wrapped.__click_params__ = [*wrapped.__click_params__, *getattr(command, "__click_params__", [])]  # type: ignore[attr-defined]
    return wrapped


def shown(value: float | None, unit: str) -> str:
    """A value for people: as many digits as are worth reading."""
    if value is None:
        return "-"
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{text} {unit}".strip()


@main.command()
@with_client
@click.argument("points", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def get(client: Any, points: tuple[str, ...], as_json: bool) -> None:
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
        click.echo(f"{name:<{width}}  {shown(point.value, units.get(name, ''))}{quality}")


@main.command()
@with_client
def why(client: Any) -> None:
    """Why the setpoint is what it is."""
    told = client.why()
    click.echo(f"setpoint {shown(told['setpoint_w'], 'W')}, because of: {told['reason']} (mode {told['mode']})")
    click.echo(f"request  {shown(told['request_w'], 'W')}, preferred by: {told['preference']}")
    for name in ("corridor", "envelope"):
        click.echo(f"{name:<8} {shown(told[f'{name}_lo_w'], 'W')} to {shown(told[f'{name}_hi_w'], 'W')}")
    grid = ", ".join(f"{name} {shown(told[f'{name}_w'], 'W')}" for name in ("grid", "load", "ess", "grid_limit"))
    click.echo(f"site     {grid}")
    if told["shortfall_w"]:
        click.echo(f"short of the limit by {shown(told['shortfall_w'], 'W')}")
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


@main.command()
@with_client
@click.option("--json", "as_json", is_flag=True, help="Messages as JSON lines instead of the table.")
@click.option("--topic", "-t", multiple=True, help="snapshot, meter, event (with --json).")
@click.option("--count", "-n", type=int, help="End after so many messages.")
def watch(client: Any, as_json: bool, topic: tuple[str, ...], count: int | None) -> None:
    """Watch the site live."""
    if not as_json:
        from tidegate.runtime.cli.watch import watch_live

        watch_live(client, count)
        return
    heard = client.subscribe(*(topic or ("event", "meter")))
    for number, message in enumerate(heard, 1):
        click.echo(json.dumps(message))
        if count is not None and number >= count:
            return


def seconds(text: str) -> float:
    """Read 30s, 500ms, 15m, 2h or a plain number of seconds. Raises click.BadParameter."""
    factors = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(digits) :] or "s"
    try:
        value = float(digits) * factors[unit]
    except (ValueError, KeyError):
        raise click.BadParameter(f"{text!r}: expected a time such as 30s, 500ms, 15m") from None
    if not 0 < value <= 86_400:
        raise click.BadParameter(f"{text!r}: expected more than 0 and at most 24h")
    return value


def watts(text: str) -> float:
    """Read 5000, 5000W, 5kW or -2.5kW. Raises click.BadParameter."""
    plain = text.strip().lower().removesuffix("w")
    factor = 1.0
    if plain.endswith("k"):
        plain, factor = plain[:-1], 1000.0
    try:
        value = float(plain) * factor
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected a power such as 5000, 5kW, -2.5kW") from None
    if not abs(value) <= 1e9:
        raise click.BadParameter(f"{text!r}: not a power that a site can have")
    return value


@main.command(
    "set", context_settings={"ignore_unknown_options": True}, short_help="Order a setpoint, a limit, stop, run or ack."
)
@with_client
@click.argument("what", type=click.Choice(["setpoint", "import-limit", "export-limit", "stop", "run", "ack"]))
@click.argument("value", required=False)
@click.option("--for", "for_", default="30s", show_default=True, help="How long a setpoint or a limit holds.")
@click.option("--priority", type=click.Choice(["optimiser", "ems", "maintenance"]), default="ems", show_default=True)
def set_(client: Any, what: str, value: str | None, for_: str, priority: str) -> None:
    """Order a setpoint or a limit for a time, or stop, run, ack.

    A setpoint is held by this command under a lease: ending it (Ctrl-C) gives the setpoint back at once.
    """
    import time

    if what in ("setpoint", "import-limit", "export-limit"):
        if value is None:
            raise click.UsageError(f"set {what} needs a value in W, such as 5kW")
        power_w, for_s = watts(value), seconds(for_)
    elif value is not None:
        raise click.UsageError(f"set {what} takes no value")
    if what == "setpoint":
        with client.lease(priority) as lease:
            say(lease.setpoint(power_w, for_s))
            until = time.monotonic() + for_s
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(left, 0.2))
                if lease.lost:
                    fail(f"the lease was lost: {lease.lost}", EXIT_REFUSED)
    elif what == "import-limit":
        say(client.limit(import_w_max=power_w, for_s=for_s))
    elif what == "export-limit":
        say(client.limit(export_w_max=power_w, for_s=for_s))
    elif what == "stop":
        say(client.stop())
    elif what == "run":
        say(client.run())
    else:
        say(client.ack())


def say(answer: dict[str, Any]) -> None:
    """Show what became of a command."""
    power = f" {answer['applied_w']:.0f} W" if answer.get("applied_w") is not None else ""
    click.echo(f"{answer['status']}{power}" + (f": {answer['text']}" if answer.get("text") else ""))


if __name__ == "__main__":
    main()
