"""Every package that the product imports is declared where it is imported, and every extra that is named exists."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tidegate.hal import canbus
from tidegate.hal.maps import MapError, load_map
from tidegate.runtime.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ext", "hal", "config", "runtime")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"can": "python-can", "fpdf": "fpdf2", "serial": "pyserial", "zmq": "pyzmq", "paho": "paho-mqtt",
                 "nats": "nats-py", "botocore": "boto3", "google": "protobuf", "pynvml": "nvidia-ml-py",
                 "opentelemetry": "opentelemetry-exporter-otlp-proto-http"}  # fmt: skip

# Who is installed when these files run: what is here must be in each of the extras; "+" joins several. All other files
# run on a cabinet without extras.
EXTRAS = {
    "hal/bridge.py": ["tools"],
    "hal/dbc.py": ["dbc"],
    "hal/gpio_lines.py": ["gpio"],
    "config/calendar.py": ["tariff"],
    "runtime/tools/modbus_register.py": ["tools", "cooling", "island"],
    "runtime/tools": ["tools"],
    "runtime/cli/watch.py": ["tools"],
    "runtime/cli/demo_command.py": ["carbon+tools"],
    "runtime/demo": ["carbon+tools"],
    "runtime/carbon": ["carbon"],
    "runtime/charts": ["carbon", "commission"],
    "runtime/state/device_key.py": ["carbon", "commission"],
    "runtime/commissioning": ["commission"],
    "runtime/fleet": ["carbon+fleet"],
    "runtime/cli/cluster_commands.py": ["carbon+fleet"],
    "runtime/cli/fleet_commands.py": ["carbon+fleet"],
    "runtime/cli/limit_commands.py": ["carbon+fleet"],
    "runtime/cli/unit_commands.py": ["carbon+fleet"],
    "runtime/cli/rollout_commands.py": ["carbon+fleet"],
    "runtime/update": ["carbon"],
    "runtime/backup/places.py": ["backup"],
    "runtime/planner/kubernetes_cluster.py": ["kubernetes"],
    "runtime/planner/kubernetes_adapter.py": ["kubernetes"],
    "runtime/planner/gpu_devices.py": ["gpu"],
    "runtime/planner/cooling_unit.py": ["cooling"],
    "runtime/planner/cooling_setpoint.py": ["cooling"],
    "runtime/planner": ["planner"],
    "runtime/cli/plan_commands.py": ["planner"],
    "runtime/island": ["island"],
    "runtime/openadr": ["openadr"],
    "runtime/export/otlp_exporter.py": ["export+otlp"],
    "runtime/export": ["export"],
    "runtime/telemetry/snmp_usm.py": ["carbon"],
    "runtime/telemetry/nvml_cards.py": ["nvml"],
    "runtime/web": ["web"],
    "runtime/notify": ["notify"],
    "runtime/cli/web_commands.py": ["web"],
    "runtime/recording": ["recorder"],
}


def names_of(requirements: list[str]) -> set[str]:
    found = set()
    for text in requirements:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[([a-z,]+)\])?", text)
        assert match is not None, text
        if match[1] == "tidegate":
            for extra in match[2].split(","):
                found |= names_of(PROJECT["optional-dependencies"][extra])
        else:
            found.add(match[1].lower().replace("_", "-"))
    return found


BUILDING = ("dev", "docs")  # for those who build it, not for the product
PLAIN = names_of(PROJECT["dependencies"])


def imports(path: Path) -> set[str]:
    """Distributions that a file imports, type checkers' imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        found |= {name.partition(".")[0] for name in names}
    third = {name for name in found if name not in sys.stdlib_module_names and name != "tidegate"}
    return {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in third}


FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def installed_with(place: str) -> list[set[str]]:
    """What is installed beside a file, one set for each way to come to run it."""
    for known, ways in EXTRAS.items():
        if place == known or place.startswith(f"{known}/"):
            return [
                PLAIN | {name for extra in way.split("+") for name in names_of([f"tidegate[{extra}]"])} for way in ways
            ]
    return [PLAIN]


def test_every_import_is_declared_where_it_is_imported():
    missing = [
        f"{place} imports {name}"
        for path in FILES
        for place in (path.relative_to(ROOT).as_posix(),)
        for there in installed_with(place)
        for name in sorted(imports(path) - there)
    ]
    assert missing == []


def test_every_declared_package_is_imported_somewhere():
    used = {name for path in FILES for name in imports(path)}
    extras = [extra for extra in PROJECT["optional-dependencies"] if extra not in BUILDING]
    unused = (PLAIN | names_of([f"tidegate[{','.join(extras)}]"])) - used
    assert unused <= {"psycopg"}  # SQLAlchemy loads the driver that a database URL names


def test_a_file_of_the_table_exists():
    assert [place for place in EXTRAS if not (ROOT / place).exists()] == []


def test_every_extra_that_a_message_or_a_page_names_exists():
    places = [*FILES, *(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "packaging").rglob("*.sh")]
    named = {
        (extra, path.relative_to(ROOT).as_posix())
        for path in places
        for found in re.findall(r"tidegate\[([a-z][a-z,]*)\]|need\([^()]*, \"([a-z,]+)\"\)", path.read_text())
        for extra in ",".join(found).strip(",").split(",")
    }
    named |= {(extra, name) for name, place in COMMANDS.items() for extra in place.extra.split(",") if extra}
    assert len(named) > 15
    assert {one for one in named if one[0] not in PROJECT["optional-dependencies"]} == set()


def test_a_dbc_map_without_cantools_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cantools", None)
    monkeypatch.delitem(sys.modules, "tidegate.hal.dbc", raising=False)
    with pytest.raises(MapError, match=r"foxbms.dbc is read with cantools, .* pip install 'tidegate\[dbc\]'"):
        load_map("foxbms2", {})


def test_a_bridged_interface_without_python_can_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "can", None)
    monkeypatch.setattr(canbus.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match=r"slcan:/dev/null is opened with python-can, .* pip install 'tidegate\[tools\]'"):
        canbus.open_bridge("slcan:/dev/null")


PLAIN_PROCESSES = (
    "tidegate.runtime.core.process",
    "tidegate.runtime.gateway.__main__",
    "tidegate.runtime.supervisor.supervisor",
    "tidegate.runtime.console.__main__",
    "tidegate.runtime.cli.main",
    "tidegate.hal.sim.__main__",
)


def test_a_cabinet_without_extras_starts_none_of_their_packages():
    extras = names_of(["tidegate[all]"]) - PLAIN
    modules = {distribution: name for name, distribution in DISTRIBUTIONS.items()} | {"fonttools": "fontTools"}
    banned = sorted(modules.get(name, name.replace("-", "_")) for name in extras)
    code = (
        "import importlib, sys\n"
        f"for name in {banned}: sys.modules[name] = None\n"
        f"for name in {list(PLAIN_PROCESSES)}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
