"""The filter of calls: what it lets through, on each kind of machine, by its instructions and by the kernel."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from tidegate.runtime.state import syscalls
from tidegate.runtime.state.syscalls import ALLOW, ANY_BIT, AT_LEAST, EQUAL, FAIL, KILL, LOAD, RETURN

HERE = syscalls.machine()
REFUSED, MISSING = FAIL | errno.EPERM, FAIL | errno.ENOSYS
OWN = 4711
KINDS = ("x86_64", "aarch64", "riscv64", "arm")

TRIES = """
import os, signal, socket, subprocess, sys, threading, time
from tidegate.runtime.state.syscalls import NETWORK, STOP_SIGNALS, forbid
parent = int(sys.argv[2])
turn = threading.Event()
refused_in_thread = []
def in_a_thread_that_was_there_before():
    turn.wait()
    try: os.kill(parent, 0)
    except OSError: refused_in_thread.append(True)
before = threading.Thread(target=in_a_thread_that_was_there_before)
before.start()
if sys.argv[1] == "closed": lack = forbid()
if sys.argv[1] == "network": lack = forbid(NETWORK, signals=STOP_SIGNALS)
turn.set(); before.join()
def program(): subprocess.run(["true"])
def process():
    if os.fork() == 0: os._exit(0)
    os.wait()
def signal_parent(): os.kill(parent, 0)
def usr1_parent(): os.kill(parent, signal.SIGUSR1)
def term_parent(): os.kill(parent, signal.SIGCONT)
def signal_group(): os.kill(0, signal.SIGCONT)
def tcp(): socket.socket(socket.AF_INET).close()
def packets(): socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close()
def local(): socket.socket(socket.AF_UNIX).close()
def pair(): [one.close() for one in socket.socketpair()]
def thread(): one = threading.Thread(target=int); one.start(); one.join()
def signal_own(): os.kill(os.getpid(), 0)
def another_user(): os.setuid(os.getuid())
def owner(): os.chown(sys.argv[3], os.getuid(), os.getgid())
def clock():
    now = time.clock_gettime(time.CLOCK_REALTIME)
    try: time.clock_settime(time.CLOCK_REALTIME, -1.0)
    except OSError as why:
        if why.errno == 1 and os.geteuid() == 0: raise
def earlier_thread():
    if refused_in_thread: raise OSError
for name, what in list(globals().items()):
    if callable(what) and getattr(what, "__module__", "") == "__main__" and not name.startswith("in_a"):
        try: what(); print(name, "done")
        except OSError: print(name, "refused")
"""
CLOSED = {"program", "process", "signal_parent", "usr1_parent", "term_parent", "signal_group", "tcp", "packets",
          "another_user", "owner", "earlier_thread"}  # fmt: skip
OPEN = {"local", "pair", "thread", "signal_own"}


def tried(how: str, path: object) -> dict[str, str]:
    """What of TRIES was done and what refused; `path` is a file of ours."""
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRIES, how, str(os.getpid()), str(path)], capture_output=True, text=True, timeout=60
        )
    finally:
        signal.signal(signal.SIGUSR1, handler)
    assert done.returncode == 0, done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.skipif(HERE is None, reason="no list of calls for this kind of machine")
def test_the_kernel_refuses_what_was_given_up_and_nothing_else(tmp_path):
    free, closed, network = (tried(how, tmp_path) for how in ("no", "closed", "network"))
    may_not_anyway = {"packets", "clock"}  # without root
    assert {name for name in CLOSED | OPEN if free[name] != "done"} <= may_not_anyway, "the tries themselves work"
    assert {name: closed[name] for name in CLOSED} == dict.fromkeys(CLOSED, "refused")
    assert {name: closed[name] for name in OPEN} == dict.fromkeys(OPEN, "done")
    # With a network and the right to stop: TCP and the stop's signal are open, all else is as closed as before.
    more = {"tcp", "signal_parent", "usr1_parent", "earlier_thread"}
    assert {name: network[name] for name in more} == dict.fromkeys(more, "done")
    assert {name for name in CLOSED if network[name] == "refused"} == CLOSED - more


def verdict(made, call: int, *words: int, arch: int) -> int:
    """What the filter says to a call, as the kernel would run it: jumps forwards only, and it always ends."""
    memory = {0: call, 4: arch, **{16 + 8 * at: word & 0xFFFFFFFF for at, word in enumerate(words)}}
    at = held = 0
    while True:
        code, if_true, if_not, operand = made[at]
        if code == RETURN:
            return operand
        if code == LOAD:
            held = memory.get(operand, 0)
            at += 1
            continue
        true = {EQUAL: held == operand, AT_LEAST: held >= operand, ANY_BIT: bool(held & operand)}[code]
        at += 1 + (if_true if true else if_not)


@pytest.mark.parametrize("kind", KINDS)
def test_on_each_machine_every_call_of_the_list_is_refused_and_others_are_not(kind):
    machine = syscalls.machine(kind)
    made = syscalls.program(machine, syscalls.LOCAL, pid=OWN)
    assert len(made) < 4096 and all(0 <= one[1] < 256 and 0 <= one[2] < 256 for one in made), "what the kernel takes"
    said = {name: verdict(made, number, arch=machine.arch) for name, number in machine.numbers.items()}
    listed = set(syscalls._NUMBERS) & set(machine.numbers)
    assert len(listed) > 60 and {said[name] for name in listed} == {REFUSED}
    used = set(machine.numbers.values())
    assert {verdict(made, number, arch=machine.arch) for number in range(500) if number not in used} == {ALLOW}
    assert len(set(machine.numbers.values())) == len(machine.numbers), "no two calls have one number"


@pytest.mark.parametrize("kind", KINDS)
def test_calls_are_judged_by_their_words(kind):
    machine = syscalls.machine(kind)
    one = machine.numbers
    made = syscalls.program(machine, syscalls.NETWORK, signals=[signal.SIGUSR1], pid=OWN)

    def said(name: str, *words: int) -> int:
        return verdict(made, one[name], *words, arch=machine.arch)

    assert said("kill", OWN, 9) == said("kill", 1, signal.SIGUSR1) == ALLOW
    assert said("kill", 1, 9) == said("kill", -1 & 0xFFFFFFFF, 9) == said("kill", 1, 0) == REFUSED
    assert said("tgkill", OWN, 1, 9) == ALLOW and said("tgkill", 1, 1, signal.SIGUSR1) == REFUSED
    families = {one: said("socket", one) for one in range(64)}
    assert {family for family, what in families.items() if what == ALLOW} == set(syscalls.NETWORK)
    assert said("socket", socket.AF_PACKET) == REFUSED
    assert said("clone", 0x003D0F00) == ALLOW and said("clone", signal.SIGCHLD) == REFUSED, "threads, no processes"
    assert said("clone3") == MISSING
    assert said("ioctl", 0, 0x5401) == ALLOW and said("ioctl", 0, 0x5412) == REFUSED
    assert verdict(made, one["kill"], OWN, arch=machine.arch + 1) == KILL, "numbers of another machine mean other calls"
    assert verdict(made, 0x40000000 | 1, arch=machine.arch) == REFUSED


@pytest.mark.parametrize(("kind", "compiler", "header"), [
    (None, "cc", "sys/syscall.h"), ("aarch64", "cc", "asm-generic/unistd.h"),
    ("arm", "arm-linux-gnueabihf-gcc", "sys/syscall.h"),
])  # fmt: skip
def test_the_numbers_are_those_of_the_kernel_s_own_header(kind, compiler, header):
    """Of this machine, of the table that newer kinds share, which lies on each of them, and of 32-bit ARM."""
    machine = syscalls.machine(kind)
    if machine is None:
        pytest.skip("no list of calls for this kind of machine")
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    macros = subprocess.run([compiler, "-E", "-dM", "-include", header, "-"], input="", capture_output=True, text=True)
    told = dict(re.findall(r"#define __NR_(\w+) \(?(?:__NR_SYSCALL_BASE ?\+ ?)?(\d+)\)?", macros.stdout))
    assert len(told) > 200, macros.stderr
    ours = {name: str(number) for name, number in machine.numbers.items()}
    assert {name: told[name] for name in ours if name in told} == {name: ours[name] for name in ours if name in told}
    assert len(set(ours) - set(told)) < 8, "old headers lack the newest calls only"


@pytest.mark.parametrize(("kernel", "words", "kind"), [
    ("x86_64", 64, "x86_64"), ("aarch64", 64, "aarch64"), ("armv7l", 32, "arm"), ("aarch64", 32, "arm"),
    ("x86_64", 32, None), ("armv7b", 64, None),
])  # fmt: skip
def test_a_32_bit_process_has_its_own_calls_whatever_kernel_runs_it(monkeypatch, kernel, words, kind):
    monkeypatch.setattr(syscalls.platform, "machine", lambda: kernel)
    monkeypatch.setattr(syscalls.sys, "maxsize", (1 << words - 1) - 1)
    assert syscalls.machine() == (None if kind is None else syscalls.machine(kind))


def test_a_machine_that_nobody_knows_is_said(monkeypatch):
    monkeypatch.setattr(syscalls.platform, "machine", lambda: "vax")
    assert "vax" in syscalls.forbid()


@pytest.mark.skipif(HERE is None, reason="no list of calls for this kind of machine")
def test_a_filter_around_us_that_refuses_both_is_said_and_ends_nobody():
    """As a unit does that knows nothing of them: the site runs, and says what nothing parts any more."""
    code = """
from tidegate.runtime.state import sandbox, syscalls
here = syscalls.machine()
syscalls._NUMBERS.update(seccomp_outer=(here.numbers["seccomp"],) * 3, landlock=(444, 444, 444))
assert syscalls.forbid() == ""
print(syscalls.forbid())
print(sandbox.confine([]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    seccomp, landlock = done.stdout.splitlines()
    assert "allow `seccomp`" in seccomp and "allow landlock_*" in landlock
