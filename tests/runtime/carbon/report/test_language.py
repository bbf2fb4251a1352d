"""Both languages say everything, and nothing that is no longer said."""

import ast
import re
import string
from pathlib import Path

import pytest

from tidegate.runtime.carbon.report import language
from tidegate.runtime.carbon.report.language import LANGUAGES, SOURCE, WRITTEN, Language, catalogue, messages_in_code

CARBON = Path(__file__).parents[4] / "runtime" / "carbon"
OTHERS = [code for code in LANGUAGES if code != SOURCE]


def translated(code):
    """message -> its translations, as the catalogue has them."""
    found = {}
    for message in catalogue(code):
        if message.id:
            key = tuple(message.id) if isinstance(message.id, (list, tuple)) else message.id
            found[key] = message.string if isinstance(message.string, (list, tuple)) else (message.string,)
    return found


def fields(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("code", OTHERS)
def test_every_sentence_of_the_code_is_translated(code):
    known = translated(code)
    assert len(messages_in_code()) > 150
    missing = [message for message in messages_in_code() if not all(known.get(message, ("",)))]
    assert not missing, f"python -m {language.__name__}, then translate"


@pytest.mark.parametrize("code", OTHERS)
def test_no_sentence_is_translated_that_the_code_does_not_say(code):
    assert not set(translated(code)) - set(messages_in_code()), f"python -m {language.__name__} drops them"


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_has_the_places_for_numbers_of_its_sentence(code):
    for message, forms in translated(code).items():
        for form in forms:
            assert fields(form) == fields(message if isinstance(message, str) else message[1]), message


def test_a_sentence_that_is_not_marked_is_found(tmp_path, monkeypatch):
    """The check can fail: a file that says something new is named."""
    (tmp_path / "x.py").write_text("def f(_):\n    return f\"{_('nobody translated this')} 1\"\n")
    (said,) = language.messages_of(tmp_path / "x.py")
    assert said == ("nobody translated this", 2)
    assert said[0] not in translated("zh")


def test_no_heading_or_paragraph_of_a_section_goes_round_the_catalogue():
    """Titles and heads are the result of a look-up, never a bare sentence."""
    bare = []
    for path in (CARBON / "report").glob("*_sections.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Section", "Text"):
                shown = node.args[1] if node.func.id == "Section" else node.args[0]
                if isinstance(shown, ast.Constant):
                    bare.append(f"{path.name}:{node.lineno}: {shown.value!r}")
    assert not bare


def test_sentences_of_ledgers_are_those_that_the_booking_writes():
    written = set()
    for room in ("engine", "jobs"):
        for path in (CARBON / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    written.add(node.value)
    assert set(WRITTEN) <= written


def test_plurals_and_numbers_are_those_of_the_language():
    en, zh = Language("en"), Language("zh")
    assert en.plural("{n} job", "{n} jobs", 1) == "1 job"
    assert en.plural("{n} job", "{n} jobs", 73_000) == "73,000 jobs"
    assert zh.plural("{n} job", "{n} jobs", 1) == "1 个任务"
    assert (en.number(1234.5, 3), zh.number(-0.25, 1), en.number(1_234_567)) == ("1,234.500", "-0.2", "1,234,567")


def test_an_unknown_language_is_refused():
    with pytest.raises(OSError, match=r"xx\.po|fr\.po"):
        Language("fr")


def test_a_name_that_no_catalogue_has_stays_as_it_is():
    assert Language("zh").name("hall <7>") == "hall <7>"
    assert re.match("[一-龥]", Language("zh").name("grid"))
