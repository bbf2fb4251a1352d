"""Writes tidegate-dashboard.json: `python packaging/monitoring/dashboard.py`. Panels are rows of this table."""

import json
from pathlib import Path

SOURCE = {"type": "prometheus", "uid": "${source}"}
SITE = 'site=~"$site"'


def points(*names: str) -> list[tuple[str, str]]:
    """(expression, legend) of some points."""
    return [(f'tidegate_point{{{SITE}, point="{name}"}}', name.partition(".")[2]) for name in names]


# title, kind, unit, width of 24, height, [(expression, legend)]
PANELS = [
    ("Site", "stat", "none", 4, 4, [(f"tidegate_up{{{SITE}}}", "{{site}}")]),
    ("Mode", "words", "none", 5, 4, [(f'tidegate_word{{{SITE}, point="site.mode"}}', "{{word}}")]),
    ("Because of", "words", "none", 5, 4, [(f'tidegate_word{{{SITE}, point="site.reason"}}', "{{word}}")]),
    ("State of charge", "gauge", "percentunit", 5, 4, points("site.soc")),
    ("Alarms", "stat", "none", 5, 4, [(f'count(tidegate_alarm{{{SITE}, state="active"}}) or vector(0)', "active")]),
    ("Power", "timeseries", "watt", 24, 10,
     points("site.grid_w", "site.load_w", "site.ess_w", "site.pv_w", "site.grid_limit_w")),
    ("Setpoint and what bounds it", "timeseries", "watt", 12, 8,
     points("site.setpoint_w", "site.request_w", "site.corridor_lo_w", "site.corridor_hi_w")),
    ("Demand window", "timeseries", "watt", 12, 8, points("site.demand_w", "site.demand_peak_w", "site.grid_limit_w")),
    ("What is wrong", "table", "none", 12, 7, [(f"tidegate_alarm{{{SITE}}}", "")]),
    ("What the evidence points to", "table", "none", 12, 7, [(f"tidegate_finding{{{SITE}}}", "")]),
    ("Energy from the grid, Wh an hour", "timeseries", "watth", 12, 8,
     [(f'increase(tidegate_point{{{SITE}, point="site.grid_in_ws"}}[1h]) / 3600', "import"),
      (f'increase(tidegate_point{{{SITE}, point="site.grid_out_ws"}}[1h]) / 3600', "export")]),
    ("The loop", "timeseries", "s", 12, 8,
     [(f"tidegate_loop_lateness_seconds{{{SITE}}}", "late, {{quantile}}"),
      (f"tidegate_loop_work_seconds{{{SITE}}}", "work, {{quantile}}")]),
]  # fmt: skip
STYLES: dict[str, dict[str, object]] = {
    "stat": {"type": "stat", "options": {"colorMode": "value", "reduceOptions": {"calcs": ["lastNotNull"]}}},
    "words": {"type": "stat", "options": {"textMode": "name", "reduceOptions": {"calcs": ["lastNotNull"]}}},
    "gauge": {"type": "gauge", "options": {"reduceOptions": {"calcs": ["lastNotNull"]}}},
    "timeseries": {"type": "timeseries", "options": {"legend": {"displayMode": "list", "placement": "bottom"}}},
    "table": {"type": "table", "options": {"showHeader": True}},
}
ENDS = {"gauge": {"min": 0, "max": 1}}


def dashboard() -> dict[str, object]:
    """The whole dashboard, as Grafana imports it."""
    panels = []
    x = y = line = 0
    for at, (title, kind, unit, width, height, asked) in enumerate(PANELS, 1):
        if x + width > 24:
            x, y, line = 0, y + line, 0
        table = kind in ("table", "words")
        targets = [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expr, "legendFormat": legend,
             "instant": table, "range": not table, "format": "table" if kind == "table" else "time_series"}
            for number, (expr, legend) in enumerate(asked)
        ]  # fmt: skip
        panels.append({
            "id": at, "title": title, "datasource": SOURCE, "targets": targets,
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": unit, **ENDS.get(kind, {})}, "overrides": []},
            **STYLES[kind],
        })  # fmt: skip
        x, line = x + width, max(line, height)
    return {
        "uid": "tidegate-site", "title": "Tidegate site", "tags": ["tidegate"], "schemaVersion": 38, "version": 1,
        "editable": True, "refresh": "10s", "time": {"from": "now-6h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [
            {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus", "current": {}},
            {"name": "site", "type": "query", "datasource": SOURCE, "label": "Site", "multi": True, "includeAll": True,
             "query": {"query": "label_values(tidegate_up, site)", "refId": "site"}, "refresh": 2, "current": {}},
        ]},
        "panels": panels,
    }  # fmt: skip


def text() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "tidegate-dashboard.json").write_text(text())
