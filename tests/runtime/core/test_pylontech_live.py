"""Pylontech packs with the real processes, on a line and behind a serial gateway: armed, led by a lease, at rest."""

from importlib.resources import files
from pathlib import Path

import pytest

from tests.runtime.core.test_manual_live import until
from tidegate.runtime.supervisor.supervisor import Supervisor

TEXT = files("tidegate.config").joinpath("sites/pylontech-packs.toml").read_text(encoding="utf-8")
LINE = '[[serial]]\nname = "packs"\ndevice = "sim"\nbaud = 115200\nprotocol = "pylontech"\n'
GATEWAY = '[[tcp]]\nname = "packs"\nhost = "sim"\nframing = "pylontech"\nbaud = 115200\n'
MOVE_W = -1000.0


@pytest.mark.parametrize("bus", [LINE, GATEWAY], ids=["line", "gateway"])
def test_a_cabinet_of_packs_arms_follows_a_lease_and_ends_with_setpoint_0(tmp_path: Path, bus: str) -> None:
    assert LINE in TEXT
    text = TEXT.replace(LINE, bus).replace('name = "pylontech-packs"\n', 'name = "packs"\nperiod_us = 10000\n')
    site = tmp_path / "site.toml"
    site.write_text(text.replace("load_w = 10000", "load_w = 4000"))  # far from its peak: the lease alone decides
    with Supervisor(site, runtime=tmp_path / "run", state=tmp_path / "state", sidecar=False, out=lambda _: None) as one:
        memory, names = one.shared, one.description.point_names
        assert memory is not None

        def now(name: str) -> float:
            found = None
            while found is None:
                found = memory.read_image()
            return float(found[names.index(name)].value)

        with one.client() as client:
            assert until(lambda: client.why()["mode"] in ("run", "derated")), client.why()
            assert until(lambda: 0.5 < now("a.soc") < 0.7 and 0.5 < now("b.soc") < 0.7)
            with client.lease() as lease:
                assert until(lambda: bool(lease.setpoint(MOVE_W, 5.0)) and abs(now("pcs1.power_w") - MOVE_W) < 100.0)
                # Each pack carries its part, + discharge: what the packs say is what the converter does.
                assert until(
                    lambda: bool(lease.setpoint(MOVE_W, 5.0)) and now("a.pack_a") < -2.0 and now("b.pack_a") < -2.0
                )
                packs = memory.buses()["serial"]["packs"]
        assert packs["reads"] > 0 and packs["mismatches"] == packs["crc_errors"] == packs["exceptions"] == 0
        assert all(slave["alive"] for slave in packs["slaves"]) and len(packs["slaves"]) == 2
        core = one.children["core"]
    assert core.wait(10.0) == 0, "the last word to the converter was 0 W and was acknowledged"
