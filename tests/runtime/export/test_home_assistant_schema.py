"""What a site announces to Home Assistant, over Home Assistant's own schema and tables of units.

TIDEGATE_HOME_ASSISTANT=FOLDER is an environment of its own; where there is none in it yet the test makes it (100 MB of
packages, a minute or more): `homeassistant` 2024.3, the last release for Python 3.11, without what only its other parts
want.
"""

import json
import os
import subprocess
import venv
from pathlib import Path

import pytest

from tests.runtime.export import home_assistant_schema
from tests.runtime.export.test_home_assistant import SITES, announced

FOLDER = os.environ.get("TIDEGATE_HOME_ASSISTANT", "")
RELEASE = "homeassistant==2024.3.3"
BESIDE = ("voluptuous==0.13.1", "attrs", "jinja2", "yarl", "awesomeversion", "aiohttp<3.10", "astral==2.2",
          "async-interrupt", "python-slugify", "PyYAML", "voluptuous-serialize", "typing-extensions", "orjson",
          "ciso8601", "lru-dict", "ulid-transform")  # fmt: skip
# A key of releases that want Python 3.12 (2024.11); an older one leaves it out and shows the words all the same.
YOUNGER = "options is no key of a sensor"
pytestmark = [
    pytest.mark.skipif(not FOLDER, reason="TIDEGATE_HOME_ASSISTANT names no folder"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def asked():
    """Asks Home Assistant what is wrong with pairs of topic and payload."""
    python = Path(FOLDER) / "bin" / "python"
    if not python.exists():
        venv.create(FOLDER, with_pip=True)
        pip = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:"]
        subprocess.run([*pip, *BESIDE], check=True)
        subprocess.run([*pip, "--no-deps", RELEASE], check=True)

    def ask(pairs):
        words = [python, home_assistant_schema.__file__]
        done = subprocess.run(words, input=json.dumps(pairs), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


@pytest.mark.parametrize("name", SITES)
def test_home_assistant_takes_all_that_a_site_announces(asked, name):
    pairs = announced(name)
    wrong = [why for said in asked(pairs) for why in said]
    assert len(pairs) > 30 and [why for why in wrong if why != YOUNGER] == []
    enums = sum(said.get("device_class") == "enum" for _, said in pairs)
    assert wrong.count(YOUNGER) == enums > 0


def test_home_assistant_refuses_what_is_wrong(asked):
    topic, good = announced(SITES[0])[0]
    changes = ({"state_topic": "a/#/b"}, {"device_class": "powr"}, {"device": {"name": "x"}}, {"state_class": "sum"},
               {"origin": {}}, {"no_such_key": 1}, {"device_class": "power", "unit_of_measurement": "V"},
               {"value_template": "{{ (value"})  # fmt: skip
    said = asked([[topic, {**good, **change}] for change in changes])
    assert all(said), [change for change, why in zip(changes, said, strict=True) if not why]
    assert asked([["homeassistant/sensor/a b/config", good]])[0]
