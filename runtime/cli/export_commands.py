"""`tidegate export`: other protocols for the same site, each a process of its own beside the gateway."""

import asyncio
import contextlib
import signal
import threading

import click

from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.cli.common import EXIT_UNAVAILABLE, EXIT_USAGE, fail, need, with_client


def stopped_by_signal() -> threading.Event:
    """Set by SIGTERM: an exporter that is ended says so before it goes."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    return stop


@click.group("export")
def export() -> None:
    """Show a site in other protocols. Each command is a client of the gateway and runs until Ctrl-C."""


@export.command()
@with_client
@click.option("--listen", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=9464, show_default=True)
def prometheus(client: Client, listen: str, port: int) -> None:
    """Metrics for Prometheus at http://LISTEN:PORT/metrics."""
    module = need("tidegate.runtime.export.prometheus_exporter", "export")
    click.echo(f"metrics at http://{listen}:{port}/metrics")
    try:
        module.serve(client, listen, port, stopped_by_signal())
    except OSError as why:
        fail(f"{listen}:{port}: {why.strerror or why}", EXIT_UNAVAILABLE)


@export.command()
@with_client
@click.option("--listen", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=1502, show_default=True)
def modbus(client: Client, listen: str, port: int) -> None:
    """SunSpec over Modbus TCP: models 1, 203, 713, 701, 802, and 704 for a setpoint under a lease."""
    module = need("tidegate.runtime.export.sunspec_server", "export")
    click.echo(f"SunSpec at {listen}:{port}, registers from 40000")
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(module.serve(client.endpoint, None, listen, port, client._keys))
    except OSError as why:
        fail(why, EXIT_UNAVAILABLE)


@export.command()
@with_client
@click.option("--broker", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=1883, show_default=True)
@click.option("--prefix", default="tidegate", show_default=True)
@click.option("--user")
@click.option("--password", envvar="TIDEGATE_MQTT_PASSWORD", help="Better in TIDEGATE_MQTT_PASSWORD.")
@click.option("--tls", is_flag=True, help="Encrypt, with the system's certificates.")
@click.option(
    "--home-assistant",
    is_flag=False,
    flag_value="homeassistant",
    metavar="[PREFIX]",
    help="Also say what each point is, as Home Assistant's discovery wants it (prefix homeassistant).",
)
@click.option("--sparkplug", metavar="GROUP", help="Instead be an edge node of Sparkplug B in this group.")
def mqtt(
    client: Client,
    broker: str,
    port: int,
    prefix: str,
    user: str | None,
    password: str | None,
    tls: bool,
    home_assistant: str | None,
    sparkplug: str | None,
) -> None:
    """Records, points and alarms to an MQTT broker; one that is not there is waited for."""
    if sparkplug is not None:
        if home_assistant is not None:
            fail("--sparkplug and --home-assistant are two ways to name points; run one exporter for each", EXIT_USAGE)
        node = need("tidegate.runtime.export.sparkplug_node", "export")
        click.echo(f"broker {broker}:{port}, topics spBv1.0/{sparkplug}/...")
        node.serve(client, broker, port, sparkplug, user=user, password=password, tls=tls, stop=stopped_by_signal())
        return
    module = need("tidegate.runtime.export.mqtt_bridge", "export")
    click.echo(f"broker {broker}:{port}, topics {prefix}/SITE/...")
    words = {"prefix": prefix, "user": user, "password": password, "tls": tls, "home_assistant": home_assistant}
    try:
        module.serve(client, broker, port, stop=stopped_by_signal(), **words)
    except OSError as why:
        fail(f"{broker}:{port}: {why.strerror or why}", EXIT_UNAVAILABLE)


@export.command()
@with_client
@click.option("--to", "url", default="http://127.0.0.1:4318/v1/metrics", show_default=True, metavar="URL")
@click.option("--every-s", type=click.FloatRange(1, 3600), default=15.0, show_default=True)
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Also TIDEGATE_OTLP_HEADERS, by commas.",
              envvar="TIDEGATE_OTLP_HEADERS")  # fmt: skip
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="Certificates that https is checked against.")
def otlp(client: Client, url: str, every_s: float, headers: tuple[str, ...], ca: str | None) -> None:
    """Metrics to an OpenTelemetry collector, over OTLP with HTTP; one that is not there is waited for."""
    module = need("tidegate.runtime.export.otlp_exporter", "export,otlp")
    pairs = [text.partition("=") for part in headers for text in part.split(",") if text]
    if wrong := [name for name, equals, _ in pairs if not (name.strip() and equals)]:
        fail(f"--header {wrong[0]}: expected NAME=VALUE", EXIT_USAGE)
    click.echo(f"metrics to {url} each {every_s:g} s")
    given = {name.strip(): value.strip() for name, _, value in pairs}
    module.serve(client, url, every_s, given, ca, stopped_by_signal())
