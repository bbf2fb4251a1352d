"""RTU over TCP through a real ser2net: the device on a pty, the gateway's process, its death and its return."""

import os
import shutil
import socket
import subprocess
import tty

import pytest

from tests.ext.bus.test_port import Slave
from tests.ext.bus.test_tcp import SETPOINT, block, good, listens, site, slave, started, until

SER2NET = shutil.which("ser2net", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(SER2NET is None, reason="ser2net is not installed (Debian package ser2net)")

CONFIG = """\
connection: &line
  accepter: tcp,127.0.0.1,{port}
  connector: serialdev,{device},115200n81,local
  options:
    kickolduser: true
"""


class Gateway:
    """ser2net in front of a pty."""

    def __init__(self, folder, device):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config = folder / "ser2net.yaml"
        self.config.write_text(CONFIG.format(port=self.port, device=device))
        self.start()

    def start(self):
        self.process = subprocess.Popen([str(SER2NET), "-n", "-u", "-c", str(self.config)], stderr=subprocess.DEVNULL)
        until(lambda: listens(self.port))

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def line(tmp_path):
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    device = Slave(ours)
    device.regs.update({10 + i: 100 + i for i in range(60)})
    device.start()
    gateway = Gateway(tmp_path, os.ttyname(theirs))
    yield gateway, device
    gateway.kill()
    device.ended = True
    device.join()
    os.close(theirs)
    os.close(ours)


def test_a_device_behind_ser2net_is_read_and_written_and_survives_the_gateways_restart(line):
    gateway, device = line
    ports = started(
        site(gateway.port, [slave(block(10, 60), commands=[SETPOINT])], transport="rtu-tcp", baud=115200)
    )  # fmt: skip
    until(lambda: ports.stats(0)["ok"] >= 20)
    ports.put(0, 0, [1234])
    until(lambda: device.regs[900] == 1234)
    gateway.kill()
    until(lambda: ports.lost(0) != 0 and ports.stats(0)["slaves"][0]["alive"] == 0)
    gateway.start()
    before = ports.stats(0)["ok"]
    until(lambda: ports.stats(0)["ok"] >= before + 20 and ports.lost(0) == 0)
    until(lambda: ports.stats(0)["written_seq"][0] == 2)
    found = good(ports)
    assert ports.stop()
    assert found and all(row["regs"] == list(range(100, 160)) for row in found)


def test_a_silent_device_behind_ser2net_is_silent_and_comes_back(line):
    gateway, device = line
    ports = started(site(gateway.port, [slave(block(10, 4))], transport="rtu-tcp", baud=115200))
    until(lambda: ports.stats(0)["ok"] >= 5)
    device.silent = True
    until(lambda: ports.stats(0)["slaves"][0]["alive"] == 0)
    device.silent = False
    until(lambda: ports.stats(0)["slaves"][0]["alive"] == 1)
    found = good(ports)
    ports.stop()
    assert all(row["regs"] == [100, 101, 102, 103] for row in found)
