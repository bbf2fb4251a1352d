"""The unit's own ledger, read for its hub: a file with what Python brings, a server's with the ledger's own reader."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tidegate.runtime.carbon.ledger.ledger_file import LedgerFile, path_in

if TYPE_CHECKING:
    from tidegate.runtime.carbon.ledger.ledger import Ledger


class OwnLedger(Protocol):
    """What is read. Each raises LedgerError."""

    url: str
    site: str

    def raw_rows(self, from_seq: int) -> Iterator[tuple[int, str, int, str, str]]: ...
    def newest_block(self) -> tuple[int, str] | None: ...
    def restored(self) -> list[int]: ...
    def close(self) -> None: ...


class ServedLedger:
    """A ledger in PostgreSQL."""

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger, self.url, self.site = ledger, ledger.url, ledger.site

    def raw_rows(self, from_seq: int) -> Iterator[tuple[int, str, int, str, str]]:
        return self._ledger.raw_rows(from_seq)

    def newest_block(self) -> tuple[int, str] | None:
        last = self._ledger.last_of("block")
        return None if last is None else (last.seq, last.hash)

    def restored(self) -> list[int]:
        return [entry.seq for entry in self._ledger.entries("restored", lenient=True)]

    def close(self) -> None:
        self._ledger.close()


def own_ledger(address: Path | str, site: str) -> OwnLedger:
    """The ledger at a path or an SQLAlchemy URL. site : whose, in a store of several. Raises LedgerError."""
    path = path_in(str(address))
    if path is not None:
        return LedgerFile(path, site)
    from tidegate.runtime.carbon.ledger.ledger import Ledger

    return ServedLedger(Ledger(address, site, read_only=True))
