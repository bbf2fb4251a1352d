"""Live figures on their way out: the sidecar's own process, the gateway, API, topic, Prometheus, MQTT, command line."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import msgspec
import pytest
from click.testing import CliRunner

from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.carbon.live.live_pages import PAGE_BYTES, pages
from tidegate.runtime.cli.carbon_commands import carbon
from tidegate.runtime.export.carbon_metrics import CarbonMetrics
from tidegate.runtime.gateway import api_pages, ops
from tidegate.runtime.gateway.carbon_shown import CarbonRow, CarbonShown

SPAN = {"since_utc_s": 1, "until_utc_s": 900, "energy_kwh": 2.0, "kg": 0.5, "g_per_kwh": 250.0, "pue": 1.2,
        "renewable_direct": 0.25, "renewable_stored": 0.0, "good": True, "doubts": []}  # fmt: skip
HELD = SPAN | {"good": False, "doubts": ["grid: factor is a held one, 250 g/kWh"]}


def row(name, now=SPAN, today=HELD, **more):
    return {"name": name, "now": now, "today": today, **more}


def eventually(ask, good, seconds=60.0):
    until = time.monotonic() + seconds
    got = None
    while time.monotonic() < until:
        try:
            got = ask()
            if good(got):
                return got
        except (OSError, ClientError) as why:
            got = why
        time.sleep(0.05)
    raise AssertionError(f"never good: {got}")


def test_rows_are_held_published_and_checked_against_the_schema(gateway):
    with gateway.client(timeout_s=20) as site:
        heard = site.subscribe("carbon")
        with pytest.raises(ClientError, match="has not shown any figures of site"):
            site.ask("carbon")
        show = lambda: site.ask("show_carbon", of="site", utc_s=1000, rows=[row("test-site")])  # noqa: E731
        show()
        published = eventually(lambda: (show(), heard.receive(0.2))[1], lambda found: found is not None)
        answer = site.ask("carbon")
    msgspec.convert(answer, type=api_pages.Reply)
    msgspec.convert(published, type=api_pages.CarbonPublished)
    assert (answer["of"], answer["utc_s"], answer["late"]) == ("site", 1000, False) and 0 <= answer["age_s"] < 60
    (shown,) = answer["rows"]
    assert shown["now"]["good"] and shown["now"]["provisional"] and not shown["today"]["good"]
    assert published["rows"] == answer["rows"] and published["of"] == "site"


def test_one_name_is_found_among_pages_and_half_a_set_is_not_shown(gateway):
    rows = [row(f"job-{number}", node="it", more={"namespace": "a"}) for number in range(60)]
    made = list(pages(rows))
    assert len(made) > 1
    with gateway.client(timeout_s=20) as site:
        for number, page in enumerate(made):
            site.ask("show_carbon", of="job", utc_s=7, page=number, pages=len(made), rows=page)
        site.ask("show_carbon", of="job", utc_s=8, page=0, pages=2, rows=rows[:1])
        assert len(site.ask("carbon", of="job")["rows"]) == 60
        (found,) = site.ask("carbon", of="job", name="job-59")["rows"]
        assert found["name"] == "job-59" and site.ask("carbon", of="job", name="none")["rows"] == []
        with pytest.raises(ClientError, match="does not follow on the one before"):
            site.ask("show_carbon", of="job", utc_s=9, page=1, pages=2, rows=rows[:1])
        with pytest.raises(ClientError, match="invalid-field"):
            site.ask("show_carbon", of="job", utc_s=9, rows=[{"name": "x", "good": True}])


@pytest.mark.parametrize(("role", "words"), [
    ("operate", "show_carbon needs the role maintain"), ("maintain", "only the sidecar of this machine"),
])  # fmt: skip
def test_nobody_from_outside_shows_figures(gateway, role, words):
    gateway.gateway.peers.local = lambda address: gateway.gateway.peers.keyed("other", role)
    with gateway.client(timeout_s=20) as site, pytest.raises(ClientError, match=words):
        site.ask("show_carbon", of="site", utc_s=1, rows=[row("made up")])
    assert gateway.gateway.server.carbon_shown.of("site", None) is None


def test_what_is_old_is_called_late(monkeypatch):
    shown = CarbonShown()
    assert shown.of("site", None) is None
    assert shown.take("site", 5, 0, 1, [CarbonRow(name="s")]) == ""
    began_ns = time.monotonic_ns()
    for seconds, late in ((59, False), (61, True)):
        monkeypatch.setattr(time, "monotonic_ns", lambda ns=began_ns + seconds * 10**9: ns)
        assert shown.of("site", None)["late"] is late


def test_a_set_with_too_many_rows_is_refused_whole():
    shown, rows = CarbonShown(), [CarbonRow(name=str(number)) for number in range(32)]
    said = [shown.take("job", 1, page, 40, rows) for page in range(40)]
    assert said[31] == "" and said[32] == "1056 rows of job, at most 1024" and shown.of("job", None) is None


def test_pages_fit_a_request_and_no_rows_are_a_page_too():
    long = row("x" * 200, today=HELD | {"doubts": ["y" * 200] * 16}, more={"namespace": "z" * 200})
    made = list(pages([long] * 7))
    assert [row for page in made for row in page] == [long] * 7
    assert all(len(ops.messages.encode({"rows": page})) <= PAGE_BYTES + 64 for page in made)
    assert list(pages([])) == [[]]


@pytest.fixture
def account(core, start_gateway, tmp_path):
    """A gateway with the sidecar's own process beside it; meter records come as fast as the test makes them."""
    core.describe["nodes"] = [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": None}]
    core.step()
    core.beat()
    gateway, end = start_gateway(), threading.Event()
    words = [sys.executable, "-m", "tidegate.runtime.carbon", "--endpoint", gateway.endpoint, "--state-dir",
             str(tmp_path / "carbon"), "--pause-s", "0.1"]  # fmt: skip
    wh = [1000.0]

    def run():
        while not end.wait(0.2):
            wh[0] += 2.0
            core.values["grid.import_wh"] = (wh[0], 1)
            core.meter()

    thread = threading.Thread(target=run)
    thread.start()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        yield gateway
        end.set()
        thread.join()
        process.terminate()
        process.communicate(timeout=60)


def command(gateway, *words):
    return CliRunner().invoke(carbon, ["now", "--endpoint", gateway.endpoint, "--timeout", "20", *words])


def test_energy_is_shown_within_a_minute_by_the_sidecar_s_own_process(account):
    with account.client(timeout_s=20) as site:
        answer = eventually(lambda: site.ask("carbon"), lambda found: found["rows"][0]["now"]["energy_kwh"] > 0.0)
        (shown,) = answer["rows"]
        assert answer["utc_s"] - shown["now"]["until_utc_s"] < 60, "the newest energy is older than a minute"
        assert not shown["now"]["good"] and "the account began within this period" in shown["now"]["doubts"]
        assert any("factor is a fallback one" in text for text in shown["now"]["doubts"])
        now_s = int(time.time())
        site.jobs({"job": "train-7", "start_utc_s": now_s - 3600, "end_utc_s": now_s + 3600, "owner": "physics"})
        ask = lambda: site.ask("carbon", of="job", name="train-7")["rows"]  # noqa: E731
        (job,) = eventually(ask, lambda rows: rows and rows[0]["today"]["kg"] > 0.0)
        assert job["node"] == "it" and job["more"]["namespace"] == "physics"
        assert job["now"] is not None and not job["today"]["good"]
        (owner,) = site.ask("carbon", of="namespace")["rows"]
        assert owner["name"] == "physics"
    text = command(account, "--job", "train-7")
    assert text.exit_code == 0 and "job train-7 (on it)" in text.output and "not good: " in text.output, text.output
    assert "provisional" in text.output
    found = json.loads(command(account, "--job", "train-7", "--json").output)
    assert found["rows"][0]["name"] == "train-7"
    missing = command(account, "--job", "nobody")
    assert missing.exit_code == 65 and "job 'nobody' is not among today's figures" in missing.output
    assert "PUE" in command(account).output


def metrics(carbon_metrics):
    return {
        (m.name, s.labels["span"], s.labels["quality"]): s.value for m in carbon_metrics.collect() for s in m.samples
    }


def page(of, number, count, rows, utc_s=1):
    return {"kind": "carbon", "of": of, "utc_s": utc_s, "page": number, "pages": count,
            "rows": [{"node": "", **one} for one in rows]}  # fmt: skip


def test_prometheus_never_calls_a_figure_good_that_is_not(monkeypatch):
    found = CarbonMetrics("s")
    found.take(page("site", 0, 1, [row("s")]))
    shown = metrics(found)
    assert shown["tidegate_carbon_kg", "now", "good"] == 0.5 and shown["tidegate_carbon_kg", "today", "doubtful"] == 0.5
    assert ("tidegate_carbon_kg", "today", "good") not in shown
    found.take(page("job", 1, 2, [row("b")]))  # its first page never came
    found.take(page("job", 0, 2, [row("a")]))
    assert len(list(metrics(found))) == len(shown)
    began = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: began + 61)
    assert metrics(found) == {}, "what is older than a minute must not look like now"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def showing(gateway, stop):
    with gateway.client(timeout_s=20) as site:
        while not stop.wait(0.1):
            site.ask("show_carbon", of="site", utc_s=1000, rows=[row("test-site")])


def test_the_exporters_pass_live_figures_on(gateway, tmp_path):
    exporter = pytest.importorskip("tidegate.runtime.export.prometheus_exporter")
    bridge = pytest.importorskip("tidegate.runtime.export.mqtt_bridge")
    broker = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    port, mqtt_port, stop, got = free_port(), free_port(), threading.Event(), []
    threads = [threading.Thread(target=showing, args=(gateway, stop))]
    with gateway.client(timeout_s=20) as one, gateway.client(timeout_s=20) as two:
        threads.append(threading.Thread(target=exporter.serve, args=(one, "127.0.0.1", port, stop)))
        if broker is not None:
            import paho.mqtt.client as paho

            (tmp_path / "b.conf").write_text(f"listener {mqtt_port} 127.0.0.1\nallow_anonymous true\n")
            process = subprocess.Popen([broker, "-c", str(tmp_path / "b.conf")], stderr=subprocess.DEVNULL)
            hearer = paho.Client(paho.CallbackAPIVersion.VERSION2)
            hearer.on_message = lambda client, data, message: got.append((message.topic, json.loads(message.payload)))
            hearer.on_connect = lambda client, *_: client.subscribe("tidegate/+/carbon/#", qos=1)
            eventually(lambda: hearer.connect("127.0.0.1", mqtt_port), lambda code: code == 0)
            hearer.loop_start()
            threads.append(
                threading.Thread(target=bridge.serve, args=(two, "127.0.0.1", mqtt_port), kwargs={"stop": stop})
            )
        for thread in threads:
            thread.start()
        try:
            ask = lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()  # noqa: E731
            text = eventually(ask, lambda found: "tidegate_carbon_kg{" in found)
            if broker is not None:
                topic, message = eventually(lambda: got[:1], bool)[0]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            if broker is not None:
                hearer.loop_stop()
                process.terminate()
                process.wait(10)
    assert 'quality="doubtful",site="test-site",span="today"} 0.5' in text
    if broker is None:
        pytest.skip("mosquitto is not installed; Prometheus was looked at")
    assert topic == "tidegate/test-site/carbon/site" and message["rows"][0]["now"]["kg"] == 0.5
