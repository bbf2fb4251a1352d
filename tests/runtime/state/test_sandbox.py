"""A process that was confined steps over no border, whatever it tries; the same tries succeed where it was not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.runtime.state import sandbox

TRIES = """
import os, socket, sys
from pathlib import Path
from tidegate.runtime.state.sandbox import confine
confined, own, other, pid, fd, port, listening = sys.argv[1:8]
if confined == "yes":
    confine([Path(own)], [], binds=[int(listening)])
def write_beside(): Path(other, "x").write_text("x")
def write_own(): Path(own, "x").write_text("x"); os.rename(Path(own, "x"), Path(own, "y")); os.unlink(Path(own, "y"))
def open_pty(): os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
def reopen_memory(): os.close(os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR))
def read_memory(): os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
def signal_parent(): os.kill(int(pid), 0)
def connect(): socket.create_connection(("127.0.0.1", int(port)), 2.0).close()
def listen_own(): socket.create_server(("127.0.0.1", int(listening))).close()
def listen_other(): socket.create_server(("127.0.0.1", 0)).close()
def child(): os.close(os.open(Path(other, "y"), os.O_CREAT | os.O_WRONLY)) if os.fork() == 0 else os.wait()
def connect_unix():
    with socket.socket(socket.AF_UNIX) as one: one.connect(str(Path(other, "api")))
for name, what in list(globals().items()):
    if callable(what) and name not in ("Path", "confine"):
        try:
            what(); print(name, "done")
        except OSError as why: print(name, "refused")
"""
CLOSED = {
    "write_beside", "open_pty", "reopen_memory", "read_memory", "signal_parent", "connect", "listen_other",
}  # fmt: skip
OPEN = {"write_own", "listen_own", "connect_unix"}


def tried(folder: Path, confined: str) -> dict[str, str]:
    own, other = folder / f"own-{confined}", folder / f"other-{confined}"
    own.mkdir()
    other.mkdir()
    memory = os.memfd_create("core")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(other / "api"))
        unix.listen(4)
        with socket.create_server(("127.0.0.1", 0)) as free:
            listening = free.getsockname()[1]
        words = [confined, str(own), str(other), str(os.getpid()), str(memory), str(tcp.getsockname()[1])]
        done = subprocess.run(
            [sys.executable, "-c", TRIES, *words, str(listening)], capture_output=True, text=True, timeout=60
        )
    os.close(memory)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.skipif(sandbox.version() < 6, reason="this kernel's Landlock bounds neither TCP nor signals")
def test_a_confined_process_steps_over_no_border(tmp_path):
    free, bound = tried(tmp_path, "no"), tried(tmp_path, "yes")
    assert {free[name] for name in CLOSED | OPEN} == {"done"}, "the tries themselves work"
    assert {name: bound[name] for name in CLOSED} == dict.fromkeys(CLOSED, "refused")
    assert {name: bound[name] for name in OPEN} == dict.fromkeys(OPEN, "done")
    assert not (tmp_path / "other-yes" / "y").exists(), "nor does a child of it"


def test_a_kernel_without_it_is_said(monkeypatch):
    monkeypatch.setattr(sandbox, "version", lambda: 0)
    assert "no Landlock" in sandbox.confine([])
