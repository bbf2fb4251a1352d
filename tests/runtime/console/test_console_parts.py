"""The parts of the console: a screen that sends only changes, the site file in the making, verdicts and findings."""

import importlib.util
import itertools
import os
import random
import re
import string
from importlib.resources import files
from pathlib import Path

import pyte
import pytest

from tests.runtime.console.console_rig import ESCAPES, NAME, Desk
from tidegate.config.faults import default_table
from tidegate.config.site import SiteError
from tidegate.ext.abi import image
from tidegate.hal.description import Control, Limits
from tidegate.runtime.api.answers import SiteDescription
from tidegate.runtime.console.actions import judge
from tidegate.runtime.console.commands import grammar
from tidegate.runtime.console.screen import Screen
from tidegate.runtime.console.session import REFRESH_BYTES
from tidegate.runtime.console.siteedit import EditError, Staged, previous
from tidegate.runtime.console.status import MODE_WORDS, WORDS, status_lines
from tidegate.runtime.findings.findings import findings
from tidegate.runtime.state import atomic_file

SIMULATED = Path(str(files("tidegate.config").joinpath("sites/simulated.toml")))
ROOT = Path(__file__).resolve().parents[3]


# ---- the screen ----


@pytest.mark.parametrize("budget", [20, REFRESH_BYTES])
def test_a_terminal_shows_what_was_drawn_and_no_refresh_is_over_its_budget(budget):
    """pyte, a terminal that is not ours, is the judge."""
    dice = random.Random(f"screen {budget}")
    judge_ = pyte.Screen(80, 24)
    stream = pyte.ByteStream(judge_)
    screen = Screen(24, 80)
    lines = ["".join(dice.choice("ab  ") for _ in range(dice.randrange(0, 80))) for _ in range(24)]
    for _ in range(60):
        for _ in range(dice.randrange(0, 4)):
            row = dice.randrange(24)
            lines[row] = "".join(dice.choice("abc   ") for _ in range(dice.randrange(0, 90)))
        screen.draw(lines)
        first = screen._shown is None
        sent = screen.emit(budget)
        assert first or len(sent) <= budget
        stream.feed(sent.encode())
    while not screen.done:
        sent = screen.emit(budget)
        assert 0 < len(sent) <= budget
        stream.feed(sent.encode())
    assert [row.rstrip() for row in judge_.display] == [line[:79].rstrip() for line in lines]


def test_nothing_new_costs_nothing():
    screen = Screen(24, 80)
    screen.draw(["the same"] * 24)
    screen.emit(0)
    screen.draw(["the same"] * 24)
    assert screen.emit(REFRESH_BYTES) == ""


def test_the_fullest_status_fits_two_seconds_of_line(tmp_path):
    """Every row in use, alarms to the bottom: 24 rows of 79 characters are 1.98 s at 9600 baud."""
    desk = Desk(tmp_path)
    desk.gateway.why.update(
        faults=[f"unit0 fault_with_a_long_name_{i}" for i in range(30)], latches=["unit0 bms_invalid"], stopped=True,
        lease={"holder": "h" * 60, "priority": "maintenance", "expires_ms": 1, "setpoint_w": 1e8},
    )  # fmt: skip
    desk.gateway.site["units"] = [dict(desk.gateway.site["units"][0], name="n" * 15)] * 9
    desk.plant.description = SiteDescription()
    desk.plant.poll(force=True)
    lines = status_lines(desk.plant, "w" * 30, "m" * 90, 0.0)
    assert len(lines) == 24 and all(len(line) <= 79 for line in lines)
    screen = Screen(24, 80)
    screen.draw(lines)
    assert len(screen.emit(0)) * 10 / 9600 <= 2.0


def test_a_terminal_that_is_too_small_gets_lines_and_the_reason(tmp_path):
    desk = Desk(tmp_path, vt100=True)
    desk.session.feed(b"\x1b[10;40R")
    desk.login()
    said = desk.enter("status")
    assert "the terminal is 40 x 10; the screen needs 80 x 24" in " ".join(said.split())
    assert "ALARMS" in said and b"\x1b[2J" not in bytes(desk.sent)


def test_a_live_screen_repaints_within_200_bytes_a_second_whatever_moves(tmp_path):
    desk = Desk(tmp_path, vt100=True)
    desk.login()
    desk.session.feed(b"status\r")
    desk.sent.clear()
    dice = random.Random("live")
    for _ in range(60):
        for name in desk.gateway.points:
            desk.gateway.points[name] = [dice.uniform(-5e4, 5e4), 1]
        for _ in range(10):
            desk.now_s += 0.1
            desk.session.tick()
        assert len(desk.sent) <= 200
        desk.sent.clear()
        desk.session.feed(b"\x1b[0n")


# ---- findings ----


def found(desk: Desk) -> str:
    desk.plant.poll(force=True)
    return " | ".join(f"{one.title}: {one.because}" for one in findings(desk.plant))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda g: g.points.update({"bms1.temp_max_c": [None, 4]}), "bms1 sends a value that cannot be"),
        (
            lambda g: g.points.update({"bms1.temp_max_c": [52.0, 1]}),
            "a temperature sensor of bms1 is not to be believed",
        ),
        (
            lambda g: g.points.update(
                {f"grid.power_l{i}_w": [w, 1] for i, w in ((1, 9e3), (2, -9e3), (3, 9e3))} | {"site.ess_w": [0.0, 1]}
            ),
            "one current transformer of grid faces the wrong way: L2",
        ),
        (lambda g: g.health["core"].update(running=False), "the core does not run"),
        (lambda g: g.health["core"].update(stalled=True), "the core stands still"),
        (lambda g: g.health["journal"].update(error="disk full"), "the journal cannot be written: disk full"),
        (lambda g: g.why.update(stopped=True), "stopped by order"),
        (
            lambda g: (
                g.why.update(mode="run", units=[{"name": "one", "mode": "run"}, {"name": "two", "mode": "tripped"}]),
                g.health["gateway"].update(autostart=False),
            ),
            "a unit waits to be armed: two: no fault is present, autostart is off",
        ),
        (
            lambda g: g.why.update(
                mode="run", units=[{"name": "one", "mode": "run"}, {"name": "two", "mode": "tripped", "latches": ["x"]}]
            ),
            "a unit waits for an acknowledgement: two: x",
        ),
        (lambda g: g.health["buses"]["can"].update(can={"state": "bus-off", "ids": {}}), "CAN bus can is bus-off"),
        (
            lambda g: g.health["buses"]["can"].update(
                can={"state": "active", "ids": {"351": {"t_last_ns": 10**9, "period_ns": 10**8},
                                               "355": {"t_last_ns": 10**10, "period_ns": 10**8}}}
            ),
            "leaves out frames on CAN bus can: missing: 0x351 (9.0 s ago); 1 other ids come",
        ),
        (
            lambda g: g.health["buses"]["serial"].update(
                meters={"slaves": [{"alive": 0, "silent_run": 7, "t_ok_ns": 4 * 10**9}]}
            ),
            "grid (grid-meter) does not answer on line meters: 7 time-outs in a row, last answer 6.0 s ago",
        ),
        (
            lambda g: g.health["buses"]["serial"].update(meters={"slaves": [{"gap_extra_us": 8000}]}),
            "grid is asked more slowly than its line allows: 8.0 ms of silence before each request (line meters)",
        ),
    ],
)  # fmt: skip
def test_evidence_leads_to_its_cause(tmp_path, change, expected):
    desk = Desk(tmp_path)
    assert found(desk) == ""
    change(desk.gateway)
    assert expected in found(desk)


def test_a_load_below_zero_is_believed_only_when_it_stays(tmp_path):
    desk = Desk(tmp_path)
    desk.gateway.points.update({"site.load_w": [-9000.0, 1], "site.grid_w": [-9000.0, 1]})
    assert "transformers" not in found(desk)
    desk.wait(5)
    assert "the current transformers of grid face the wrong way" in found(desk)


STEP = 5000.0


@pytest.mark.parametrize(
    ("battery", "grid", "verdict"),
    [
        (STEP, 30_000 - STEP, "converter and grid meter agree"),
        (STEP, 30_000 + STEP, "the grid meter went the WRONG way"),
        (STEP, 30_000, "the grid meter did not see the step"),
        (STEP, 30_000 - 2 * STEP, "the grid meter saw 200% of it"),
        (-STEP, 30_000 + STEP, "the converter went the OTHER way"),
        (0.0, 30_000, "the converter did not follow"),
        (float("nan"), 30_000, "its power was not known"),
        (STEP, float("nan"), "grid      its power was not known"),
    ],
)
def test_a_step_is_judged_by_what_moved(battery, grid, verdict):
    rested = [(t / 10, 0.0, 30_000.0) for t in range(15)]
    rows = [(t / 10, battery, float(grid)) for t in range(1, 50)]
    assert verdict in "\n".join(judge(STEP, rested, rows, "applied"))


# ---- the site file ----


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(SIMULATED.read_text() + "# the last line\n")
    return path


def test_a_staged_change_keeps_every_other_line_and_comment(site):
    staged = Staged(site)
    staged.set("limits.connection_import_w_max", "50000")
    staged.set("storage.cabinet.soc_min", "0.2")
    changed = [line for line in staged.diff() if line[:1] in "+-" and line[:3] not in ("---", "+++")]
    assert changed == ["+soc_min = 0.2", "-connection_import_w_max = 60000", "+connection_import_w_max = 50000"]
    assert staged.problems() == [] and site.read_text() == staged.old


@pytest.mark.parametrize(
    ("key", "value", "wider"),
    [
        ("limits.connection_import_w_max", "50000", False),
        ("limits.connection_import_w_max", "70000", True),
        ("limits.connection_export_w_max", "1000", False),
        ("storage.cabinet.soc_min", "0.2", True),  # its default is no "no limit": only a person can say what it was
        ("storage.cabinet.charge_w_max", "20000", False),
        ("storage.cabinet.charge_w_max", "40000", True),
        ("control.peak_w_max", "30000", True),
        ("device.grid.invert", "true", True),
    ],
)
def test_only_a_smaller_limit_is_tighter(site, key, value, wider):
    staged = Staged(site)
    staged.set(key, value)
    assert bool(staged.wider()) is wider


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits", "1"),
        ("nothing.here", "1"),
        ("storage.other.soc_min", "0.2"),
        ("site.name", "other"),
        ("limits.connection_import_w_max", "1 # x\n[evil]"),
        ("limits.connection_import_w_max", "\x1b[2J"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_nothing_staged(site, key, value):
    staged = Staged(site)
    with pytest.raises(EditError):
        staged.set(key, value)
    assert not staged.changed


def test_a_change_that_makes_no_sound_site_is_not_applied(tmp_path, site):
    desk = Desk(tmp_path, site=site)
    desk.login()
    before = site.read_text()
    desk.enter("config set storage.cabinet.soc_min 0.99")
    assert "not applied: " in desk.enter("config apply")
    desk.enter("config drop", "config set limits.connection_import_w_max fifty")
    assert "expected" in desk.enter("config check") and "not applied" in desk.enter("config apply")
    assert site.read_text() == before


def test_a_file_that_somebody_else_changed_is_not_overwritten(site):
    staged = Staged(site)
    staged.set("limits.connection_import_w_max", "50000")
    site.write_text(site.read_text() + "# another hand\n")
    with pytest.raises(SiteError, match="somebody else"):
        staged.apply()
    assert "another hand" in site.read_text()


def test_applying_asks_for_the_cabinet_and_says_where_the_old_file_is(tmp_path, site):
    desk = Desk(tmp_path, site=site)
    desk.login()
    desk.enter("config set limits.connection_import_w_max 50000")
    assert "site.toml.previous" in " ".join(desk.enter("config apply").split())
    assert "written" in desk.enter(NAME)
    assert "connection_import_w_max = 50000" in site.read_text()
    assert "connection_import_w_max = 60000" in previous(site).read_text()
    note = desk.gateway.asked("note")[-1]
    assert note["name"] == "config" and "connection_import_w_max" in note["detail"]


class PowerCut(BaseException):
    """Not an Exception: no handler of the code under test may mend what a loss of power leaves."""


class Power:
    """Lets the power go before the n-th file operation, and knows what a disk would have kept by then.

    A rename whose file was not synced first could leave an empty file after a real loss; that is noted as a flaw.
    """

    def __init__(self, monkeypatch, cut_at: int) -> None:
        self.left = cut_at
        self.synced: set[int] = set()
        self.flaws: list[str] = []
        self.names: dict[int, str] = {}
        real = {name: getattr(os, name) for name in ("open", "write", "fsync", "rename", "unlink")}

        def gate(name):
            def call(*words, **more):
                if self.left <= 0:
                    raise PowerCut
                self.left -= 1
                self._watch(name, words)
                if name == "write" and self.left == 0:
                    words = (words[0], bytes(words[1])[: len(words[1]) // 2])  # the sector that was being written
                made = real[name](*words, **more)
                if name == "open":
                    self.names[made] = str(words[0])
                return made

            return call

        for name in real:
            monkeypatch.setattr(atomic_file.os, name, gate(name))

    def _watch(self, name, words) -> None:
        if name == "write":
            self.synced.discard(words[0])
        elif name == "fsync":
            self.synced.add(words[0])
        elif name == "rename":
            fds = [fd for fd, path in self.names.items() if path == str(words[0])]
            if not any(fd in self.synced for fd in fds):
                self.flaws.append(f"{words[0]} was renamed before it was synced")


@pytest.mark.parametrize("cut_at", range(0, 16))
def test_a_power_cut_at_any_step_of_config_leaves_the_old_file_or_the_new(site, cut_at):
    staged = Staged(site)
    old = staged.old
    staged.set("limits.connection_import_w_max", "50000")
    new = staged.text
    with pytest.MonkeyPatch.context() as patch:
        power = Power(patch, cut_at)
        try:
            staged.apply()
        except PowerCut:
            done = False
        else:
            done = True
    assert power.flaws == []
    assert site.read_text() == (new if done else site.read_text()) and site.read_text() in (old, new)
    before = previous(site)
    assert not before.exists() or before.read_text() == old
    assert Staged(site).problems() == [], "what is left starts"
    if cut_at == 15:
        assert done, "the last case must be one that ran to its end"


def test_a_full_disk_leaves_the_old_file(tmp_path, site, monkeypatch):
    desk = Desk(tmp_path, site=site)
    desk.login()
    desk.enter("config set limits.connection_import_w_max 50000", "config apply")

    def full(*_words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_file.os, "write", full)
    assert "not applied, the old file stands: No space left" in desk.enter(NAME)
    assert "60000" in site.read_text()


# ---- fuzz, a slice of `make fuzz` ----


def test_fuzzed_lines_raise_nothing_and_stop_answers_after_each_batch(tmp_path):
    spec = importlib.util.spec_from_file_location("fuzz_console", ROOT / "tests" / "fuzz" / "fuzz_console.py")
    assert spec is not None and spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    counts = fuzz.run(10_000, 20260301, tmp_path)
    assert counts["lines"] == 10_000 and counts["stops"] == 10 and counts["logins"] == 5


def test_the_rig_takes_out_only_what_the_console_sends():
    assert ESCAPES.sub(b"", b"\x1b[2Ja\x1b[5n") == b"a"


def test_every_verb_stands_on_the_page():
    page = (Path(__file__).resolve().parents[3] / "docs" / "console.md").read_text()
    verbs = {form.tokens[0] for form in grammar().forms} - {"help", "exit", "logout"}
    assert {verb for verb in verbs if not re.search(rf"`{verb}\b", page)} == set()


def test_every_reason_of_the_image_has_a_sentence_of_its_own():
    assert set(WORDS) == set(image.REASONS_BY_NUMBER)
    assert len(set(WORDS.values())) == len(WORDS)
    keys = {key for words in WORDS.values() for _, key, _, _ in string.Formatter().parse(words) if key}
    assert keys <= {*Limits.__struct_fields__, *Control.__struct_fields__}


def test_every_mode_of_the_image_has_a_sentence_of_its_own():
    assert set(MODE_WORDS) == set(image.MODES_BY_NUMBER)
    assert len(set(MODE_WORDS.values())) == len(MODE_WORDS)


def test_every_fault_of_the_table_has_its_sentences():
    rows = default_table()
    assert len(rows) > 40
    for row in rows:
        for text in (row.text, row.what, row.clear):
            assert len(text.split()) > 1, row.id


def test_why_names_reason_and_mode_as_sentences(tmp_path):
    desk = Desk(tmp_path)
    desk.login()
    desk.gateway.site["reasons"] = list(image.REASONS_BY_NUMBER)
    for reason, mode in zip(itertools.cycle(image.REASONS_BY_NUMBER), image.MODES_BY_NUMBER, strict=False):
        desk.gateway.why.update(reason=reason, mode=mode)
        desk.plant.poll(force=True)
        shown = " ".join(desk.enter("why").split())
        assert MODE_WORDS[mode][:40] in shown and reason in shown
