"""`tidegate commission`: its arithmetic on made-up recordings, its files, and the whole of it against a live plant."""

import os
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.runtime.cabinet import NAMEPLATE, TIDEGATE, Cabinet, eventually, tidegate
from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.ext.abi import program
from tidegate.hal.description import described
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.cli.main import main
from tidegate.runtime.commissioning import measure, plant_session, private_run, sitefile, steps
from tidegate.runtime.commissioning.commissioning_report import MARK, SIGNED, Report, html, signed, verify
from tidegate.runtime.commissioning.measure import CROSSED, MISSING, REVERSED, RIGHT, UNCLEAR
from tidegate.runtime.commissioning.plant_session import UNIDENTIFIED, Plant
from tidegate.runtime.commissioning.prompts import SetupError
from tidegate.runtime.commissioning.revert import reverted_after
from tidegate.runtime.state.device_key import DeviceKey, signed_by
from tidegate.runtime.tools.open_bus import RegisterReader

SIMULATED = str(Path(__file__).parents[3] / "config/sites/simulated.toml")
SIMULATED_TEXT = Path(SIMULATED).read_text()

# ------------------------------------------------------------------------------------------------- arithmetic

EVERY_S = 0.005
TIMES = [0.0, 2.0, 4.0, 6.0, 8.0]
LEVELS = [0.0, 6000.0, 0.0, -6000.0, 0.0]
END_S = 10.0


def recording(*, tau_s=0.05, dead_s=0.02, gain=1.0, delay_s=0.0, share=-1.0, noise_w=0.0, update_s=0.0, seed=1):
    """(t, setpoint, converter, meter) of steps: a first-order converter, a meter that is late and updates seldom."""
    t = np.arange(0.0, END_S, EVERY_S)
    setpoint = np.select([t >= at for at in TIMES[::-1]], LEVELS[::-1])
    ess, state = np.zeros_like(t), 0.0
    for i, at in enumerate(t):
        due = setpoint[np.searchsorted(t, at - dead_s, "right") - 1] if at >= dead_s else 0.0
        state += (due - state) * (1 - np.exp(-EVERY_S / tau_s))
        ess[i] = state * gain
    grid = 35e3 + share * np.interp(t - delay_s, t, ess) + np.random.default_rng(seed).normal(0, noise_w, len(t))
    if update_s:
        grid = grid[(np.floor(t / update_s) * update_s / EVERY_S).astype(int)]
    return t, setpoint, ess, grid


@pytest.mark.parametrize(
    ("share", "verdict"), [(-1.0, RIGHT), (1.0, REVERSED), (0.0, MISSING), (-0.33, UNCLEAR), (-0.97, RIGHT)]
)
def test_the_sign_of_a_meter_is_told_by_its_share_of_the_steps(share, verdict):
    t, _, ess, grid = recording(share=share, noise_w=300)
    found = measure.shares(t, ess, grid, measure.edges(TIMES, END_S), 6000)
    assert len(found) == 4 and measure.judge_total(found) == verdict


def test_a_load_that_jumps_in_one_edge_does_not_turn_the_sign():
    t, _, ess, grid = recording()
    grid = grid + np.where(t > 4.5, 25e3, 0.0)
    assert measure.judge_total(measure.shares(t, ess, grid, measure.edges(TIMES, END_S), 6000)) == RIGHT


def test_a_load_that_never_rests_is_called_unclear():
    t, _, ess, grid = recording()
    grid = grid + 40e3 * np.sin(2 * np.pi * 0.37 * t)
    assert measure.judge_total(measure.shares(t, ess, grid, measure.edges(TIMES, END_S), 6000)) == UNCLEAR


def test_a_converter_that_does_not_move_gives_no_verdict():
    t, _, _, grid = recording()
    assert len(measure.shares(t, np.zeros_like(t), grid, measure.edges(TIMES, END_S), 6000)) == 0


@pytest.mark.parametrize(
    ("parts", "verdicts"),
    [
        ((1, 1, 1), [RIGHT] * 3),
        ((1, -1, 1), [RIGHT, REVERSED, RIGHT]),
        ((-0.5, -0.5, 1), [CROSSED, CROSSED, RIGHT]),
        ((1, 1, 0), [RIGHT, RIGHT, MISSING]),
        ((0.2, 1, 1), [MISSING, RIGHT, RIGHT]),
        ((0.45, 1, 1), [UNCLEAR, RIGHT, RIGHT]),
        ((0, 3, 0), [RIGHT] * 3),  # a converter on one phase
        ((0, -3, 0), [RIGHT, REVERSED, RIGHT]),
    ],
)
def test_each_phase_is_told_by_its_share(parts, verdicts):
    assert measure.judge_phases([np.full(4, part / 3) for part in parts]) == verdicts


@pytest.mark.parametrize(("tau_s", "dead_s"), [(0.02, 0.005), (0.05, 0.02), (0.3, 0.1)])
def test_lag_and_dead_time_come_out_as_they_were_put_in(tau_s, dead_s):
    t, setpoint, ess, _ = recording(tau_s=tau_s, dead_s=dead_s, gain=0.97)
    found = measure.lag(t, setpoint, ess, measure.edges(TIMES, END_S))
    assert found.tau_ms / 1e3 == pytest.approx(tau_s, abs=1.5 * EVERY_S) and found.gain == pytest.approx(0.97, abs=0.01)
    assert found.lag63_ms / 1e3 == pytest.approx(tau_s + dead_s, abs=1.5 * EVERY_S)
    assert found.dead_ms / 1e3 == pytest.approx(dead_s, abs=2 * EVERY_S)


@pytest.mark.parametrize(
    ("gain", "stale", "verdict"), [(0.8, False, "finding"), (1.0, True, "unclear"), (1.0, False, "ok")]
)
def test_a_gain_is_a_finding_only_where_the_edges_agree(gain, stale, verdict):
    t, setpoint, ess, grid = recording(gain=gain)
    if stale:  # nobody looked in time: the reading before two of the edges is older than its plateau
        for first, last in ((1.5, 2.0), (5.5, 6.0)):
            ess = np.where((t >= first) & (t < last), -1500.0, ess)
    seen = {"unit0.setpoint_w": setpoint, "pcs1.power_w": ess, "grid.power_w": grid}
    report = Report()
    steps.lags(steps.Motion(t, seen, measure.edges(TIMES, END_S), (8.0, 10.0), 5.0), 0, "pcs1", report)
    assert report.rows[0].verdict == verdict
    assert ("gain" in report.tables["commissioning"]["converter"]["pcs1"]) == (not stale)


def test_an_order_that_is_answered_late_does_not_put_its_own_answer_into_the_plateau_before():
    t, setpoint, ess, _ = recording()
    late = [0.0, *(at + 0.3 for at in TIMES[1:])]
    found = measure.departures(t, setpoint, late, 6000.0)
    assert found == pytest.approx(TIMES, abs=2 * EVERY_S)
    assert measure.departures(t, setpoint, TIMES, 6000.0) == pytest.approx(TIMES, abs=2 * EVERY_S)
    assert abs(measure.lag(t, setpoint, ess, measure.edges(late, END_S)).gain - 1.0) > 0.02, "as it was"
    made = measure.lag(t, setpoint, ess, measure.edges(found, END_S))
    assert made.gains == pytest.approx((1.0, 1.0), abs=0.01) and made.tau_ms == pytest.approx(50.0, abs=8.0)


@pytest.mark.parametrize(("interval_s", "said"), [(0.4, "a new value every 400 ms"), (None, "half of a step")])
def test_an_interval_that_nobody_could_see_is_the_one_that_the_loop_learnt(interval_s, said):
    t, _, ess, grid = recording()
    seen = {"grid.power_w": grid}
    report = Report()
    made = steps.Motion(t, seen, measure.edges(TIMES, END_S), (9.0, 9.001), 5.0, interval_s)
    steps.meter(made, ess, "grid", report)
    assert report.rows[0].says.startswith(said)
    assert report.tables["commissioning"].get("meter_interval_ms") == (400.0 if interval_s else None)
    assert "meter_interval_spread_ms" not in report.tables["commissioning"]


@pytest.mark.parametrize(("tau_s", "least", "most"), [(0.05, 3e4, 9e4), (0.3, 5e3, 1.5e4)])
def test_ramp_and_resolution_are_those_of_the_readings(tau_s, least, most):
    t, _, ess, grid = recording(tau_s=tau_s)
    assert least < measure.ramp_w_per_s(t, ess, measure.edges(TIMES, END_S)) < most
    assert np.isnan(measure.ramp_w_per_s(t, np.zeros_like(t), measure.edges(TIMES, END_S)))
    assert measure.resolution_w(np.round(grid / 50.0) * 50.0) == 50.0 and np.isnan(measure.resolution_w(np.ones(9)))


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.9])
def test_the_delay_of_a_meter_comes_out_as_it_was_put_in(delay_s):
    t, _, ess, grid = recording(delay_s=delay_s)
    found, _ = measure.delay_ms(t, ess, -grid, measure.edges(TIMES, END_S))
    assert found / 1e3 == pytest.approx(delay_s, abs=EVERY_S)


@pytest.mark.parametrize("update_s", [0.02, 0.2, 1.0])
def test_the_interval_of_a_meter_comes_out_as_it_was_put_in(update_s):
    t = np.arange(0.0, 8.0, EVERY_S)
    seen = np.floor(t / update_s) * 150
    found, spread = measure.interval_ms(t, seen, (0.0, 8.0))
    assert found / 1e3 == pytest.approx(update_s, rel=0.05) and spread <= 1e3 * EVERY_S
    assert np.isnan(measure.interval_ms(t, np.zeros_like(t), (0.0, 8.0))).all()


def test_a_machine_that_stood_still_now_and_then_does_not_make_the_meter_slower():
    t = np.arange(0.0, 8.0, EVERY_S)
    t = t[t % 0.5 > 0.15]  # three tenths of the time nobody looked
    assert measure.interval_ms(t, np.floor(t / 0.02) * 150, (0.0, 8.0))[0] == pytest.approx(20.0, rel=0.05)


def test_a_revert_counts_only_when_it_stays():
    rows = [(0.1 * i, 29e3) for i in range(10)]
    spike = [*rows, (1.0, 35e3), (1.1, 29e3), (1.2, 29e3), (1.3, 29e3)]
    assert reverted_after(spike, 29e3, 35e3) is None
    back = [(1.0, 34e3), (1.1, 35e3), (1.2, 35e3)]
    assert reverted_after(rows + back, 29e3, 35e3) == 1.0
    assert reverted_after([], 29e3, 35e3) is None


@pytest.mark.parametrize("limited", [False, True])
def test_what_is_missing_is_no_finding_while_power_was_cut(limited):
    t, setpoint, _, grid = recording()
    seen = {"unit0.setpoint_w": setpoint, "pcs1.power_w": np.zeros_like(t), "grid.power_w": grid}
    report = Report()
    made = steps.Motion(t, seen, measure.edges(TIMES, END_S), (8.0, 10.0), 5.0, limited=limited)
    steps.lags(made, 0, "pcs1", report)
    assert report.rows[0].says == "did not follow the steps"
    assert report.rows[0].verdict == ("unclear" if limited else "finding")


# ------------------------------------------------------------------------------------------------- its files


def page(tmp_path):
    key = DeviceKey.at(tmp_path / "k.pem")
    report = Report()
    report.add("CT of <grid>", "ok", "shows 100 % & more")
    return key, signed(html(report, site="x", at="now", by="me", key=key.public, about=[("a", "b")]), key)


def test_a_report_is_signed_and_every_changed_byte_shows(tmp_path):
    key, text = page(tmp_path)
    path = tmp_path / "p.html"
    path.write_text(text)
    assert verify(path, None) == key.public and verify(path, key.public) == key.public
    assert "&lt;grid&gt;" in text and "http" not in text  # nothing is fetched when it is opened
    for at in range(0, len(text), 37):
        path.write_text(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])
        with pytest.raises(SetupError, match=r"changed after it was signed|not a signed commissioning report"):
            verify(path, None)


def test_a_report_without_a_pinned_key_is_said_and_is_no_success(tmp_path):
    """A forger signs with a key of the forger's own: the page then verifies, by whom is the question."""
    key, text = page(tmp_path)
    path = tmp_path / "p.html"
    path.write_text(text)
    unpinned = CliRunner().invoke(main, ["commission", "--verify", str(path)])
    assert unpinned.exit_code == 3 and "names its own key" in unpinned.output
    pinned = CliRunner().invoke(main, ["commission", "--verify", str(path), "--key", key.public])
    assert pinned.exit_code == 0, pinned.output
    other = DeviceKey.at(tmp_path / "other.pem").public
    assert CliRunner().invoke(main, ["commission", "--verify", str(path), "--key", other]).exit_code not in (0, 3)


def test_a_report_that_was_signed_under_its_former_name_still_verifies(tmp_path):
    key, text = page(tmp_path)
    unsigned = SIGNED.sub(MARK, text)
    signature = key.sign(b"tidegate commissioning protocol\n" + unsigned.encode())
    path = tmp_path / "old.html"
    path.write_text(unsigned.replace(MARK, MARK.replace('content=""', f'content="{signature}"')))
    assert verify(path, key.public) == key.public
    path.write_text(path.read_text().replace("shows 100 %", "shows 101 %"))
    with pytest.raises(SetupError, match="changed after it was signed"):
        verify(path, None)


def test_the_former_key_of_the_report_is_read_and_replaced(tmp_path):
    text = SIMULATED_TEXT + '\n[commissioning]\nprotocol = "hall.commissioning-1.html"\n'
    site = tmp_path / "site.toml"
    site.write_text(text)
    assert load_site(site).commissioning.protocol == "hall.commissioning-1.html"
    site.write_text(sitefile.edited(text, {"commissioning": {"report": "hall.commissioning-2.html"}}, {}))
    made = load_site(site).commissioning
    assert made.report == "hall.commissioning-2.html" and made.protocol is None


def test_a_report_of_another_device_is_refused(tmp_path):
    _, text = page(tmp_path)
    (tmp_path / "p.html").write_text(text)
    with pytest.raises(SetupError, match="signed by"):
        verify(tmp_path / "p.html", DeviceKey.at(tmp_path / "other.pem").public)
    (tmp_path / "plain.html").write_text("<html></html>")
    with pytest.raises(SetupError, match="is not a signed commissioning report"):
        verify(tmp_path / "plain.html", None)


def test_a_signature_of_other_bytes_is_none(tmp_path):
    key = DeviceKey.at(tmp_path / "k.pem")
    good = key.sign(b"x")
    assert signed_by(key.public, good, b"x")
    assert (
        not signed_by(key.public, good, b"y")
        and not signed_by("zz", good, b"x")
        and not signed_by(key.public, "", b"x")
    )


def test_values_go_into_the_site_file_and_comments_stay(tmp_path):
    path = tmp_path / "site.toml"
    before = "# mine\n" + SIMULATED_TEXT.replace("[control]", "[control]  # aims")
    path.write_text(before)
    converters = {"pcs1": {"dead_ms": 5.0, "lag_ms": 20.0, "gain": 0.98}}
    text = sitefile.edited(before, {"control": {"pcs_tau_ms": 21.5},
                                    "commissioning": {"pcs_lag_ms": 30.0, "converter": converters}},
                           {"grid": {"invert": True}})  # fmt: skip
    backup = sitefile.write(path, before, text)
    made = load_site(path)
    assert made.commissioning.converter["pcs1"].gain == 0.98
    assert made.control.pcs_tau_ms == 21.5 and made.device[0].invert and made.commissioning.pcs_lag_ms == 30.0
    lines = path.read_text().splitlines()
    assert set(before.splitlines()) <= set(lines) and len(lines) <= len(before.splitlines()) + 6
    assert backup.read_text() == before


def test_a_site_file_that_changed_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(SIMULATED_TEXT + "# somebody was here\n")
    now = path.read_text()
    with pytest.raises(SetupError, match="changed while it was measured"):
        sitefile.write(path, SIMULATED_TEXT, "x")
    assert path.read_text() == now and [p.name for p in tmp_path.iterdir()] == ["site.toml"]


def test_values_that_would_not_run_are_not_written(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(SIMULATED_TEXT)
    now = path.read_text()
    with pytest.raises(SetupError, match="with the measured values"):
        sitefile.write(path, now, sitefile.edited(now, {"control": {"pcs_tau_ms": -1.0}}, {}))
    assert path.read_text() == now and [p.name for p in tmp_path.iterdir()] == ["site.toml"]


def test_the_run_of_a_test_is_bounded_by_its_power():
    site = load_site(SIMULATED).model_copy(update={"serial": (), "can": ()})  # no bus of it is simulated
    made = private_run.bounded(site, 5000.0)
    assert {(one.charge_w_max, one.discharge_w_max) for one in made.storage} == {(5000.0, 5000.0)}
    assert made.control.peak_w_max is None and made.gateway.endpoint is None
    assert made.limits.connection_import_w_max == site.limits.connection_import_w_max


# ------------------------------------------------------------------------------------------------- refusals


def test_without_a_gateway_both_remedies_are_named(tmp_path):
    done = tidegate("commission", SIMULATED, "--yes", folder=tmp_path)
    assert done.returncode == 69 and "--start" in done.stderr and "tidegate run SITE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 64, "give a site file"),
        (("nowhere.toml",), 66, "no such file"),
        ((SIMULATED, "--power", "1e6"), 64, "may do 30000 W"),
        (("--verify", "nowhere.html"), 66, "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, words, code, said):
    done = tidegate("commission", *words, "--yes", folder=tmp_path)
    assert done.returncode == code and said in done.stderr and len(done.stderr.splitlines()) == 1


class Answering:
    """A client whose site is in the modes given, one after the other."""

    def __init__(self, *modes, latches=()):
        self.modes, self.latches = list(modes), list(latches)

    def describe(self):
        faults = [{"id": name, "text": f"text of {name}"} for name in UNIDENTIFIED]
        return {"points": [], "units": [], "devices": [], "faults": faults}

    def get(self, *names):
        raise AssertionError("no such point")

    def why(self):
        mode = self.modes.pop(0) if len(self.modes) > 1 else self.modes[0]
        return {
            "mode": mode,
            "faults": ["unit0 loop_late"] if mode == "derated" else [],
            "latches": self.latches if mode == "tripped" else [],
            "stopped": False,
        }


def test_a_late_cycle_is_noted_and_a_trip_ends_it():
    plant = Plant(Answering("run", "derated", "tripped"))
    plant.check()
    assert not plant.derated
    plant.check()
    assert plant.derated == {"unit0 loop_late"}
    with pytest.raises(SetupError, match="mode tripped"):
        plant.check()


def test_a_plant_that_arming_does_not_recognise_is_a_finding_in_the_words_of_the_fault_table(monkeypatch):
    monkeypatch.setattr(plant_session, "ARMED_S", 0.3)
    for name in UNIDENTIFIED:
        plant, report = Plant(Answering("arming", "arming", "tripped", latches=[f"unit0 {name}"])), Report()
        assert not steps.armed(plant, None, report)
        assert [row.verdict for row in report.rows] == ["finding", "skipped"]
        assert report.rows[0].says == f"unit0: text of {name}"


def test_a_site_that_does_not_arm_for_a_reason_of_the_machine_is_no_finding_about_the_plant(monkeypatch):
    monkeypatch.setattr(plant_session, "ARMED_S", 0.3)
    report = Report()
    with pytest.raises(SetupError, match="latches: unit0 loop_unsafe"):
        steps.armed(Plant(Answering("tripped", latches=["unit0 loop_unsafe"])), None, report)
    assert report.rows == []


def test_a_site_that_still_arms_is_waited_for(monkeypatch):
    monkeypatch.setattr(plant_session, "ARMED_S", 0.2)
    assert steps.armed(Plant(Answering(*["arming"] * 8, "run")), None, Report())


# ------------------------------------------------------------------------------------------------- a live plant

QUICK = ("--yes", "--hold", "1", "--repeats", "1")


@pytest.fixture(scope="module")
def hall(tmp_path_factory):
    """A folder with the cabinet of `tidegate simulate` and the site file that `init` drafted of it."""
    folder = tmp_path_factory.mktemp("hall")
    cabinet = Cabinet(folder / "buses")
    done = tidegate("init", str(folder / "hall.toml"), "--yes", *cabinet.words, *NAMEPLATE, folder=folder)
    assert done.returncode == 0, done.stderr
    yield folder
    cabinet.close()


def battery_w(hall):
    """What the converter says by itself, read when no core holds its bus."""
    site = load_site(hall / "hall.toml")
    at = site.device[1].sunspec_models["701"]
    with RegisterReader(str(hall / "buses/pcs"), 115200) as reader:
        read = []  # an answer to the core that was just killed may come first
        assert eventually(lambda: read.append(reader.read(1, 3, at + 8, 1)) or (read[-1] or [None])[0] is not None)
    words = read[-1]
    return words[0] - 65536 if words[0] > 32767 else words[0]


def test_commission_measures_the_cabinet_and_signs_what_it_found(hall, tmp_path):
    site = hall / "hall.toml"
    before = site.read_text()
    done = tidegate("commission", str(site), "--start", *QUICK, "--by", "tester", folder=hall)
    assert done.returncode == 0, done.stdout + done.stderr
    made, plant = load_site(site), load_site(SIMULATED).simulation
    # A busy machine looks too seldom and finds the meter slower than it is, never faster.
    assert 0.7 * plant.meter_update_ms <= made.commissioning.meter_interval_ms <= 5.0 * plant.meter_update_ms
    # The converter was asked to fall back 2 s after its last setpoint, which was up to 0.5 s before the silence.
    assert 1400 <= made.commissioning.pcs_revert_ms <= 4000
    assert made.commissioning.pcs_lag_ms > plant.pcs_tau_ms and not made.device[0].invert
    (converter,) = made.commissioning.converter.values()
    assert converter.dead_ms + converter.lag_ms > 0 and made.commissioning.meter_gain == pytest.approx(1.0, abs=0.3)
    assert "measured by the commissioning of" in " ".join(described(program.describe(compile_site(made))).first)
    assert abs(battery_w(hall)) <= 1
    assert set(before.splitlines()) <= set(site.read_text().splitlines())
    (report,) = hall.glob("hall.commissioning-*.html")
    text = report.read_text()
    assert "by tester" in text and text.count("<svg") == 2 and report.name == made.commissioning.report
    checked = tidegate("commission", "--verify", str(report), "--key", made.commissioning.key, folder=hall)
    assert checked.returncode == 0 and "unchanged" in checked.stdout
    assert tidegate("check", str(site), folder=hall).returncode == 0


def test_reversed_transformers_are_found_at_arming_and_the_site_file_mended(tmp_path):
    """Before any step of the test's own."""
    site = tmp_path / "site.toml"
    fault = '\n[[simulation.faults]]\nkind = "meter.reversed"\ntarget = "grid"\non_s = 0\n'
    site.write_text(SIMULATED_TEXT + fault)
    done = tidegate("commission", str(site), "--start", *QUICK, "--skip", "bms", folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "mend     CT of grid: shows the pulses of arming" in done.stdout
    assert "skipped  arming" in done.stdout and "skipped  bms: left out on request" in done.stdout
    assert load_site(site).device[0].invert


def test_commission_through_a_running_site_gives_the_battery_back_however_it_ends(hall):
    site = hall / "hall.toml"
    places = {"TIDEGATE_RUNTIME_DIR": str(hall / "run"), "TIDEGATE_STATE_DIR": str(hall / "state")}
    with (hall / "run.log").open("wb") as log:
        run = subprocess.Popen([*TIDEGATE, "run", str(site), "--no-carbon"], stdout=log, stderr=log,
                               env={**os.environ, **places})  # fmt: skip
        try:
            assert eventually(lambda: " runs; core pid" in (hall / "run.log").read_text())
            text = site.read_text()
            for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
                words = [*TIDEGATE, "commission", str(site), "--yes", "--power", "4000", "--skip", "bms"]
                one = subprocess.Popen(
                    words, env={**os.environ, **places}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
                assert eventually(lambda: lease(hall) is not None)
                one.send_signal(number)
                one.communicate(timeout=30)
                assert one.returncode == code
                # Killed without a word it cannot release: the lease then ends by itself, three periods later.
                assert eventually(lambda: lease(hall) is None, 10.0)
            busy = tidegate("commission", str(site), "--start", "--yes", folder=hall)
            assert busy.returncode == 75 and str(run.pid) in busy.stderr and "leave --start out" in busy.stderr
        finally:
            run.terminate()
            assert run.wait(60) == 0
    assert site.read_text() == text and not list(hall.glob(".hall*"))


def lease(hall):
    with Client(f"ipc://{hall / 'run/hall'}", timeout_s=10) as site:
        return site.why()["lease"]


def test_ending_it_while_it_runs_the_site_itself_leaves_the_converter_at_zero(hall):
    site = hall / "hall.toml"
    text, kept = site.read_text(), len(list(hall.iterdir()))
    places = {"TIDEGATE_RUNTIME_DIR": str(hall / "run"), "TIDEGATE_STATE_DIR": str(hall / "state")}
    words = [*TIDEGATE, "commission", str(site), "--start", "--yes", "--power", "4000", "--hold", "20"]
    one = subprocess.Popen(
        words, env={**os.environ, **places}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert one.stdout is not None and "moving by" in one.stdout.readline()
    time.sleep(0.5)
    one.send_signal(signal.SIGINT)
    _, said = one.communicate(timeout=60)
    assert one.returncode == 130 and "nothing was written" in said and "Traceback" not in said
    assert site.read_text() == text and len(list(hall.iterdir())) == kept
    assert abs(battery_w(hall)) <= 1


def test_the_written_file_is_still_the_installers(hall):
    assert "# Doubt: " in (hall / "hall.toml").read_text()
    assert tomllib.loads((hall / "hall.toml").read_text())["commissioning"]["test_w"] == 6000
