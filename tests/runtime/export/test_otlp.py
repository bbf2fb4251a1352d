"""Metrics over OTLP, read back with OpenTelemetry's own message classes."""

import gzip
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

module = pytest.importorskip("tidegate.runtime.export.otlp_exporter", reason="opentelemetry is not installed")
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service  # noqa: E402


class Collector:
    """Takes what is posted, or refuses it."""

    def __init__(self):
        self.taken, self.headers, self.status = [], [], 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                raw = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
                request = service.ExportMetricsServiceRequest()
                request.ParseFromString(raw)
                collector.headers.append((self.path, self.headers.get("x-tenant")))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if collector.status == 200:
                    collector.taken.append(request)

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/metrics"

    def newest(self):
        """name -> {attributes: value} of the newest request, with its resource."""
        if not self.taken:
            return {}, {}
        (resource,) = self.taken[-1].resource_metrics
        known = {one.key: one.value.string_value for one in resource.resource.attributes}
        found = {}
        for metric in resource.scope_metrics[0].metrics:
            points = metric.sum.data_points if metric.HasField("sum") else metric.gauge.data_points
            for point in points:
                key = tuple(sorted((one.key, one.value.string_value) for one in point.attributes))
                found.setdefault(metric.name, {})[key] = point.as_double
        return known, found


@pytest.fixture
def collector():
    one = Collector()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def sending(pushing, gateway, collector):
    """`tidegate export otlp` beside a site that speaks; -> what ends it."""
    stop = threading.Event()
    with gateway.client() as site:
        words = (site, collector.url, 0.2, {"x-tenant": "hall"}, None, stop)
        thread = threading.Thread(target=module.serve, args=words)
        thread.start()
        yield pushing
        stop.set()
        thread.join()


def test_a_collector_is_sent_what_prometheus_would_read(sending, collector, eventually):
    sending.values["unit0.fault_bits_lo"] = (1.0, 1)
    known, found = eventually(collector.newest, lambda got: "tidegate_alarm" in (got[1] if got else {}))
    assert known["service.name"] == "tidegate" and known["tidegate.site"] == "test-site"
    assert found["tidegate_up"][()] == 1.0
    assert found["tidegate_point"][("point", "site.grid_w"), ("unit", "W")] == 41_230.0
    assert not any(("point", "bms1.temp_c") in key for key in found["tidegate_point"]), "a stale point has no value"
    assert found["tidegate_word"][("point", "site.mode"), ("word", "run")] == 1.0
    cycles = next(m for m in collector.taken[-1].resource_metrics[0].scope_metrics[0].metrics
                  if m.name == "tidegate_loop_cycles")  # fmt: skip
    assert cycles.sum.is_monotonic and cycles.sum.data_points[0].start_time_unix_nano > 0
    assert collector.headers[-1] == ("/v1/metrics", "hall")
    sending.speaks.clear()
    silent = eventually(lambda: collector.newest()[1], lambda got: got["tidegate_up"][()] == 0.0)
    assert "tidegate_point" not in silent and "tidegate_alarm" not in silent


def test_a_collector_that_refuses_is_named_once_and_served_when_it_takes_again(sending, collector, eventually, caplog):
    caplog.set_level(logging.WARNING, "tidegate.otlp")
    collector.status = 400
    eventually(lambda: [one for one in caplog.messages if "takes nothing" in one])
    refused = len(collector.headers)
    eventually(lambda: len(collector.headers) > refused + 2)
    assert sum("takes nothing" in one for one in caplog.messages) == 1
    collector.status = 200
    eventually(lambda: [one for one in caplog.messages if "takes what is sent" in one])
