"""The sidecar's live carbon figures as metrics. A figure that is not good has `quality="doubtful"` among its labels.

So whoever asks for `quality="good"` never gets one whose inputs have gaps. What is older than a minute is left out.
"""

import threading
import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from tidegate.runtime.api.messages import Message

LATE_S = 60.0
LABELS = ["site", "kind", "name", "node", "span", "quality"]
FIGURES = (
    ("energy_kwh", "tidegate_carbon_energy_kwh", "energy used in the span so far, provisional"),
    ("kg", "tidegate_carbon_kg", "CO2e of it, kg, provisional"),
    ("g_per_kwh", "tidegate_carbon_g_per_kwh", "CO2e per energy, g/kWh, provisional"),
    ("pue", "tidegate_carbon_pue", "interim PUE, provisional"),
    ("renewable_direct", "tidegate_carbon_renewable_direct", "share from own generation in the same period"),
    ("renewable_stored", "tidegate_carbon_renewable_stored", "share from own generation by way of the battery"),
)


class CarbonMetrics:
    """Newest complete set of rows of each kind. Messages come in one thread, scrapes in others."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._sets: dict[str, tuple[float, list[Message]]] = {}
        self._begun: dict[str, tuple[int, int, list[Message]]] = {}  # utc_s, next page, rows

    def take(self, message: Message) -> None:
        """Take a page in; a set that lacks one is not shown."""
        of, page = message["of"], message["page"]
        utc_s, due, rows = self._begun.pop(of, (message["utc_s"], 0, [])) if page else (message["utc_s"], 0, [])
        if utc_s != message["utc_s"] or due != page:
            return
        rows = rows + message["rows"]
        if page + 1 < message["pages"]:
            self._begun[of] = utc_s, page + 1, rows
            return
        with self._lock:
            self._sets[of] = time.monotonic(), rows

    def collect(self) -> Iterator[Metric]:
        """The metrics of what is not too old."""
        with self._lock:
            found = {of: rows for of, (heard, rows) in self._sets.items() if time.monotonic() - heard < LATE_S}
        for field, name, text in FIGURES:
            gauge = GaugeMetricFamily(name, text, labels=LABELS)
            for of, rows in found.items():
                for row in rows:
                    for span in ("now", "today"):
                        figures = row.get(span)
                        if figures is None or figures[field] is None:
                            continue
                        quality = "good" if figures["good"] else "doubtful"
                        gauge.add_metric([self._site, of, row["name"], row["node"], span, quality], figures[field])
            yield gauge
