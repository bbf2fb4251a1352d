"""A site in one file: made while it runs, wiped, put back, verified; and every way in which that is refused."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from importlib.resources import files
from pathlib import Path

import pytest

from tests.runtime.supervisor.test_supervisor import TIDEGATE, Run
from tidegate.runtime.api import curve_keys
from tidegate.runtime.api.blocking_client import Client
from tidegate.runtime.backup import restore as restoring
from tidegate.runtime.backup.manifest import BackupError
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.state.paths import private_folder

SITE = Path(str(files("tidegate.config").joinpath("sites/simulated.toml"))).read_text()


class Unit:
    """A site that has run for a while: its folders and its file."""

    def __init__(self, folder):
        self.folder, self.site, self.state = folder, folder / "simulated.toml", folder / "state" / "simulated"
        self.site.write_text(SITE.replace('map = "eastron-sdm630"', 'map = "my-meter.toml"'))
        shutil.copy(str(files("tidegate.hal").joinpath("devices/eastron-sdm630.toml")), folder / "my-meter.toml")
        for path in (self.site, folder / "my-meter.toml"):
            path.chmod(0o644)
        self.run = None

    def start(self):
        self.run = Run(self.site, self.folder)
        self.run.wait_running()
        return self.run

    def client(self):
        return Client(f"ipc://{self.folder / 'run' / 'simulated'}", timeout_s=10)

    def end(self):
        self.run.process.terminate()
        assert self.run.process.wait(90) == 0, self.run.said
        self.run = None

    def command(self, *words):
        env = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(self.folder / "run")}
        state = ["--state-dir", str(self.folder / "state")] if words[0] in ("backup", "restore") else []
        return subprocess.run([*TIDEGATE, *words, *state], env=env, capture_output=True, text=True, timeout=240,
                              cwd=self.folder)  # fmt: skip


@pytest.fixture(scope="module")
def unit(tmp_path_factory):
    one = Unit(tmp_path_factory.mktemp("unit"))
    one.start()
    until = time.monotonic() + 90
    with one.client() as client:
        while not (one.state / "carbon" / "ledger.db").exists() or client.health()["gateway"]["durable"]["meter"] < 3:
            assert time.monotonic() < until
            time.sleep(0.2)
        client.stop()
    curve_keys.make(curve_keys.folder_of(one.state), "scada", "read", one.folder / "scada.key")
    done = one.command("backup", "running.tgz", "--site-file", str(one.site), "--keys")
    assert done.returncode == 0, done.stderr
    # What is latched: the site was stopped by order, and that must outlive it all.
    refused = one.command("restore", "running.tgz", "--replace")
    assert refused.returncode == 75 and "end it first" in refused.stderr
    one.end()
    made = pytest.importorskip("tidegate.runtime.web.certificates")
    made.ensure(private_folder(one.state / "web", 0o700), ("unit.local",))
    (one.state / "users.json").write_text('{"schema": 1, "users": {}}')
    for name, words in (("all.tgz", ("--keys",)), ("bare.tgz", ("--no-keys",))):
        done = one.command("backup", name, "--site-file", str(one.site), *words)
        assert done.returncode == 0, done.stderr
    yield one
    if one.run is not None:
        one.end()


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def verified(unit, state):
    ledger = unit.command("carbon", "verify", str(state / "carbon" / "ledger.db"))
    journal = unit.command("audit", "verify", str(state / "journal"))
    return ledger.returncode, ledger.stdout + ledger.stderr, journal.returncode, journal.stdout + journal.stderr


def test_a_wiped_unit_is_as_it_was_and_its_ledger_says_that_it_was_restored(unit, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(unit.state, kept)
    shutil.rmtree(unit.state)
    for name in ("simulated.toml", "my-meter.toml"):
        (unit.folder / name).unlink()
    done = unit.command("restore", "all.tgz")
    assert done.returncode == 0, done.stderr
    before, after = tree(kept), tree(unit.state)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed <= {f"carbon/ledger.db{end}" for end in ("", "-wal", "-shm")} | {".lock"} | {
        n for n in before if n.startswith("record")
    }
    for name in (
        "held/latches.json",
        "held/stops.json",
        "users.json",
        "carbon-key.pem",
        "keys/server.key",
        "keys/roles.toml",
    ):
        assert after[name] == before[name]
    assert (unit.state / "keys" / "server.key").stat().st_mode & 0o777 == 0o600
    ledger_code, said, journal_code, audit = verified(unit, unit.state)
    assert (ledger_code, journal_code) == (0, 0), said + audit
    book = Ledger(unit.state / "carbon" / "ledger.db", read_only=True)
    notes = [entry.body for entry in book.entries("note")]
    book.close()
    assert [one["what"] for one in notes] == ["restored from a backup"] and "all.tgz" in notes[0]["about"]

    unit.start()  # it goes on where it was: stopped, with its keys, and no power by itself
    with unit.client() as client:
        until = time.monotonic() + 60
        while client.health()["gateway"]["durable"]["event"] < 3:
            assert time.monotonic() < until
            time.sleep(0.2)
        why = client.why()
        assert why["stopped"] and not why["setpoint_w"]
        events, _ = client.replay("event", count=512)
        assert not [one for one in events if "lost" in one["name"] or "lost" in one["detail"]]
    unit.end()
    assert verified(unit, unit.state)[0] == 0


def test_a_backup_of_a_running_site_is_whole(unit, tmp_path):
    state = tmp_path / "state" / "simulated"
    manifest = restoring.restore(unit.folder / "running.tgz", state, tmp_path / "copy.toml")
    assert manifest.site == "simulated" and (tmp_path / "my-meter.toml").exists()
    assert (tmp_path / "copy.toml").read_text() == SITE.replace('map = "eastron-sdm630"', 'map = "my-meter.toml"')
    ledger_code, said, journal_code, audit = verified(unit, state)
    assert ledger_code == 0, said
    assert journal_code == 0, audit
    assert curve_keys.named(state / "keys") == {"scada"}


def test_without_keys_no_secret_is_in_it_and_it_says_so(unit, tmp_path):
    with tarfile.open(unit.folder / "bare.tgz") as tar:
        names = tar.getnames()
        data = b"".join(tar.extractfile(row).read() for row in tar if row.isreg())
    assert not [name for name in names if "key" in name]
    secret = curve_keys.server_keys(unit.state / "keys")[1]
    assert secret.encode() not in data and b"PRIVATE KEY" not in data
    manifest = restoring.restore(unit.folder / "bare.tgz", tmp_path / "state" / "simulated", tmp_path / "site.toml")
    assert not manifest.with_keys and "keys of the device" in manifest.left_out[0]
    assert verified(unit, tmp_path / "state" / "simulated")[0] == 0


def test_what_is_there_is_refused_or_moved_aside_but_never_lost(unit, tmp_path):
    state, site = tmp_path / "state" / "simulated", tmp_path / "site.toml"
    state.mkdir(parents=True)
    (state / "mine").write_text("mine")
    site.write_text("mine")
    with pytest.raises(BackupError, match="there already"):
        restoring.restore(unit.folder / "all.tgz", state, site)
    assert tree(tmp_path) == {"state/simulated/mine": b"mine", "site.toml": b"mine"}
    restoring.restore(unit.folder / "all.tgz", state, site, replace=True)
    assert sorted(path.read_text() for path in tmp_path.rglob("*") if path.name == "mine" or (".before-" in path.name
                  and path.is_file())) == ["mine", "mine"]  # fmt: skip
    assert (state / "held" / "latches.json").exists()


def rewritten(source, target, change):
    """A backup with rows changed: change(name, data) -> data, None = left out."""
    with tarfile.open(source) as old, tarfile.open(target, "w:gz") as new:
        for row in old:
            data = change(row.name, old.extractfile(row).read())
            if data is not None:
                row.size = len(data)
                new.addfile(row, io.BytesIO(data))
    return target


def evil(name, data):
    if name != "manifest.json":
        return data
    said = json.loads(data)
    said["files"][0]["path"] = "state/../../evil"
    return json.dumps(said).encode()


CHANGES = {
    "a byte of a latch": lambda n, d: d[:-1] + b"x" if n == "state/held/latches.json" else d,
    "a file less": lambda n, d: None if n == "state/held/latches.json" else d,
    "another site": lambda n, d: d.replace(b'"simulated"', b'"simulatee"') if n == "manifest.json" else d,
    "no signature": lambda n, d: b"" if n == "manifest.sig" else d,
    "no manifest": lambda n, d: None if n == "manifest.json" else d,
    "a way out of the folder": evil,
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_backup_that_was_changed_writes_nothing(unit, tmp_path, kind):
    damaged = rewritten(unit.folder / "all.tgz", tmp_path / "bad.tgz", CHANGES[kind])
    with pytest.raises(BackupError):
        restoring.restore(damaged, tmp_path / "state" / "simulated", tmp_path / "site.toml")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["bad.tgz"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_backup_that_is_cut_off_is_refused(unit, tmp_path, share):
    whole = (unit.folder / "all.tgz").read_bytes()
    (tmp_path / "cut.tgz").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BackupError):
        restoring.check(tmp_path / "cut.tgz")


def test_a_flipped_bit_anywhere_is_noticed(unit, tmp_path):
    whole = bytearray((unit.folder / "all.tgz").read_bytes())
    good = restoring.check(unit.folder / "all.tgz")
    for at in range(20, len(whole) - 8, max(1, len(whole) // 40)):
        whole[at] ^= 0x10
        (tmp_path / "flipped.tgz").write_bytes(whole)
        whole[at] ^= 0x10
        try:
            assert restoring.check(tmp_path / "flipped.tgz") == good  # a bit of gzip's own that says nothing
        except BackupError:
            continue


def test_another_signer_is_refused_and_the_right_one_is_taken(unit):
    key = restoring.manifest_of(unit.folder / "all.tgz").key
    assert restoring.check(unit.folder / "all.tgz", key).key == key
    with pytest.raises(BackupError, match="signed by"):
        restoring.check(unit.folder / "all.tgz", "0" * 64)


def test_the_choice_of_keys_must_be_made(unit):
    done = unit.command("backup", "x.tgz", "--site-file", str(unit.site))
    assert done.returncode == 64 and "--no-keys" in done.stderr and not (unit.folder / "x.tgz").exists()
    taken = unit.command("backup", "all.tgz", "--site-file", str(unit.site), "--keys")
    assert taken.returncode == 65 and "exists" in taken.stderr
