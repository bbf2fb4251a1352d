"""`tidegate update` on a machine of its own: forward, taken back by itself, after a power cut, and by order."""

import hashlib
import re
import shutil
import subprocess
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.packaging.test_deb import UNIT, board, journal, packages, until_it_runs  # noqa: F401

BASE, GOOD, BROKEN = "/srv/packages/base.deb", "/srv/packages/good", "/srv/packages/broken"
FOLDER, BOOT_UNIT = "/var/lib/tidegate-updates", "/etc/systemd/system/tidegate-go-back.service"
BREAK = 'raise SystemExit("this release was built wrong")\n'


def release(folder, package, private):
    """A signed folder with one package in it."""
    folder.mkdir()
    held = shutil.copy(package, folder)
    sums = f"{hashlib.sha256(package.read_bytes()).hexdigest()}  {package.name}\n".encode()
    (folder / "SHA256SUMS").write_bytes(sums)
    (folder / "SHA256SUMS.sig").write_bytes(private.sign(sums))
    return held


def broken(package, work):
    """The same package with a higher version, whose sites end as soon as they start."""
    stage = work / "stage"
    subprocess.run(["dpkg-deb", "-R", package, stage], check=True)
    control = stage / "DEBIAN/control"
    control.write_text(re.sub("^(Version: .*)$", r"\1+wrong", control.read_text(), flags=re.M))
    (source,) = stage.glob("usr/lib/tidegate/lib/*/site-packages/tidegate/runtime/supervisor/supervisor.py")
    for compiled in source.parent.glob("__pycache__/supervisor.*.pyc"):
        compiled.unlink()  # it is taken without a look at its source
    source.write_text(BREAK + source.read_text())
    made = work / "wrong.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", stage, made], check=True, capture_output=True)
    shutil.rmtree(stage)
    return made


@pytest.fixture(scope="module")
def releases(packages, tmp_path_factory):  # noqa: F811
    private = Ed25519PrivateKey.generate()
    shutil.copy(next(packages.glob("tidegate_*.deb")), packages / "base.deb")
    release(packages / "good", packages / "next.deb", private)
    release(packages / "broken", broken(packages / "next.deb", tmp_path_factory.mktemp("wrong")), private)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (packages / "release.pub.pem").write_bytes(public)


def version(board):  # noqa: F811
    return board.run("dpkg-query", "-W", "-f=${Version}", "tidegate")


def gone(board):  # noqa: F811
    """The way back is taken away: the next boot goes on with what is installed."""
    return board.run("test", "!", "-e", BOOT_UNIT, code=None) == "" and not board.run("ls", FOLDER).count("part")


@pytest.mark.timeout(1500)
def test_forward_taken_back_cut_and_rolled_back(board, packages, releases):  # noqa: F811
    board.run("dpkg", "-i", BASE)
    board.run("sh", "-c", "cp /usr/share/doc/tidegate/examples/simulated.toml /etc/tidegate/hall.toml")
    board.run("systemctl", "enable", "--now", UNIT)
    until_it_runs(board)
    first = version(board)

    # Nothing is taken of somebody whose key is not here, nor without a way back.
    assert "release.pub.pem" in board.run("tidegate", "update", "apply", GOOD, code=70)
    board.run("cp", "/srv/packages/release.pub.pem", "/etc/tidegate")
    assert f"newer than {first}" in board.run("tidegate", "update", "check", GOOD)
    assert "--previous" in board.run("tidegate", "update", "apply", GOOD, code=70)
    assert version(board) == first and "ended with setpoint 0" not in journal(board)

    said = board.run("tidegate", "update", "apply", GOOD, "--previous", BASE)
    second = version(board)
    assert second == f"{first}+next" and f"{second} is installed and every site that ran is well" in said
    assert "to 0 W and ended" in said and journal(board).count("ended with setpoint 0") == 1
    assert gone(board) and "because of" in board.run("tidegate", "why")
    assert "nothing to do" in board.run("tidegate", "update", "check", GOOD)

    # A release whose sites do not run is not on the machine for longer than that takes to see.
    said = board.run("tidegate", "update", "apply", BROKEN, code=70)
    assert f"going back to {second}" in said and f"{second} was put back" in said
    assert version(board) == second and gone(board)
    until_it_runs(board)

    # The power fails in the middle: everything of the update is killed, and the next boot runs the unit.
    held = subprocess.Popen(board.words("tidegate", "update", "apply", BROKEN), stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    for line in held.stdout:
        if "installing" in line:
            break
    time.sleep(0.5)
    board.run("sh", "-c", "pkill -KILL -f '[t]idegate update'; pkill -KILL dpkg; true")
    held.wait(60)
    board.run("systemctl", "daemon-reload")
    board.run("systemctl", "start", "tidegate-go-back")
    assert version(board) == second and gone(board)
    until_it_runs(board)

    assert f"{first} is installed again" in board.run("tidegate", "update", "rollback")
    assert version(board) == first and gone(board)
    until_it_runs(board)
    assert "no release of before is kept" in board.run("tidegate", "update", "rollback", code=70)
    told = board.run("cat", f"{FOLDER}/history")
    for words in (f"updating {first} to {second}", f"is {second}", "does not work here", f"going back to {second}",
                  f"is {first} again"):  # fmt: skip
        assert words in told, told
    assert board.run("tidegate", "check", "/etc/tidegate/hall.toml")
