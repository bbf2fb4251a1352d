"""A signed site file is taken at rest only, with nobody at the console, and goes back where the site is not well."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime.cabinet import TIDEGATE, eventually
from tidegate.runtime.api.blocking_client import Client, ClientError
from tidegate.runtime.console.users import Seat
from tidegate.runtime.fleet.signed_site import ReleaseError, SignedSite
from tidegate.runtime.fleet.unit.gated_apply import GatedApply, Times, last_number
from tidegate.runtime.state.device_key import DeviceKey

TEXT = (Path(__file__).parents[3] / "config/sites/simulated.toml").read_text()
NEW = TEXT.replace("peak_w_max = 40000", "peak_w_max = 30000")


class Running:
    """A site that runs, in a time of the test's own. after : what it is once it has started with the new file."""

    def __init__(self, path, after=None, alarms=(), restart_fails=False):
        self.path, self.now_s, self.starts = path, 0.0, []
        self.state = {"mode": "run", "setpoint_w": 0.0, "stops": {"place": "remote", "lockouts": []}}
        self.after, self.fresh_alarms, self.restart_fails = after or {}, set(alarms), restart_fails
        self.events = []  # (time, change)

    def _is_new(self):
        return bool(self.starts) and "30000" in self.starts[-1]

    def why(self):
        for at, change in self.events:
            if self.now_s >= at:
                self.state |= change
        return self.state | (self.after if self._is_new() else {})

    def alarms(self):
        return {"old"} | (self.fresh_alarms if self._is_new() else set())

    def restart(self):
        self.starts.append(self.path.read_text())
        if self.restart_fails and self._is_new():
            raise ReleaseError("the site has not come back")

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def owner(tmp_path):
    return DeviceKey.at(tmp_path / "owner.pem")


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "unit" / "simulated.toml"
    path.parent.mkdir()
    path.write_text(TEXT)

    def made(**more):
        unit = Running(path, **more)
        said = []
        gate = GatedApply(path, unit, Seat(path.parent), said.append, Times(60, 30, 5), lambda: unit.now_s, unit.sleep)
        gate.said = said
        return gate, unit

    return made


def release(owner, number=1, text=NEW, **more):
    return SignedSite.read(SignedSite("simulated", number, text, **more).signed(owner), owner.public)


def left_over(path):
    return sorted(one.name for one in path.parent.iterdir() if "applying" in one.name or "staged" in one.name)


def test_a_release_is_in_force_and_an_older_one_is_not_taken_again(site, owner):
    gate, unit = site()
    gate.apply(release(owner, 5, maps={"my-meter-2.toml": "x = 1\n"}))
    assert gate.path.read_text() == NEW and unit.starts == [NEW] and last_number(gate.path) == 5
    assert gate.path.with_name("my-meter-2.toml").read_text() == "x = 1\n" and left_over(gate.path) == []
    for number in (5, 4):
        with pytest.raises(ReleaseError, match="not newer than 5"):
            gate.apply(release(owner, number))


@pytest.mark.parametrize(("more", "word"), [
    ({"after": {"mode": "tripped"}}, "mode tripped, was run"), ({"alarms": ["bms_stale"]}, "new alarms: bms_stale"),
    ({"restart_fails": True}, "has not come back"),
])  # fmt: skip
def test_a_site_that_is_not_well_under_it_gets_its_old_file_back(site, owner, more, word):
    gate, unit = site(**more)
    with pytest.raises(ReleaseError, match=word) as refused:
        gate.apply(release(owner))
    assert "was put back" in str(refused.value)
    assert gate.path.read_text() == TEXT and unit.starts == [NEW, TEXT]
    assert last_number(gate.path) == 0 and left_over(gate.path) == []


@pytest.mark.parametrize(("change", "word"), [
    ({"setpoint_w": 500.0}, "setpoint is 500"), ({"setpoint_w": None}, "setpoint is None"),
    ({"manual": {"peer": "console"}}, "manual power"), ({"stops": {"place": "local"}}, "on site only"),
    ({"stops": {"place": "remote", "lockouts": [{"name": "x"}]}}, "stopped or locked"),
    ({"stops": {"place": "remote", "stop": {"by": "x"}}}, "stopped or locked"),
])  # fmt: skip
def test_nothing_changes_while_power_flows_or_somebody_works_at_it(site, owner, change, word):
    gate, unit = site()
    unit.state |= change
    with pytest.raises(ReleaseError, match=word):
        gate.apply(release(owner))
    assert gate.path.read_text() == TEXT and unit.starts == [] and unit.now_s >= 60
    unit.events = [(unit.now_s + 10, {"setpoint_w": 0.0, "manual": None, "stops": {"place": "remote"}})]
    gate.apply(release(owner))  # at rest ten seconds later
    assert gate.path.read_text() == NEW and any("waits" in text for text in gate.said)


def test_whoever_is_at_the_console_is_left_alone_and_nobody_logs_in_meanwhile(site, owner):
    gate, unit = site()
    other = Seat(gate.path.parent)
    assert other.take("anna", "ttyS0", "10:00") == ""
    with pytest.raises(ReleaseError, match="anna at ttyS0"):
        gate.apply(release(owner))
    assert unit.starts == []
    other.leave()
    unit.restart = lambda: unit.starts.append(Seat(gate.path.parent).take("bert", "ttyS0", "10:01"))
    gate.apply(release(owner))
    assert "rollout" in unit.starts[0]


@pytest.mark.parametrize("cut", ["previous", "applying", "simulated.toml"])
def test_a_loss_of_power_at_any_moment_ends_in_one_of_the_two_files(site, owner, cut, monkeypatch):
    from tidegate.runtime.fleet.unit import gated_apply

    gate, _ = site()
    real = gated_apply.atomic_file.replace

    def replace(path, data, mode=0o600):
        real(path, data, mode)
        if path.name.endswith(cut) and "staged" not in path.name:
            raise KeyboardInterrupt  # the power goes

    monkeypatch.setattr(gated_apply.atomic_file, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        gate.apply(release(owner))
    monkeypatch.undo()
    assert gate.go_back_if_broken_off() == (cut != "previous")
    assert gate.path.read_text() == TEXT and left_over(gate.path) == []
    gate.apply(release(owner))
    assert gate.path.read_text() == NEW


def test_what_is_not_the_owners_or_not_for_this_site_is_refused(site, owner, tmp_path):
    good = json.loads(SignedSite("simulated", 1, NEW).signed(owner))
    for change in ({"text": TEXT}, {"number": 2}, {"maps": {"a.toml": ""}}, {"signature": "00" * 64}):
        with pytest.raises(ReleaseError, match="not signed by the owner"):
            SignedSite.read(json.dumps({**good, **change}).encode(), owner.public)
    thief = DeviceKey.at(tmp_path / "thief.pem")
    with pytest.raises(ReleaseError, match="not signed by the owner"):
        SignedSite.read(SignedSite("simulated", 1, NEW).signed(thief), owner.public)
    for raw in (b"", b"[]", b"{}", b"\xff", json.dumps({**good, "number": True}).encode(), b"5" * 9_000_000):
        with pytest.raises(ReleaseError, match="no signed site file"):
            SignedSite.read(raw, owner.public)
    for name in ("../x.toml", "/etc/x.toml", "x", ".hidden.toml"):
        with pytest.raises(ReleaseError, match="no name of a device map"):
            release(owner, maps={name: ""})
    with pytest.raises(ReleaseError, match="the site file in it is of simulated"):
        SignedSite.read(SignedSite("hall", 1, NEW).signed(owner), owner.public)
    gate, unit = site()
    with pytest.raises(ReleaseError, match="is for hall, this site is simulated"):
        gate.apply(SignedSite("hall", 1, NEW.replace('"simulated"', '"hall"')))
    with pytest.raises(ReleaseError, match="nothing was changed"):
        gate.apply(release(owner, text=NEW.replace("energy_wh = 60000", "energy_wh = -1")))
    gate.path.with_name("mine.toml").write_text("a = 1\n")
    with pytest.raises(ReleaseError, match="gets another name"):
        gate.apply(release(owner, maps={"mine.toml": "a = 2\n"}))
    assert gate.path.read_text() == TEXT and unit.starts == [] and left_over(gate.path) == []


def test_a_site_that_runs_takes_a_release_by_the_command_line(tmp_path):
    path, out = tmp_path / "hall.toml", tmp_path / "hall-1.release"
    text = TEXT.replace("period_us", "# period_us").replace('name = "simulated"', 'name = "hall"\nperiod_us = 10000')
    path.write_text(text.replace("peak_w_max = 40000", "peak_w_max = 40000\nrecharge_rate_w = 0"))
    places = {"TIDEGATE_RUNTIME_DIR": str(tmp_path / "run"), "TIDEGATE_STATE_DIR": str(tmp_path / "state")}
    env = {**os.environ, **places}

    def tidegate(*words):
        done = subprocess.run([*TIDEGATE, *words], capture_output=True, text=True, timeout=900, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen([*TIDEGATE, "run", str(path)], env=env, stdout=said, stderr=said)
    try:
        with Client(f"ipc://{tmp_path}/run/hall", timeout_s=10.0) as client:

            def runs():
                assert process.poll() is None, (tmp_path / "said").read_text()
                try:
                    return client.why()["mode"] == "run"
                except ClientError:
                    return False

            assert eventually(runs, 180.0)
            new = tmp_path / "new" / "hall.toml"
            new.parent.mkdir()
            new.write_text(path.read_text().replace("40000", "39000"))
            key = tidegate("fleet", "sign-site", str(new), "--key", str(tmp_path / "owner.pem"), "--number", "1",
                           "--out", str(out))  # fmt: skip
            said = tidegate("fleet", "apply", str(out), "--owner", key, "--site-file", str(path))
            assert "release 1 is in force" in said and path.read_text() == new.read_text()
            assert eventually(runs, 60.0) and client.why()["peak_w_max_of_file"] == 39_000
    finally:
        process.terminate()
        process.wait(60)
