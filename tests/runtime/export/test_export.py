"""The neighbours: Prometheus, SunSpec over Modbus TCP, MQTT, each over a real socket."""

import asyncio
import contextlib
import threading
import time
import urllib.request

import pytest

from tidegate.hal import sunspec as models


def test_prometheus_shows_good_points_with_unit_and_no_value_for_stale_ones(pushing, gateway, free_port, eventually):
    module = pytest.importorskip("tidegate.runtime.export.prometheus_exporter")
    port, stop = free_port(), threading.Event()
    with gateway.client() as site:
        thread = threading.Thread(target=module.serve, args=(site, "127.0.0.1", port, stop))
        thread.start()
        try:
            ask = lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()  # noqa: E731
            pushing.values["unit0.fault_bits_lo"] = (1.0, 1)
            text = eventually(ask, lambda found: "site.grid_w" in found and 'alarm="bms_silent"' in found)
            pushing.speaks.clear()  # a site that says nothing has no values, and its metrics say so
            silent = eventually(ask, lambda found: 'tidegate_up{site="test-site"} 0.0' in found)
        finally:
            stop.set()
            thread.join()
    assert "tidegate_point{" not in silent and "tidegate_alarm{" not in silent and "tidegate_word{" not in silent
    assert 'tidegate_point{point="site.grid_w",site="test-site",unit="W"} 41230.0' in text
    assert 'tidegate_point{point="bms1.temp_c"' not in text
    assert 'tidegate_point_quality{point="bms1.temp_c",site="test-site"} 3.0' in text
    assert 'tidegate_word{point="site.mode",site="test-site",word="run"} 1.0' in text
    alarm = 'alarm="bms_silent",reaction="zero_silent",site="test-site",state="active",unit="cabinet"'
    assert f"tidegate_alarm{{{alarm}}} 1.0" in text and 'state="latched"' not in text
    assert 'tidegate_up{site="test-site"} 1.0' in text and "tidegate_loop_cycles_total" in text


def words(client, address, count):
    return client.read_holding_registers(address, count=count)


def test_sunspec_shows_the_site_and_takes_a_setpoint_under_a_lease(pushing, gateway, free_port):
    module = pytest.importorskip("tidegate.runtime.export.sunspec_server")
    from pymodbus.client import AsyncModbusTcpClient

    port = free_port()
    pushing.values["site.corridor_lo_w"] = (-30_000.0, 1)

    async def talk():
        serving = asyncio.create_task(module.serve(gateway.endpoint, None, "127.0.0.1", port))
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        until = time.monotonic() + 90
        while not await client.connect() and time.monotonic() < until:
            await asyncio.sleep(0.1)
        at, starts = 40002, {}
        head = (await words(client, 40000, 2)).registers
        while (pair := (await words(client, at, 2)).registers)[0] != models.END:
            starts[pair[0]] = at
            at += 2 + pair[1]
        watts = []
        while not watts or (watts[-1] == -0x8000 and time.monotonic() < until):
            got = await words(client, starts[203] + 18, 1)
            raw = 0x8000 if got.isError() else got.registers[0]  # an exception until the site has spoken
            watts.append(raw - 0x10000 if raw & 0x8000 else raw)
            await asyncio.sleep(0.05)
        imported = (await words(client, starts[203] + 46, 2)).registers
        soc = (await words(client, starts[713] + 4, 1)).registers[0]
        refused = await client.write_register(starts[203] + 18, 5)
        control = starts[704]
        await client.write_registers(control + 24, [0xFFFF, 0xF63C])  # WSet = -2500 W
        await client.write_register(control + 22, 1)  # WSetEna
        held = 0.0
        while held != -2500.0 and time.monotonic() < until:
            await asyncio.sleep(0.02)
            held = pushing.memory.order(1).value
        expires = pushing.memory.order(1).expires_t_ns - time.monotonic_ns()
        await client.write_register(control + 22, 0)
        while pushing.memory.order(1).expires_t_ns and time.monotonic() < until:
            await asyncio.sleep(0.02)
        ended = pushing.memory.order(1).expires_t_ns
        client.close()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        return head, starts, watts[-1], imported, soc, refused.isError(), held, expires, ended

    head, starts, watts, imported, soc, refused, held, expires, ended = asyncio.run(asyncio.wait_for(talk(), 150))
    assert tuple(head) == models.SUNS and set(starts) == {1, 203, 713, 704, 701, 802}
    assert watts == 4123 and imported[0] << 16 | imported[1] == 123_456 and soc == 625
    assert refused, "a register for reading was written"
    assert held == -2500.0 and 0 < expires <= 3.1e9, "the order must end with the lease"
    assert ended == 0
