"""A PostgreSQL of the tests' own beside SQLite, and fresh databases on either."""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

_numbers = itertools.count()


def postgres_bin():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else (Path(p).parent if (p := shutil.which("initdb")) else None)


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server in a folder of its own, without a port; ended with the tests."""
    pytest.importorskip("psycopg")
    programs = postgres_bin()
    if programs is None:
        pytest.skip("no PostgreSQL on this machine; .ci/run installs it")
    folder = Path(tempfile.mkdtemp(prefix="tidegate-pg-"))  # not below pytest's own: the server's user must reach it
    as_user = []
    if os.getuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root and there is no user postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    run = [*as_user, str(programs / "initdb"), "-D", str(data), "-U", "tidegate", "-A", "trust", "--no-sync"]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL, cwd="/")
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
    control = [*as_user, str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
    subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    yield f"postgresql+psycopg://tidegate@/{{}}?host={folder}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh(request, tmp_path):
    """Makes the URL of a new, empty database."""

    def sqlite():
        return f"sqlite:///{tmp_path / f'{next(_numbers)}.db'}"

    return sqlite if request.param == "sqlite" else lambda: new_database(request.getfixturevalue("server"))


def new_database(url):
    """The URL of a new, empty database of a server."""
    name = f"t{next(_numbers)}"
    engine = sa.create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    engine.dispose()
    return url.format(name)


@pytest.fixture
def shared_url(server):
    """The URL of a new, empty PostgreSQL database."""
    return new_database(server)
