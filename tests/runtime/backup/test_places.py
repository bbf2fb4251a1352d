"""Backups by themselves: a folder, OpenSSH's own SFTP server, a server that speaks S3; kept, taken away, put back."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest

from tidegate.config.site import load_site
from tidegate.runtime.backup import places, scheduled
from tidegate.runtime.backup.manifest import BackupError
from tidegate.runtime.findings.backup_findings import backup_findings
from tidegate.runtime.state.backup_outcome import OUTCOME, BackupOutcome, outcome_in

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
START_S = 60.0
NAME = "simulated"
TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]


@pytest.fixture
def unit(tmp_path):
    """A site that has stopped: its file and a state folder. (site file, state root)"""
    site_file, root = tmp_path / f"{NAME}.toml", tmp_path / "state"
    site_file.write_bytes(files("tidegate.config").joinpath(f"sites/{NAME}.toml").read_bytes())
    (root / NAME / "journal").mkdir(parents=True)
    (root / NAME / "users.json").write_text('{"schema": 1, "users": {}}')
    return site_file, root


def tidegate(root, *words):
    env = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(root.parent / "run")}
    return subprocess.run([*TIDEGATE, *map(str, words), "--state-dir", str(root)], env=env, capture_output=True,
                          text=True, timeout=240, check=False)  # fmt: skip


def answers(port):
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not start")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "stick").mkdir()
    return str(tmp_path / "stick"), []


@pytest.fixture
def sftp(tmp_path):
    """OpenSSH's sshd on a port of its own. (address, options)"""
    if SSHD is None:
        pytest.skip("openssh-server is not installed")
    home = tmp_path / "ssh"
    (home / "kept").mkdir(parents=True)
    for name in ("host", "ours", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)], check=True)
    (home / "authorized").write_text((home / "ours.pub").read_text())
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it parts its privileges
    (home / "conf").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\nStrictModes no\n"
        f"UsePAM no\nPidFile {home}/pid\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(home / "conf")], stderr=subprocess.DEVNULL)
    answers(port)
    access = home / "access.toml"
    access.write_text(f'key = "{home}/ours"\nhost_key = "{(home / "host.pub").read_text().strip()}"\n')
    access.chmod(0o600)
    yield f"sftp://{getpass.getuser()}@127.0.0.1:{port}{home}/kept", ["--access", access]
    server.send_signal(signal.SIGTERM)
    server.wait(30)


@pytest.fixture
def bucket(tmp_path):
    """moto's server, which speaks S3 over HTTP. (address, options)"""
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer("127.0.0.1", port=0)
    import boto3

    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a",
                 aws_secret_access_key="b").create_bucket(Bucket="site-backups")  # fmt: skip
    access = tmp_path / "access.toml"
    access.write_text(f'key_id = "a"\nsecret = "b"\nendpoint = "{endpoint}"\n')
    access.chmod(0o600)
    yield "s3://site-backups/hall", ["--access", access]
    server.stop()


@pytest.mark.parametrize("kind", ["folder", "sftp", "bucket"])
def test_a_backup_goes_there_stays_as_many_as_asked_and_comes_back(kind, unit, request, tmp_path):
    if kind != "folder":
        pytest.importorskip("paramiko" if kind == "sftp" else "boto3", reason="the extra backup is not installed")
    target, options = request.getfixturevalue(kind)
    site_file, root = unit
    access = places.read_access(options[1] if options else None)
    foreign = "holiday.jpg"
    with places.opened(target, access) as place:
        (tmp_path / foreign).write_text("not ours")
        place.put(foreign, tmp_path / foreign)
        with pytest.raises(BackupError):
            place.put(foreign, tmp_path / foreign)  # what is there is not written over
    site = load_site(site_file)
    made = []
    for at in (1_000_000_000, 1_000_100_000, 1_000_200_000):
        name, manifest, gone = scheduled.run(
            lambda: places.opened(target, access), target, site, site_file, root / NAME, keys=False, recordings=False,
            keep=2, every_h=24, utc=lambda at=at: at,
        )  # fmt: skip
        made.append((name, gone))
        assert manifest.site == NAME and outcome_in(root / NAME).ok_utc_s == at
    assert [gone for _, gone in made] == [[], [], [made[0][0]]]
    with places.opened(target, access) as place:
        assert sorted(place.names()) == sorted([foreign, made[1][0], made[2][0]])
    # By the command, as a timer types it.
    done = tidegate(root, "backup", target, "--site-file", site_file, "--no-keys", "--keep", "5", *options)
    assert done.returncode == 0, done.stderr
    newest = done.stdout.splitlines()[-1].partition(": written")[0].rpartition("/")[2]
    listed = tidegate(root, "restore", f"{target}/", *options)
    assert listed.returncode == 0 and newest in listed.stdout.split() and foreign in listed.stdout.split()
    users = (root / NAME / "users.json").read_bytes()
    shutil.rmtree(root / NAME)
    (tmp_path / "elsewhere").mkdir()
    back = tmp_path / "elsewhere" / "back.toml"
    done = tidegate(root, "restore", f"{target}/{newest}", "--site-file", back, *options)
    assert done.returncode == 0, done.stderr
    assert (root / NAME / "users.json").read_bytes() == users
    assert back.read_bytes() == site_file.read_bytes()
    missing = tidegate(root, "restore", f"{target}/no-such.tgz", "--check", *options)
    assert missing.returncode != 0 and "no-such.tgz" in missing.stderr


def test_a_stick_that_is_not_plugged_in_is_told_and_nothing_is_written_beside_it(unit, tmp_path):
    site_file, root = unit
    done = tidegate(root, "backup", f"{tmp_path}/stick/", "--site-file", site_file, "--no-keys")
    assert done.returncode == 65 and "is the stick plugged in" in done.stderr
    assert not (tmp_path / "stick").exists()
    outcome = outcome_in(root / NAME)
    assert outcome.ok_utc_s is None and "plugged in" in outcome.why
    (found,) = backup_findings(outcome, time.time())
    assert found.title == "the backup failed" and "none was good yet" in found.because and found.remedy


def test_another_host_key_and_another_login_get_nothing(unit, sftp):
    pytest.importorskip("paramiko", reason="the extra backup is not installed")
    target, (_, access) = sftp
    site_file, root = unit
    good = access.read_text()
    home = access.parent
    theirs, another = ((home / name).read_text().strip() for name in ("host.pub", "other.pub"))
    for wrong, words in (
        (good.replace(theirs, another), "another key"),
        (good.replace(f"{home}/ours", f"{home}/other"), "Authentication failed"),
        (good.replace(f"{home}/ours", f"{home}/none"), "none"),
        ('key_id = "x"\n', "host_key"),
        ("key = 1\n", "key"),
    ):
        access.write_text(wrong)
        done = tidegate(root, "backup", target, "--site-file", site_file, "--no-keys", "--access", access)
        assert done.returncode == 65 and words in done.stderr, done.stderr
    access.write_text(good)
    access.chmod(0o644)
    done = tidegate(root, "backup", target, "--site-file", site_file, "--no-keys", "--access", access)
    assert "chmod 600" in done.stderr
    access.chmod(0o600)
    with_password = target.replace("@", ":secret@", 1)
    done = tidegate(root, "backup", with_password, "--site-file", site_file, "--no-keys", "--access", access)
    assert done.returncode == 65 and "secret" not in done.stderr + (root / NAME / OUTCOME).read_text()
    assert list((home / "kept").iterdir()) == []


def test_a_clock_that_is_behind_takes_nothing_away(unit, folder):
    site_file, root = unit
    site = load_site(site_file)

    def at(utc_s):
        return scheduled.run(lambda: places.opened(folder[0], places.Access()), folder[0], site, site_file, root / NAME,
                             keys=False, recordings=False, keep=1, every_h=24, utc=lambda: utc_s)  # fmt: skip

    at(1_700_000_000)
    with pytest.raises(BackupError, match="is the clock right"):
        at(1_000_000)
    assert len(list(Path(folder[0]).iterdir())) == 2
    assert "is the clock right" in outcome_in(root / NAME).why


@pytest.mark.parametrize(
    ("outcome", "now_s", "title"),
    [
        (BackupOutcome("/x", 24, 1000.0, None, ""), 1000.0 + 48 * 3600, None),
        (BackupOutcome("/x", 24, 1000.0, None, ""), 1001.0 + 48 * 3600, "no backup was made for too long"),
        (BackupOutcome("/x", 24, 1000.0, 2000.0, "full"), 2000.0, "the backup failed"),
    ],
)
def test_what_the_site_shows_of_its_backups(outcome, now_s, title):
    assert [one.title for one in backup_findings(outcome, now_s)] == ([title] if title else [])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"place": 1}', json.dumps({"place": "x", "every_h": None})])
def test_an_outcome_that_is_damaged_says_so_and_none_is_none(text, tmp_path):
    assert outcome_in(tmp_path) is None
    (tmp_path / OUTCOME).write_text(text)
    (found,) = backup_findings(outcome_in(tmp_path), 2000.0)
    assert found.title == "the backup failed" and "cannot be read" in found.because and OUTCOME in found.because


@pytest.mark.parametrize(
    ("target", "words"),
    [("ftp://x/y", "no place for backups"), ("s3://b/p", "key_id"), ("sftp://h/p", "sftp://USER@HOST"),
     ("sftp://u@h/p", "--access")],
)  # fmt: skip
def test_an_address_that_is_none_is_told(target, words, unit):
    pytest.importorskip("boto3", reason="the extra backup is not installed")
    site_file, root = unit
    done = tidegate(root, "backup", target, "--site-file", site_file, "--no-keys")
    assert done.returncode == 65 and words in done.stderr, done.stderr
