"""A report in Chinese or German has no English sentence left in it: what a reader sees is read word by word."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.runtime.carbon.report.test_report_page import busy  # noqa: F401  (a fixture)
from tests.runtime.carbon.report.test_write import DAY, ledger  # noqa: F401  (a fixture)
from tidegate.runtime.carbon.report.language import Language
from tidegate.runtime.carbon.report.rested import Rested
from tidegate.runtime.carbon.report.write import write
from tidegate.runtime.carbon.report.written import SENTENCES, written

CARBON = Path(__file__).parents[4] / "runtime" / "carbon"
# Units, symbols of the acts and standards, names of the product's own files and commands: the same in any language.
SAME_WORDS = """
    kwh kw mwh kg co2e g utc eur gbp pue cue ref erf wue sci cfe gpu it ppa csv json report periods indicators jobs idle
    tidegate carbon verify ledger iso iec eu sha256 ug min test log x embodied_kg slots pod pods pdu e_dc e_it c l
    iteesv iteusv scope fifo priority token"""
SAME = frozenset(SAME_WORDS.split())
# English words that no Chinese or German sentence has; enough of them to find any sentence that was not translated.
ENGLISH_WORDS = """
    the of and or is are were not no with without which what where when from by for that this into over under at each
    every energy carbon emissions period measured metered missing given job load loads unit site storage battery grid
    factor share sum own hour day month highest demand booked readings"""
ENGLISH = frozenset(ENGLISH_WORDS.split())


class Texts(HTMLParser):
    """What is shown of a page, and what is read out of it."""

    def __init__(self, page):
        super().__init__()
        self.found, self._off = [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._off += tag == "style"
        self.found += [value for name, value in attrs if name in ("alt", "title", "aria-label") and value]

    def handle_endtag(self, tag):
        self._off -= tag == "style"

    def handle_data(self, data):
        if not self._off and data.strip():
            self.found.append(data.strip())


def left_over(texts, names):
    """Texts with an English word that is neither a name of the site's nor the same in any language."""
    found = []
    for text in texts:
        bare = re.sub(r"\S*(?:sha256|/|\.(?:csv|json|db)|_|[a-z\]]\.[a-z])\S*", " ", text)
        bare = re.sub(r"tidegate carbon verify.*", " ", bare)
        for word in re.findall(r"[A-Za-z]+", bare):
            if word.lower() in ENGLISH and word not in names:
                found.append(text)
                break
    return found


def words_of_chinese(texts, names):
    """In Chinese any word of three letters that is no unit, name or symbol is left over."""
    found = []
    for text in texts:
        bare = re.sub(r"\S*(?:/|\.(?:csv|json|db)|_|[a-z\]]\.[a-z]|…)\S*", " ", text)
        words = re.findall(r"(?<![A-Za-z0-9])[A-Za-z]{3,}(?![A-Za-z0-9])", bare)
        if any(word.lower() not in SAME and word not in names and not word.isupper() for word in words):
            found.append(text)
    return found


@pytest.mark.parametrize("template", ["account", "paper"])
def test_no_english_is_left_in_a_report(busy, tmp_path, template):  # noqa: F811
    names = {"hall", "roof", "cabinet", "lab", "cool", "average", "carried", "a", "note", "actual", "GB"}
    made = write(busy, DAY, DAY + 86_400, tmp_path / "r", languages=("en", "zh", "de"), pdf=False, template=template,
                 demand_charge={"u_per_kw": 1_000_000, "window_s": 900})  # fmt: skip
    pages = {code: Texts(made[f"html {code}"].read_text(encoding="utf-8")).found for code in ("en", "zh", "de")}
    assert len(left_over(pages["en"], names)) > 100, "the words would find English"
    assert not words_of_chinese(pages["zh"], names)
    assert not left_over(pages["zh"], names)
    assert not left_over(pages["de"], names)


@pytest.mark.parametrize("code", ["zh", "de"])
def test_what_was_written_with_numbers_in_it_is_said_in_the_language(code):
    language = Language(code)
    for sentence in SENTENCES:
        filled = re.sub(r"\{[a-z_]+\}", "7", sentence)
        assert written(language, filled) != filled, sentence
    assert "3" in written(language, "3 slot(s) missing from 2024-03-01T00:00Z: held")
    assert written(language, "WUE: no readings").startswith("WUE: ")
    assert written(language, "hall 7") == "hall 7" and written(language, "a: b") == "a: b"
    both = written(language, "sum of own generation, guarantees of origin")
    assert "own" not in both and "origin" not in both


def test_sentences_are_those_that_the_code_writes():
    """The longest piece of each template that has no field stands in the code, so none outlives what it translates."""
    code = "".join(path.read_text(encoding="utf-8") for path in CARBON.rglob("*.py") if path.name != "written.py")
    code = re.sub(r'"\s*\n?\s*f?"', "", code)
    for sentence in SENTENCES:
        piece = max(re.split(r"\{[a-z_]+\}", sentence), key=len).strip(" ;:,")
        assert piece in code or piece.startswith(("rests shorter", "own generation, ")), sentence


def test_notes_on_what_rested_are_translated():
    made = Rested()
    made.add({"rows": [], "problems": ["no price is known; money is 0"], "assumptions": ["pods of x are no work"],
              "not_judged_count": 2})  # fmt: skip
    notes = made.document()["notes"]
    assert len(notes) == 2
    assert all(re.search("[一-龥]", written(Language("zh"), note)) for note in [*notes, "pods of x are no work"])
