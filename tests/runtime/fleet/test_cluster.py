"""Three brokers in network namespaces: a slice of what `tests/tools/fleet_cluster.py` does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.carbon.ledger.conftest import postgres_bin

pytest.importorskip("nats")
ROOT = Path(__file__).parents[3]


def namespaces_work():
    return os.getuid() == 0 and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


def test_a_cluster_that_loses_brokers_lines_and_all_memory_loses_no_entry():
    if not namespaces_work() or shutil.which("ip", path="/sbin:/usr/sbin:/bin:/usr/bin") is None:
        pytest.skip("needs root and network namespaces")
    server = shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if server is None or postgres_bin() is None:
        pytest.skip("nats-server or PostgreSQL is not installed")
    words = ["--sites", "3", "--kills", "1", "--partitions", "1", "--power-cuts", "2", "--server", server]
    done = subprocess.run(
        [sys.executable, "tests/tools/fleet_cluster.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert (found["lost"], found["doubled"], found["letters"]) == (0, 0, [])
    assert (found["kill"], found["partition"], found["power"]) == (1, 1, 2)
    assert found["store_bytes_lost"] > 0 and found["entries"] >= 3 * 22
