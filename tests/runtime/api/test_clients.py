"""The asyncio client, the live table and the command line over a gateway."""

import asyncio
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import pytest
from rich.console import Console

from tidegate.runtime.api.async_client import AsyncClient
from tidegate.runtime.api.blocking_client import ClientError, Cursor, Endpoint, NoAnswer
from tidegate.runtime.cli.watch import watch_live

TIDEGATE = [sys.executable, "-m", "tidegate.runtime.cli"]


def test_asyncio_reads_commands_and_hears_in_order(core, gateway):
    boot = gateway.gateway.records.boot

    async def talk():
        async with AsyncClient(gateway.endpoint) as site:
            several = await asyncio.gather(*(site.get("site.mode") for _ in range(20)))
            assert all(one == {"site.mode": (3.0, 1)} for one in several)
            async with site.lease(period_s=0.2) as lease:
                answer = await lease.setpoint(4000.0, 5)
                assert answer["status"] == "applied" and core.memory.order(1).value == 4000.0
                await asyncio.sleep(0.9)
                assert not lease.lost and core.memory.order(1).expires_t_ns > time.monotonic_ns()
            assert core.memory.order(1).expires_t_ns == 0
            for _ in range(30):
                core.meter()
            seqs = []
            async for record in site.subscribe("meter", since={"meter": (boot, -1)}):
                seqs.append(record["seq"])
                if len(seqs) == 30:
                    return seqs

    assert asyncio.run(asyncio.wait_for(talk(), 30)) == list(range(30))


def test_asyncio_says_when_nobody_answers(tmp_path):
    async def talk():
        async with AsyncClient(f"ipc://{tmp_path}", timeout_s=0.2) as site:
            await site.health()

    with pytest.raises(NoAnswer, match="is the site running"):
        asyncio.run(talk())


def test_watch_shows_powers_mode_and_events(core, gateway):
    core.values["site.grid_w"] = (41_234.0, 1)
    core.event(kind=4, code=1, unit=0)
    end = threading.Event()

    def push():
        while not end.wait(0.02):
            core.snapshot()
            core.event(kind=4, code=1, unit=0)

    pusher = threading.Thread(target=push)
    pusher.start()
    out = io.StringIO()
    try:
        with gateway.client() as site:
            watch_live(site, 30, Console(file=out, width=120, force_terminal=True))
    finally:
        end.set()
        pusher.join()
    shown = out.getvalue()
    assert "41,234 W" in shown and "run" in shown and "bms_alarm" in shown


def command(gateway, *words, code=0):
    environment = {**os.environ, "TIDEGATE_ENDPOINT": gateway.endpoint}
    ended = subprocess.run([*TIDEGATE, *words], capture_output=True, text=True, timeout=60, env=environment)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout if code == 0 else ended.stderr


def test_the_command_line_gets_tells_why_and_sets(core, gateway):
    core.values["grid.power_w"] = (41_234.0, 1)
    assert "41234 W" in command(gateway, "get", "grid.power_w")
    found = json.loads(command(gateway, "get", "--json", "grid.", "site.mode"))
    assert found["grid.power_w"] == {"value": 41_234.0, "quality": "good"} and "bms1.soc" not in found
    assert "mode run" in command(gateway, "why")
    assert "applied 30000 W" in command(gateway, "set", "import-limit", "30kW", "--for", "1m")
    assert core.memory.order(2).value == 30_000.0
    assert "applied -2500 W" in command(gateway, "set", "setpoint", "-2.5kW", "--for", "300ms")
    assert "mode run" in command(gateway, "set", "stop")
    assert core.memory.order(0).value == 2.0


def test_the_command_line_refuses_bad_words_with_a_remedy(gateway):
    assert "expected a power" in command(gateway, "set", "setpoint", "lots", code=2)
    assert "expected a time" in command(gateway, "set", "setpoint", "1kW", "--for", "soon", code=2)
    assert "needs a value" in command(gateway, "set", "setpoint", code=2)
    assert "no point" in command(gateway, "get", "site.nonsense", code=77)


def test_the_command_line_says_when_no_site_runs(tmp_path):
    environment = {**os.environ, "TIDEGATE_RUNTIME_DIR": str(tmp_path), "TIDEGATE_ENDPOINT": f"ipc://{tmp_path}"}
    words = [*TIDEGATE, "get", "--timeout", "0.3"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
    assert ended.returncode == 69 and "is the site running" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("text", ["", "http://x", "tcp://host", "tcp://host:0", "ipc:/x"])
def test_a_bad_endpoint_is_refused(text):
    with pytest.raises(ValueError, match="expected ipc"):
        Endpoint.of(text)


def test_a_cursor_gives_each_record_once():
    cursor = Cursor(("a", 4))
    assert [cursor.live("a", 4), cursor.live("a", 5), cursor.live("a", 5), cursor.live("a", 7)] == [
        "drop",
        "give",
        "drop",
        "fill",
    ]
    assert cursor.replayed("a", 5) == (False, 0)
    assert cursor.replayed("a", 7) == (True, 1)
    assert cursor.live("b", 0) == "fill" and cursor.replayed("b", 0) == (True, 0)
    assert not cursor.head("b", 0) and cursor.head("b", 1) and cursor.head("c", 0) and not cursor.head("c", -1)


def test_an_error_names_its_code(gateway):
    with gateway.client() as site, pytest.raises(ClientError) as refused:
        site.ask("nonsense")
    assert refused.value.code == "unknown-op"


def test_every_command_of_the_command_line_is_there_and_has_help():
    from click.testing import CliRunner

    from tidegate.runtime.cli.main import main

    told = CliRunner().invoke(main, ["--help"])
    assert told.exit_code == 0
    for name in main.list_commands(None):  # type: ignore[arg-type]
        assert f"  {name} " in told.output
        one = CliRunner().invoke(main, [name, "--help"])
        assert one.exit_code == 0 and "Usage:" in one.output, (name, one.output)


def test_the_lines_of_python_in_the_readme_print_a_value_and_records(core, gateway, tmp_path):
    readme = Path(__file__).parents[3] / "README.md"
    if not readme.exists():
        pytest.skip("the README is not installed")
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.S) if "Client" in block)
    assert len(code.strip().splitlines()) <= 6
    environment = {**os.environ, "TIDEGATE_ENDPOINT": gateway.endpoint}
    words = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as newcomer:
        try:
            assert "site.grid_w" in newcomer.stdout.readline()
            end = threading.Event()
            pusher = threading.Thread(target=lambda: [core.meter() for _ in iter(lambda: end.wait(0.05), True)])
            pusher.start()
            first, second = newcomer.stdout.readline(), newcomer.stdout.readline()
            end.set()
            pusher.join()
            assert int(second.split()[0]) == int(first.split()[0]) + 1
        finally:
            newcomer.kill()


def test_the_c_example_of_the_docs_gets_an_answer_from_the_gateway(core, gateway, tmp_path):
    page = Path(__file__).parents[3] / "docs" / "api.md"
    if not page.exists() or not Path("/usr/include/zmq.h").exists() or shutil.which("gcc") is None:
        pytest.skip("the docs, a C compiler or zmq.h (Debian package libzmq3-dev) is not here")
    core.values["site.grid_w"] = (41_234.0, 1)
    core.step()
    (example,) = re.findall(r"```c\n(.*?)```", page.read_text(), re.S)
    example = example.replace("ipc:///run/tidegate/demo", gateway.endpoint)
    source = tmp_path / "example.c"
    source.write_text(
        f"#include <stdio.h>\n#include <zmq.h>\nint main(void) {{\n{example}\n"
        "return size < 1 || fwrite(answer, 1, size, stdout) != (size_t)size; }\n"
    )
    words = ["gcc", "-Wall", "-Werror", "-o", str(tmp_path / "example"), str(source), "-lzmq"]
    subprocess.run(words, check=True, timeout=60)
    said = subprocess.run([str(tmp_path / "example")], check=True, capture_output=True, timeout=30).stdout
    assert msgpack.unpackb(said)["points"] == {"site.grid_w": [41_234.0, 1]}
