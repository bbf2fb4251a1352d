"""Prometheus metrics of a site: `tidegate export prometheus`."""

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.api.messages import Message
from tidegate.runtime.api.named import word_of
from tidegate.runtime.export.carbon_metrics import CarbonMetrics
from tidegate.runtime.export.listening import messages_until, silent_after_s

ASK_S = 1.0
ALARMS_EVERY_S = 1.0
QUANTILES = (("0.5", "p50"), ("0.99", "p99"), ("0.999", "p999"), ("1", "max"))


class SiteCollector(Collector):
    """The newest snapshot as metrics. Points that are not good or held have a quality and no value."""

    def __init__(self, describe: Message, alarms: Callable[[], Message] | None = None) -> None:
        self.site = str(describe["site"]["name"])
        self.units = {row["name"]: row.get("unit", "") for row in describe["points"]}
        self.words: Message = describe.get("words") or {}
        self._alarms_of, self._alarms_due_s = alarms, 0.0
        self.alarms: Message | None = None
        self.snapshot: Message | None = None
        self.silent_s = silent_after_s(float(describe["site"].get("snapshot_hz") or 10.0))
        self.heard = 0.0
        self.lost = 0
        self.carbon = CarbonMetrics(self.site)

    def take(self, message: Message, lost: int) -> None:
        """Take a snapshot in."""
        self.snapshot, self.heard, self.lost = message, time.monotonic(), lost
        if self._alarms_of is not None and self.heard >= self._alarms_due_s:
            self._alarms_due_s = self.heard + ALARMS_EVERY_S
            try:
                self.alarms = self._alarms_of()
            except ClientError:
                self.alarms = None  # what was is not what is

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("tidegate_up", "1 while snapshots arrive", labels=["site"])
        fresh = self.snapshot is not None and time.monotonic() - self.heard < self.silent_s
        up.add_metric([self.site], 1.0 if fresh else 0.0)
        yield up
        lost = CounterMetricFamily("tidegate_snapshots_lost", "snapshots missed by this exporter", labels=["site"])
        lost.add_metric([self.site], self.lost)
        yield lost
        yield from self.carbon.collect()
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
        yield self._named(snapshot)
        if self.alarms is not None:
            yield from self._alarms(self.alarms)
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

    def _named(self, snapshot: Message) -> Metric:
        """The word of what is told by number, in a label: 1 for the one that holds."""
        named = GaugeMetricFamily(
            "tidegate_word", "1 for the word that a point has now", labels=["site", "point", "word"]
        )
        for name, (number, _) in snapshot["points"].items():
            word = word_of(self.words, name, self.units.get(name, ""), number)
            if word is not None:
                named.add_metric([self.site, name, word], 1.0)
        return named

    def _alarms(self, said: Message) -> Iterator[Metric]:
        """What is active or latched, what it does, since when, and what the evidence points to."""
        labels = ["site", "unit", "alarm", "reaction", "state"]
        active = GaugeMetricFamily("tidegate_alarm", "1 for each alarm, by its state: active or latched", labels=labels)
        since = GaugeMetricFamily("tidegate_alarm_age_seconds", "since when", labels=["site", "unit", "alarm"])
        for alarm in said["alarms"]:
            for state in ("active", "latched"):
                if alarm[state]:
                    active.add_metric([self.site, alarm["unit"], alarm["id"], alarm["reaction"], state], 1.0)
            if alarm["since_s"] is not None:
                since.add_metric([self.site, alarm["unit"], alarm["id"]], alarm["since_s"])
        yield active
        yield since
        found = GaugeMetricFamily("tidegate_finding", "weight of what the evidence says", labels=["site", "finding"])
        for title, weight in {one["title"]: one["weight"] for one in said.get("findings", [])}.items():
            found.add_metric([self.site, title], float(weight))
        yield found


def serve(client: Client, address: str, port: int, stop: threading.Event | None = None) -> None:
    """Serve /metrics until `stop`; raises OSError if the port is taken."""
    collector = SiteCollector(client.describe(), lambda: client.ask("alarms"))
    client.timeout_s = ASK_S
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    server, thread = start_http_server(port, addr=address, registry=registry)
    heard = client.subscribe("snapshot", "carbon")
    try:
        for message in messages_until(stop, heard):
            if message is None:
                continue
            if message["kind"] == "carbon":
                collector.carbon.take(message)
            else:
                collector.take(message, heard.snapshots_lost)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
