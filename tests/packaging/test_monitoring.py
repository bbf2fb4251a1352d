"""Alert rules and dashboard: promtool takes them, each alert fires and keeps still, and each name in them is served."""

import importlib.util
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tidegate.ext.abi.image import MODES_BY_NUMBER, SITE_NAMES

exporter = pytest.importorskip("tidegate.runtime.export.prometheus_exporter")

FOLDER = Path(__file__).parents[2] / "packaging" / "monitoring"
RULES, DASHBOARD = FOLDER / "tidegate-alerts.yml", FOLDER / "tidegate-dashboard.json"

UP = 'tidegate_up{site="hall"}'
ALARM = 'tidegate_alarm{site="hall", unit="cabinet", alarm="ID", reaction="REACTION", state="STATE"}'
WORD = 'tidegate_word{site="hall", point="POINT", word="WORD"}'
POINT = 'tidegate_point{site="hall", point="NAME", unit="W"}'


def alarm(name, reaction, state="active"):
    return ALARM.replace("ID", name).replace("REACTION", reaction).replace("STATE", state)


def word(point, said):
    return WORD.replace("POINT", point).replace("WORD", said)


def point(name):
    return POINT.replace("NAME", name)


# alert -> (series that fire it, when; series that do not). Values are promtool's: 0x60 = 0, sixty times.
CASES = {
    "TidegateSilent": ({UP: "0x60"}, "2m", {UP: "1x60"}),
    "TidegateExporterGone": ({"other": "1x60"}, "3m", {UP: "0x60"}),
    "TidegateNoPower": ({alarm("bms_silent", "zero_silent"): "1x60"}, "1m", {alarm("bms_warning", "derate"): "1x60"}),
    "TidegateTripped": ({word("site.mode", "tripped"): "1x60"}, "3m", {word("site.mode", "run"): "1x60"}),
    "TidegateLessPower": ({alarm("loop_late", "derate"): "1x60"}, "6m", {alarm("x", "warn"): "1x60"}),
    "TidegateWarning": ({alarm("soc_drift", "warn"): "1x60"}, "16m", {alarm("soc_drift", "warn"): "1x5"}),
    "TidegateWaitsForAcknowledgement": (
        {alarm("estop", "open", "latched"): "1x60"}, "16m",
        {alarm("estop", "open", "latched"): "1x60", alarm("estop", "open"): "1x60"}),
    "TidegateFinding": ({'tidegate_finding{site="hall", finding="x"}': "90x60"}, "3m",
                        {'tidegate_finding{site="hall", finding="x"}': "40x60"}),
    "TidegateLimitNotHeld": (
        {point("site.grid_w"): "51000x60", point("site.grid_limit_w"): "50000x60"}, "3m",
        {point("site.grid_w"): "49000x60", point("site.grid_limit_w"): "50000x60"}),
    "TidegateNotEnforced": ({word("site.unenforced_bits", "peak limit"): "1x60"}, "6m",
                            {word("site.unenforced_bits", "none"): "1x60"}),
    "TidegateLoopLate": ({'tidegate_loop_lateness_seconds{site="hall", quantile="0.999"}': "0.002x60"}, "16m",
                         {'tidegate_loop_lateness_seconds{site="hall", quantile="0.999"}': "0.0005x60"}),
}  # fmt: skip


@pytest.fixture
def promtool(tmp_path):
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (package prometheus)")

    def run(*words):
        return subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=120, cwd=tmp_path)

    return run


def rules():
    return yaml.safe_load(RULES.read_text())["groups"][0]["rules"]


def test_promtool_takes_the_rules_as_they_are(promtool):
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0 and f"SUCCESS: {len(rules())} rules found" in done.stdout, done.stdout + done.stderr


def series(given):
    return [{"series": name, "values": values} for name, values in given.items()]


@pytest.mark.parametrize("name", CASES)
def test_each_alert_fires_for_its_case_and_keeps_still_for_the_other(promtool, tmp_path, name):
    fires, at, still = CASES[name]

    def fired(given):
        asked = [{"eval_time": at, "alertname": name, "exp_alerts": []}]
        test = {"interval": "15s", "input_series": series(given), "alert_rule_test": asked}
        (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [test]}))
        done = promtool("test", "rules", "test.yml")
        assert "SUCCESS" in done.stdout or f"alertname: {name}" in done.stdout + done.stderr, done.stdout + done.stderr
        return done.returncode != 0  # none was expected, so one that fires is a failure

    assert fired(fires) and not fired(still)


def test_every_alert_has_a_case():
    assert [rule["alert"] for rule in rules()] == list(CASES)
    assert {rule["labels"]["severity"] for rule in rules()} == {"critical", "warning"}


# ---- what is in them is served ----


def expressions():
    """Every PromQL expression of rules and dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    return [*(rule["expr"] for rule in rules()), *asked]


def served():
    """What the exporter gives of a site with everything: metric -> its labels."""
    names = [*SITE_NAMES, "site.soc"]
    said = exporter.SiteCollector(
        {"site": {"name": "hall"}, "points": [{"name": name, "unit": "W"} for name in names],
         "words": {"site.mode": {str(at): word for at, word in enumerate(MODES_BY_NUMBER)},
                   "site.unenforced_bits": {"0": "x"}, "site.reason": {"0": "y"}}},
        lambda: {"alarms": [{"id": "a", "unit": "u", "reaction": "zero", "active": True, "latched": True,
                             "since_s": 1}],
                 "findings": [{"title": "t", "weight": 90}]},
    )  # fmt: skip
    times = {"p50": 1, "p99": 1, "p999": 1, "max": 1}
    said.take(
        {"points": {name: (0.0, 1) for name in names},
         "loop": {"cycles": 1, "missed": 0, "overruns": 0, "lateness_us": times, "work_us": times}}, 0,
    )  # fmt: skip
    assert time.monotonic() - said.heard < 60
    return {sample.name: sample.labels for metric in said.collect() for sample in metric.samples}, names


def test_every_metric_label_and_point_that_they_ask_for_is_served():
    metrics, points = served()
    wrong = []
    for text in expressions():
        for metric, labels in re.findall(r"(tidegate_\w+)(?:\{(.*?)\})?", text):
            wrong += [f"{metric} in {text}"] if metric not in metrics else []
            for label, value in re.findall(r'(\w+)=~?"(.*?)"', labels.replace("!=", "=")):
                wrong += [f"{label} of {metric}"] if label not in metrics.get(metric, {}) else []
                wrong += [f"point {value}"] if label == "point" and value not in points else []
    assert not wrong and len(expressions()) > 25


def test_promtool_takes_every_expression_of_the_dashboard(promtool, tmp_path):
    asked = [{"record": f"x:{at}", "expr": text.replace("$site", "hall")} for at, text in enumerate(expressions())]
    (tmp_path / "all.yml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": asked}]}))
    done = promtool("check", "rules", "all.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "bad.yml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [
        {"record": "x:0", "expr": "sum by (tidegate_up"}]}]}))  # fmt: skip
    assert promtool("check", "rules", "bad.yml").returncode != 0


def test_the_dashboard_is_made_from_its_table_and_panels_lie_side_by_side():
    spec = importlib.util.spec_from_file_location("dashboard", FOLDER / "dashboard.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert DASHBOARD.read_text() == made.text(), "run: python packaging/monitoring/dashboard.py"
    board = json.loads(made.text())
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells
    sources = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(board["panels"])))
    assert used == sources == {"source", "site"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
