"""Memory that is written once and then by nobody: the compiled site on its way from the supervisor to the others.

A read-only descriptor of a memfd can be opened again for writing through /proc by anybody of the same user, and what is
written there is what the core maps. A seal is a property of the memory itself and cannot be taken back.
"""

import fcntl
import os

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class NotSealedError(ValueError):
    """The memory can still be changed by somebody."""


def sealed(name: str, content: bytes) -> int:
    """Descriptor of fresh memory with this content, sealed and read-only; the caller closes it. Raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)


def must_be_sealed(fd: int) -> None:
    """Raises NotSealedError, with the reason, for memory that somebody could change."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise NotSealedError(f"the program's descriptor is no memory that can be sealed: {error.strerror}") from None
    if seals & SEALS != SEALS:
        raise NotSealedError(f"the program is not sealed (seals {seals:#x}): whoever has it could change its limits")
