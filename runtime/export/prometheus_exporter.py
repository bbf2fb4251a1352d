"""Prometheus metrics of a site: `tidegate export prometheus`."""

import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.messages import Message
from tidegate.runtime.export.listening import messages_until

STALE_S = 5.0
QUANTILES = (("0.5", "p50"), ("0.99", "p99"), ("0.999", "p999"), ("1", "max"))


class SiteCollector(Collector):
    """The newest snapshot as metrics. Points that are not good or held have a quality and no value."""

    def __init__(self, describe: Message) -> None:
        self.site = str(describe["site"]["name"])
        self.units = {row["name"]: row.get("unit", "") for row in describe["points"]}
        self.snapshot: Message | None = None
        self.heard = 0.0
        self.lost = 0

    def take(self, message: Message, lost: int) -> None:
        """Take a snapshot in."""
        self.snapshot, self.heard, self.lost = message, time.monotonic(), lost

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("tidegate_up", "1 while snapshots arrive", labels=["site"])
        fresh = self.snapshot is not None and time.monotonic() - self.heard < STALE_S
        up.add_metric([self.site], 1.0 if fresh else 0.0)
        yield up
        lost = CounterMetricFamily("tidegate_snapshots_lost", "snapshots missed by this exporter", labels=["site"])
        lost.add_metric([self.site], self.lost)
        yield lost
        snapshot = self.snapshot
        if snapshot is None or not fresh:
            return  # a value of long ago must not look like one of now
        value = GaugeMetricFamily("tidegate_point", "value of a point, good or held", labels=["site", "point", "unit"])
        quality = GaugeMetricFamily(
            "tidegate_point_quality", "0 never 1 good 2 held 3 stale 4 invalid", labels=["site", "point"]
        )
        for name, (number, how) in snapshot["points"].items():
            if number is not None:
                value.add_metric([self.site, name, self.units.get(name, "")], number)
            quality.add_metric([self.site, name], how)
        yield value
        yield quality
        loop = snapshot["loop"]
        for name, text in (("cycles", "cycles of the loop"), ("missed", "cycles missed"), ("overruns", "late ends")):
            counter = CounterMetricFamily(f"tidegate_loop_{name}", text, labels=["site"])
            counter.add_metric([self.site], loop[name])
            yield counter
        for name in ("lateness", "work"):
            gauge = GaugeMetricFamily(
                f"tidegate_loop_{name}_seconds", f"{name} of a cycle", labels=["site", "quantile"]
            )
            for quantile, key in QUANTILES:
                gauge.add_metric([self.site, quantile], loop[f"{name}_us"][key] * 1e-6)
            yield gauge


def serve(client: Client, address: str, port: int, stop: threading.Event | None = None) -> None:
    """Serve /metrics until `stop`; raises OSError if the port is taken."""
    collector = SiteCollector(client.describe())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    server, thread = start_http_server(port, addr=address, registry=registry)
    heard = client.subscribe("snapshot")
    try:
        for message in messages_until(stop, heard):
            if message is not None:
                collector.take(message, heard.snapshots_lost)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
