"""A PostgreSQL and a broker of the tests' own, and ledgers that are really signed."""

import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from tests.runtime.carbon.ledger.conftest import server, shared_url  # noqa: F401
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.ledger.signing import sign
from tidegate.runtime.state.device_key import DeviceKey


class Unit:
    """A site with its ledger and its key."""

    def __init__(self, folder: Path, site: str) -> None:
        self.site, self.path = site, folder / f"{site}.db"
        self.key = DeviceKey.at(folder / f"{site}.pem")
        self.ledger = Ledger(self.path, site)
        self.ledger.begin(site)
        self.ledger.claim(self.key.public)

    def write(self, count: int = 12, blocks: int = 1) -> None:
        """So many entries and a block, so many times."""
        for _ in range(blocks):
            at = self.ledger.head[0]
            self.ledger.append([("note", 900 * (at + n), {"energy_milliwh": at * 7 + n}) for n in range(count)])
            sign(self.ledger, self.key, self.site, least=1)

    def rows(self, first: int = 0) -> list[tuple[int, str, int, str, str]]:
        return list(self.ledger.raw_rows(first))


@pytest.fixture
def unit(tmp_path):
    """Makes a site with a signed ledger."""
    return lambda site="hall", folder=tmp_path: Unit(folder, site)


@pytest.fixture
def broker_folder():
    if shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip("nats-server is not installed")
    folder = Path(tempfile.mkdtemp(prefix="tidegate-hub-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
