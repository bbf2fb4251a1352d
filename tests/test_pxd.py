"""The extern blocks of the .pxd files are what the headers say."""

from tests.tools import pxd


def test_every_generated_block_is_current() -> None:
    assert not [str(path.relative_to(pxd.ROOT)) for path in pxd.stale()], "run make pxd"


def test_every_header_that_owns_structs_has_a_generated_block_and_no_other() -> None:
    taken = [header for headers in pxd.blocks().values() for header in headers]
    owners = {str(path.relative_to(pxd.EXT)) for path in pxd.EXT.rglob("*.h") if "typedef struct" in path.read_text()}
    inner = {"safety/gate_bank.h", "safety/gate_envelope.h", "safety/gate_rows.h"}  # static parts of safety.c
    kernel = {"bus/can_io.h", "bus/tcp_socket.h"}  # its structs are made of the kernel's, which are for C alone
    assert len(taken) == len(set(taken)) and owners - inner - kernel <= set(taken)
    for path in pxd.EXT.rglob("*.p*x*"):
        by_hand = [header for header in taken if f'extern from "{header}"' in path.read_text()]
        assert not by_hand or path in pxd.blocks(), f"{path.name} repeats {by_hand}"


def test_a_changed_header_is_noticed() -> None:
    path = next(path for path, headers in pxd.blocks().items() if "abi/image.h" in headers)
    changed = path.read_text().replace("        QUALITY_HELD\n", "")
    assert changed != path.read_text() and pxd.current(changed) == path.read_text()
