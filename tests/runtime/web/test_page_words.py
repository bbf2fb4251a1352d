"""The page in three languages: the same keys, each used, each name of the unit worded; and the page's own weight."""

import json
import re
from importlib.resources import files

import pytest

from tidegate.ext.abi.image import MODES_BY_NUMBER, REASONS_BY_NUMBER
from tidegate.ext.safety.gate import REACTIONS
from tidegate.runtime.api.messages import QUALITIES, ROLES
from tidegate.runtime.commissioning.steps import STEPS
from tidegate.runtime.findings.priority import OF_REACTION, PRIORITIES

pytest.importorskip("starlette", reason="the extra web is not installed")
STATIC = files("tidegate.runtime.web").joinpath("static")
LANGUAGES = ("en", "zh", "de")
SCRIPTS = {found.name: found.read_text(encoding="utf-8") for found in STATIC.iterdir() if found.name.endswith(".js")}
WORDS = {name: json.loads(STATIC.joinpath(f"{name}.json").read_text(encoding="utf-8")) for name in LANGUAGES}
# Keys that are put together from a name of the unit: prefix -> the names.
NAMED = {
    "mode": MODES_BY_NUMBER,
    "reason": REASONS_BY_NUMBER,
    "reaction": REACTIONS,
    "quality": QUALITIES,
    "role": ROLES,
    "priority": PRIORITIES,
    "sync": ("U", "I"),
    "step": STEPS,
}
WEIGHT_MAX = 250_000


def test_all_languages_have_the_same_keys_and_none_is_empty():
    assert set(re.findall(r"(\w+): \"", SCRIPTS["words.js"].split("};")[0])) == set(LANGUAGES)
    for name in LANGUAGES:
        assert set(WORDS[name]) == set(WORDS["en"]), name
        assert [key for key, text in WORDS[name].items() if not text.strip()] == []


def test_a_text_has_the_same_places_to_fill_in_in_every_language():
    for key, text in WORDS["en"].items():
        places = set(re.findall(r"\{(\w+)\}", text))
        assert {name: set(re.findall(r"\{(\w+)\}", WORDS[name][key])) for name in LANGUAGES} == dict.fromkeys(
            LANGUAGES, places
        ), key


def test_every_name_of_the_unit_has_its_word():
    for kind, names in NAMED.items():
        have = {key.partition(".")[2] for key in WORDS["en"] if key.startswith(f"{kind}.")}
        assert have == set(names), kind


def test_every_key_that_a_script_asks_for_exists_and_every_other_one_is_gone():
    text = "\n".join(SCRIPTS.values())
    asked = set(re.findall(r"""\bw\(\s*"([\w.-]+)\"""", text))
    families = set(re.findall(r"\bw\(`([a-z]+)\.\$\{", text)) | {
        "mode",
        "reason",
        "reaction",
        "effect",
        "range",
        "order",
    }
    assert asked - set(WORDS["en"]) == set()
    quoted = set(re.findall(r'"([\w.-]+)"', text))
    unused = [key for key in WORDS["en"] if key not in quoted and key.partition(".")[0] not in families]
    assert unused == []


def test_the_page_ranks_alarms_as_messages_do():
    rows = re.search(r"const PRIORITY = \{([^}]*)\}", SCRIPTS["alarms.js"])[1]
    assert dict(re.findall(r'(\w+): "(\w+)"', rows)) == OF_REACTION


def test_nothing_is_parsed_as_markup_and_nothing_comes_from_elsewhere():
    for name, text in SCRIPTS.items():
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text, f"{name}: {word}"
    for found in STATIC.iterdir():
        text = found.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), found.name
    page = STATIC.joinpath("page.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=", page), "the policy forbids what stands inline"


def test_the_whole_page_is_light():
    from tidegate.runtime.web.static_files import StaticFiles

    held = StaticFiles().held
    assert {"index.html", "app.js", "page.css", "de.json"} <= set(held)
    assert sum(len(one.packed) for one in held.values()) <= WEIGHT_MAX
