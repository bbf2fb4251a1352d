"""Metrics to an OpenTelemetry collector, over OTLP with HTTP: `tidegate export otlp`. The same as for Prometheus.

A collector that is away costs nothing but its own figures: sending is a thread's work, and the next send has what is
then. A silent site sends `tidegate_up` 0 and no point.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric as Family

from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.export.listening import messages_until
from tidegate.runtime.export.prometheus_exporter import ASK_S, SiteCollector

SEND_S = 10.0

logger = logging.getLogger("tidegate.otlp")


def metrics_of(families: Iterable[Family], site: str, begun_ns: int, utc_ns: int) -> MetricsData:
    """Families of metrics as OpenTelemetry has them: gauges, and counters as sums that rise since `begun_ns` (UTC)."""
    found = []
    for family in families:
        points = [
            NumberDataPoint(
                {key: value for key, value in one.labels.items() if key != "site"},
                begun_ns if family.type == "counter" else 0,
                utc_ns,
                float(one.value),
            )
            for one in family.samples
        ]
        if not points:
            continue
        rises = AggregationTemporality.CUMULATIVE
        data = Sum(points, rises, True) if family.type == "counter" else Gauge(points)
        found.append(Metric(family.name, family.documentation, family.unit or "", data))
    resource = Resource({"service.name": "tidegate", "service.version": version("tidegate"), "tidegate.site": site})
    scope = ScopeMetrics(InstrumentationScope("tidegate", version("tidegate")), found, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


class Sender(threading.Thread):
    """Sends what the collector holds, each `every_s`; says once when nobody takes it, and once when somebody does."""

    def __init__(
        self, collector: SiteCollector, endpoint: str, every_s: float, headers: Mapping[str, str],
        certificate_file: str | None, stop: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(name="otlp", daemon=True)
        self._collector, self._every_s, self._stop_asked = collector, every_s, stop
        self._begun_ns = time.time_ns()
        self._endpoint = endpoint
        self._exporter = OTLPMetricExporter(
            endpoint=endpoint, headers=dict(headers), timeout=SEND_S, certificate_file=certificate_file
        )
        self.taken: bool | None = None

    def run(self) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what it finds we say ourselves, once
        while not self._stop_asked.wait(self._every_s):
            data = metrics_of(self._collector.collect(), self._collector.site, self._begun_ns, time.time_ns())
            try:
                taken = self._exporter.export(data, SEND_S * 1000) is MetricExportResult.SUCCESS
            except Exception as why:  # whatever a library raises for a collector must not end the sending
                logger.warning("%s: %s: %s", self._endpoint, type(why).__name__, why)
                taken = False
            if taken is not self.taken:
                self.taken = taken
                logger.warning(
                    "%s: %s", self._endpoint, "takes what is sent" if taken else "takes nothing; tried again"
                )


def serve(
    client: Client, endpoint: str, every_s: float, headers: Mapping[str, str], certificate_file: str | None = None,
    stop: threading.Event | None = None,
) -> None:  # fmt: skip
    """Send until `stop`."""
    collector = SiteCollector(client.describe(), lambda: client.ask("alarms"))
    client.timeout_s = ASK_S
    stop = stop or threading.Event()
    Sender(collector, endpoint, every_s, headers, certificate_file, stop).start()
    heard = client.subscribe("snapshot", "carbon")
    for message in messages_until(stop, heard):
        if message is None:
            continue
        if message["kind"] == "carbon":
            collector.carbon.take(message)
        else:
            collector.take(message, heard.snapshots_lost)
