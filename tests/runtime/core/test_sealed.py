"""The compiled site in sealed memory: whoever holds the descriptor cannot change what the core runs by."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tidegate.ext.abi.shared import Shared
from tidegate.runtime.core.sealed import NotSealedError, must_be_sealed, sealed

CONTENT = b"limits" * 1000


@pytest.fixture
def fd() -> Iterator[int]:
    fd = sealed("test", CONTENT)
    yield fd
    os.close(fd)


def test_what_is_sealed_reads_as_it_was_written_and_is_accepted(fd: int) -> None:
    must_be_sealed(fd)
    assert os.pread(fd, 10_000, 0) == CONTENT


def test_opening_it_again_for_writing_changes_nothing(fd: int) -> None:
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)  # the way that a read-only descriptor left open
    try:
        with pytest.raises(PermissionError):
            os.pwrite(again, b"X", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(again, len(CONTENT))
        for size in (0, 2 * len(CONTENT)):
            with pytest.raises(PermissionError):
                os.ftruncate(again, size)
    finally:
        os.close(again)
    assert os.pread(fd, 10_000, 0) == CONTENT


def test_memory_without_seals_and_a_file_are_refused() -> None:
    for fd in (os.memfd_create("open"), os.memfd_create("open", os.MFD_ALLOW_SEALING), os.open(__file__, os.O_RDONLY)):
        with pytest.raises(NotSealedError):
            must_be_sealed(fd)
        os.close(fd)


def test_the_core_does_not_start_on_a_program_that_somebody_can_change() -> None:
    program = os.memfd_create("program")
    os.write(program, CONTENT)
    _memory, shared = Shared.memfd()
    words = [sys.executable, "-m", "tidegate.runtime.core.process", "--program-fd", str(program)]
    done = subprocess.run(
        [*words, "--shared-fd", str(shared)], pass_fds=(program, shared), capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 1 and "not sealed" in done.stderr, done
    os.close(program)
    os.close(shared)


def test_nobody_cuts_the_shared_memory_short() -> None:
    """Each process that has it mapped would end by SIGBUS, the core among them."""
    memory, fd = Shared.memfd()
    try:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        memory.put_order(0, 1.0, 2**62, 1)  # orders are still taken
    finally:
        os.close(fd)


@pytest.mark.parametrize(("named", "held"), [("tidegate.runtime.core.process", False), ("another", True)])
def test_the_core_alone_hashes_without_a_library(named, held):
    """Its memory is locked, all of each library: OpenSSL's would be 5 MiB of it."""
    code = (
        "import tidegate.runtime.core.process, hashlib, sys; maps = open('/proc/self/maps').read(); "
        "print(sys.modules['_hashlib'] is not None, 'libcrypto' in maps, hashlib.sha256(b'a').hexdigest()[:8])"
    )
    done = subprocess.run([sys.executable, "-c", code, named], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(held), str(held), "ca978112"]
