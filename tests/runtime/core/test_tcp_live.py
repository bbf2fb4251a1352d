"""The example site over Modbus TCP with the real processes: armed, led by a lease, and at rest in the end."""

from importlib.resources import files
from pathlib import Path

import pytest

from tests.runtime.core.test_manual_live import until
from tidegate.runtime.core.tcp_ports import address
from tidegate.runtime.supervisor.supervisor import Supervisor

SITE = Path(str(files("tidegate.config").joinpath("sites/simulated-tcp.toml")))
MOVE_W = -4000.0


def test_a_site_over_tcp_arms_follows_a_lease_and_ends_with_setpoint_0(tmp_path: Path) -> None:
    with Supervisor(SITE, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False, out=lambda _: None) as one:
        memory, names = one.shared, one.description.point_names
        assert memory is not None

        def now(name: str) -> float:
            found = None
            while found is None:
                found = memory.read_image()
            return float(found[names.index(name)].value)

        with one.client() as client:
            assert until(lambda: client.why()["mode"] in ("run", "derated"))
            assert until(lambda: now("it.power_w") > 0.0), "the meter behind the serial gateway"
            with client.lease() as lease:
                assert until(lambda: bool(lease.setpoint(MOVE_W, 5.0)) and abs(now("pcs1.power_w") - MOVE_W) < 200.0)
                buses = memory.buses()
                lanes = {name: buses["serial"][name] for name in ("lan", "lan/2", "gateway")}
        assert all(
            lane["connects"] == 1 and lane["hangups"] == 0 and not lane["thread_lost"] for lane in lanes.values()
        )
        assert all(slave["alive"] for lane in lanes.values() for slave in lane["slaves"])
        core = one.children["core"]
    assert core.wait(10.0) == 0, "the last word to the converter was 0 W and was acknowledged"


@pytest.mark.parametrize(
    "text", ["meter.lan:502", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x", ":502"]
)
def test_an_address_is_numbers_only(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        address(text)


def test_addresses_of_both_kinds() -> None:
    assert address("192.0.2.1:502") == (4, bytes([192, 0, 2, 1]), 502)
    assert address("[::1]:1502") == (6, bytes(15) + b"\1", 1502)
