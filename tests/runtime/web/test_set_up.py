"""Set-up at the page: who may, what is refused and how, the file and its way back, the commands of the first hour."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.demo_site import SLOW_DEMO
from tests.runtime.web.conftest import PASSWORD, SITE, Visitor, eventually, notes, served
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.web.setup_jobs import LOOKED_S, SetupJobs, Task, command

TEXT = SLOW_DEMO.read_text(encoding="utf-8")
TIGHTER = TEXT.replace("connection_import_w_max = 55000", "connection_import_w_max = 54000")
JOB_S = 270.0  # a command of its own, on a machine that others use
READS = ("/setup/file", "/setup/schema", "/setup/job")
WRITES = {"/setup/review": {"text": TEXT}, "/setup/apply": {"sha256": "0"}, "/setup/task": {"kind": "restart"},
          "/setup/end": {}}  # fmt: skip


@pytest.fixture
def site_file(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    for one in SLOW_DEMO.parent.iterdir():
        if one.is_file():
            (folder / one.name).write_bytes(one.read_bytes())
    return folder / SLOW_DEMO.name


@pytest.fixture
def page(core, tmp_path, site_file):
    with served(core, tmp_path, "--set-up", str(site_file)) as made:
        yield made


@pytest.fixture
def anna(page):
    made = page.visitor("anna")
    assert made.ask("/session/arm", {"password": PASSWORD})[0] == 200
    return made


def carried(visitor, path, body):
    """Prepared and confirmed: (status, what was answered)."""
    status, _, said = visitor.ask(path, body)
    if status != 200:
        return status, said
    status, _, said = visitor.ask("/orders/confirm", {"token": said["token"]})
    return status, said


def reviewed(visitor, text):
    status, _, said = visitor.ask("/setup/review", {"text": text})
    assert status == 200, said
    return said


def test_only_who_maintains_and_is_armed_sets_up(page, site_file):
    stranger, anna = page.visitor(), page.visitor("anna")
    others = [page.visitor("rita", "read"), page.visitor("otto", "operate")]
    for path in READS:
        assert stranger.ask(path)[0] == 401 and anna.ask(path)[0] == 200, path
        assert [one.ask(path)[0] for one in others] == [403, 403], path
    for path, body in WRITES.items():
        assert stranger.ask(path, body)[0] == 401, path
        assert [one.ask(path, body)[0] for one in others] == [403, 403], path
    sha256 = reviewed(anna, TIGHTER)["sha256"]
    for path, body in (("/setup/apply", {"sha256": sha256}), ("/setup/task", {"kind": "commission"})):
        status, _, said = anna.ask(path, body)
        assert (status, said["text"]) == (403, "this page only reads until it is armed")
    assert site_file.read_text() == TEXT


def test_a_page_without_the_option_shows_the_file_and_changes_nothing(core, tmp_path, site_file):
    with served(core, tmp_path, str(site_file)) as page:
        anna = page.visitor("anna")
        assert anna.ask("/session/arm", {"password": PASSWORD})[0] == 200
        status, _, said = anna.ask("/setup/file")
        assert status == 200 and said["text"] == TEXT and said["problems"] == [] and said["changes"] is False
        for path, body in (("/setup/apply", {"sha256": said["sha256"]}), ("/setup/task", {"kind": "restart"})):
            status, _, said = anna.ask(path, body)
            assert status == 403 and "without --set-up" in said["text"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[site]", "[site", "not TOML"),
        ("connection_import_w_max = 55000", "connection_import_w_maxi = 55000", "connection_import_w_max"),
        ("connection_import_w_max = 55000", "connection_import_w_max = -1", "connection_import_w_max"),
        ("schema = 1", "schema = 99", "this version reads schema 1"),
    ],
)
def test_what_is_wrong_is_told_as_check_tells_it_and_is_not_put_in_place(anna, site_file, old, new, words):
    assert old in TEXT
    said = reviewed(anna, TEXT.replace(old, new))
    assert words in said["problems"][0] and said["changed"]
    if "TOML" not in words:
        bad = site_file.with_name("bad.toml")
        bad.write_text(TEXT.replace(old, new))
        check = subprocess.run([sys.executable, "-m", "tidegate.runtime.cli", "check", str(bad)], capture_output=True,
                               text=True, check=False)  # fmt: skip
        assert said["problems"][0] in check.stdout + check.stderr
    status, answer = carried(anna, "/setup/apply", {"sha256": said["sha256"]})
    assert status == 503 and words in answer["text"], answer
    assert site_file.read_text() == TEXT and not list(site_file.parent.glob("*.previous"))


def test_a_file_is_put_in_place_and_the_one_before_comes_back(anna, page, site_file):
    said = reviewed(anna, TIGHTER)
    assert said["problems"] == [] and said["wider"] == []
    assert [line for line in said["diff"] if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "-connection_import_w_max = 55000", "+connection_import_w_max = 54000",
    ]  # fmt: skip
    status, answer = carried(anna, "/setup/apply", {"sha256": said["sha256"]})
    assert status == 200 and "connection_import_w_max" in answer["text"], answer
    assert site_file.read_text() == TIGHTER
    assert eventually(lambda: [one for one in notes(page) if one[0] == "config" and "at the page" in one[1]])
    status, _, found = anna.ask("/setup/file")
    assert found["previous"] == TEXT and not found["changed"]
    back = reviewed(anna, found["previous"])  # wider, and this core's cabinet is tripped
    assert back["wider"] == ["limits.connection_import_w_max"]
    status, answer = carried(anna, "/setup/apply", {"sha256": back["sha256"]})
    assert status == 200, answer
    assert site_file.read_text() == TEXT


def test_what_is_wider_waits_until_the_cabinet_is_idle(anna, page, site_file):
    wider = TEXT.replace("connection_import_w_max = 55000", "connection_import_w_max = 56000")
    page.core.values["site.mode"] = (float(MODES_BY_NUMBER.index("run")), 1)
    with Client(f"ipc://{page.env['TIDEGATE_RUNTIME_DIR']}/{SITE}") as client:
        eventually(lambda: client.why()["mode"] == "run")
    status, answer = carried(anna, "/setup/apply", {"sha256": reviewed(anna, wider)["sha256"]})
    assert status == 503 and "is wider or no plain limit, and the cabinet is not idle" in answer["text"], answer
    assert site_file.read_text() == TEXT
    assert carried(anna, "/setup/apply", {"sha256": reviewed(anna, TIGHTER)["sha256"]})[0] == 200
    assert site_file.read_text() == TIGHTER


def test_two_people_at_once_and_a_text_that_nobody_looked_at(anna, site_file):
    sha256 = reviewed(anna, TIGHTER)["sha256"]
    site_file.write_text(TEXT + "# somebody else\n")
    status, answer = carried(anna, "/setup/apply", {"sha256": sha256})
    assert status == 503 and "changed by somebody else meanwhile" in answer["text"]
    status, answer = carried(anna, "/setup/apply", {"sha256": "f" * 64})
    assert status == 409 and "not looked at here" in answer["text"]
    assert site_file.read_text().endswith("# somebody else\n")


def test_orders_on_site_only_keep_set_up_away(anna, page, site_file):
    with Client(f"ipc://{page.env['TIDEGATE_RUNTIME_DIR']}/{SITE}") as client:
        client.ask("control", place="local")
    for path, body in (("/setup/apply", {"sha256": reviewed(anna, TIGHTER)["sha256"]}),
                       ("/setup/task", {"kind": "commission"}), ("/setup/task", {"kind": "restart"})):  # fmt: skip
        status, answer = carried(anna, path, body)
        assert status == 403 and "on site only" in answer["text"], answer
    assert site_file.read_text() == TEXT


def test_a_site_file_that_is_too_long_is_refused(anna):
    assert anna.ask("/setup/review", {"text": "#" * 100_001})[0] == 413
    assert anna.ask("/setup/review", b"{" + b" " * 300_000)[0] == 413
    assert anna.ask("/setup/task", b"{" + b" " * 20_000)[0] == 413


def test_doctor_runs_and_its_lines_come(anna, page):
    status, _, said = anna.ask("/setup/task", {"kind": "doctor"})
    assert status == 200 and said["command"].startswith("tidegate doctor ")
    assert anna.ask("/setup/task", {"kind": "doctor"})[0] in (200, 429)  # one at a time
    done = eventually(lambda: (job := anna.ask("/setup/job")[2])["code"] is not None and job, seconds=JOB_S)
    assert re.search(r"^\d+ ok, \d+ cost you something, \d+ to fix$", done["lines"][-1]), done["lines"]
    assert any("site file" in line for line in done["lines"]) and not any("latency" in line for line in done["lines"])
    assert done["code"] in (0, 1, 2)


@pytest.mark.parametrize(
    "task",
    [
        Task("format"),
        Task("commission", skip=["--yes"]),
        Task("commission", skip=["a b"]),
    ],
)
def test_no_words_but_those_of_the_table_reach_a_command(task, tmp_path):
    with pytest.raises(Refused):
        command(task, tmp_path / "x.toml", tmp_path, "anna", tmp_path / "a")


def test_a_command_that_moves_the_battery_ends_when_nobody_looks(tmp_path, monkeypatch):
    """By the signal of Ctrl-C, which commission knows; here a program in its place that says that it came."""
    program = (
        "import signal, sys, time\n"
        "def end(*_):\n    print('given back', flush=True); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, end)\nprint('moves', flush=True)\ntime.sleep(600)\n"
    )

    async def scenario():
        now, noted = [0.0], []

        async def note(*words):
            noted.append(words)

        real = asyncio.create_subprocess_exec
        monkeypatch.setattr(asyncio, "create_subprocess_exec", lambda *w, **k: real(sys.executable, "-c", program, **k))
        jobs = SetupJobs(tmp_path / "x.toml", tmp_path, lambda: False, note, clock=lambda: now[0])
        job = await jobs.start(Task("commission"), "anna")
        while job.lines != ["moves"]:
            await asyncio.sleep(0.05)
        with pytest.raises(Refused, match="commission of anna is running"):
            await jobs.start(Task("commission"), "bert")
        now[0] = LOOKED_S - 1
        jobs.look()
        now[0] = 2 * LOOKED_S - 2
        await asyncio.sleep(2.5)
        assert job.code is None  # somebody looked
        now[0] = 2 * LOOKED_S
        while job.code is None:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)
        assert (job.code, job.lines, job.ended_because) == (130, ["moves", "given back"], "nobody looks at it any more")
        assert noted == [("anna", "set-up commission", "ended with code 130 nobody looks at it any more")]

    asyncio.run(scenario())


@pytest.mark.timeout(900)
def test_the_first_hour_at_the_page(tmp_path):
    """A unit without a site: init says what it lacks, a file, commission with a signed report, run, restart."""
    path, state = tmp_path / "hall.toml", tmp_path / "state" / "hall"
    env = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(tmp_path / "run"), "TIDEGATE_STATE_DIR": str(tmp_path / "state")}
    words = [sys.executable, "-m", "tidegate.runtime.cli"]
    page = subprocess.Popen([*words, "web", "serve", "--set-up", "--pair", "--port", "0", str(path)], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    site = None
    try:
        found = re.search(r"https://127\.0\.0\.1:(\d+)", line := page.stdout.readline())
        assert found, line
        port = int(found[1])
        anna = Visitor(port, state / "web" / "ca.pem")
        while not (code := re.match("code ([A-Z0-9]{5}-[A-Z0-9]{5}), role maintain", line)):
            line = page.stdout.readline()
        assert anna.ask("/session/pair", {"code": code[1], "user": "anna", "password": PASSWORD})[0] == 200
        assert anna.ask("/session/arm", {"password": PASSWORD})[0] == 200
        assert anna.ask("/setup/file")[2]["text"] is None

        def ended():
            found = lambda: (job := anna.ask("/setup/job")[2])["code"] is not None and job  # noqa: E731
            return eventually(found, seconds=JOB_S)

        task = {"kind": "init", "answers": {"name": "hall", "energy_wh": "20000"}}
        assert carried(anna, "/setup/task", task)[0] == 200
        job = ended()
        assert job["code"] != 0 and job["lines"][-1] == "tidegate: no site file was written", job["lines"]
        text = TEXT.replace('name = "demo"', 'name = "hall"')
        for one in SLOW_DEMO.parent.iterdir():
            (tmp_path / one.name).write_bytes(one.read_bytes())
        path.write_text(text)
        assert anna.ask("/setup/file")[2]["problems"] == []
        skip = ["signs", "phases", "lag", "meter", "revert"]
        status, said = carried(anna, "/setup/task", {"kind": "commission", "start": True, "skip": skip})
        assert status == 200, said
        job = ended()
        assert any("signed by" in line for line in job["lines"]), job["lines"]
        report = next((state / "web").glob("commissioning-*.html"))
        assert "by anna" in report.read_text() or "anna" in report.read_text()
        check = subprocess.run([*words, "commission", "--verify", str(report)], env=env, capture_output=True, text=True)
        assert "unchanged since it was signed" in check.stdout
        site = subprocess.Popen([*words, "run", str(path), "--no-carbon"], env=env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)  # fmt: skip
        while "runs; core pid" not in (line := site.stdout.readline()):
            assert line, "the site did not start"
        assert carried(anna, "/setup/task", {"kind": "restart"})[0] == 200
        job = ended()
        assert job["code"] == 0 and job["lines"][-1].startswith("restarted: mode "), job["lines"]
        rows = eventually(lambda: [one for one in events(env) if one["name"] == "set-up restart"])
        assert json.dumps(rows[0]).count("anna")
    finally:
        for one in (site, page):
            if one is not None:
                one.send_signal(signal.SIGTERM)
                one.communicate(timeout=120)


def events(env):
    with Client(f"ipc://{env['TIDEGATE_RUNTIME_DIR']}/hall") as client:
        return [one for one in client.replay("event")[0] if one["event"] == "note"]
