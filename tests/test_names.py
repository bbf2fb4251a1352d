"""A name says one thing: no file stem twice, no identifier that docs/glossary.md calls by another word."""

import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ext", "hal", "config", "runtime")
KINDS = (".py", ".pyx", ".pxd", ".pyi", ".c", ".h")
EVERYWHERE = {"__init__", "__main__"}
DOORS = {Path("runtime/client.py"), Path("runtime/aclient.py")}  # public names that lead into runtime/api/


def product_files() -> list[Path]:
    """Hand-written files of the product; what Cython makes stands beside its .pyx and is none."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.*")):
            made = path.suffix == ".c" and path.with_suffix(".pyx").exists()
            if path.suffix in KINDS and not made:
                found.append(path.relative_to(ROOT))
    return found


def names_of(page: str) -> set[str]:
    """Words of the third column of the glossary's tables."""
    rows = re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\|$", page, flags=re.M)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def python_identifiers(text: str) -> Iterator[tuple[int, str]]:
    """(line, name) of a Python source, those inside f-strings too."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string
        elif token.type == tokenize.STRING and "f" in token.string[:2].lower():  # whole before Python 3.12
            for filled in re.findall(r"(?<!\{)\{([^{}]+)\}", token.string):
                code = re.sub(r"'[^']*'|\"[^\"]*\"", "", filled)
                yield from ((token.start[0], name) for name in re.findall(r"[A-Za-z_]\w*", code))


def c_identifiers(text: str, *, cython: bool) -> Iterator[tuple[int, str]]:
    """(line, name) of a C or Cython source, comments and strings left out."""
    patterns = [r'"""(?:.|\n)*?"""', r'"(?:\\.|[^"\\\n])*"', r"'(?:\\.|[^'\\\n])*'"]
    patterns += [r"#.*"] if cython else [r"/\*(?:.|\n)*?\*/", r"//.*"]
    bare = re.sub("|".join(patterns), lambda match: "\n" * match[0].count("\n"), text)
    for number, line in enumerate(bare.splitlines(), 1):
        yield from ((number, name) for name in re.findall(r"[A-Za-z_]\w*", line))


def breaks(name: str, word: str) -> bool:
    """Whether a name is the word or has it as a part: `_say`, `bus_news`, `NEWS_PER_S`."""
    return f"_{word}_" in f"_{name.strip('_').lower()}_"


def misnamed(path: Path, text: str, words: set[str]) -> list[str]:
    """Identifiers of a source that the glossary has another word for."""
    python = path.suffix in (".py", ".pyi")
    found = python_identifiers(text) if python else c_identifiers(text, cython=path.suffix in (".pyx", ".pxd"))
    return [f"{path}:{line}: {name}" for line, name in found if any(breaks(name, word) for word in words)]


def test_no_file_stem_stands_twice() -> None:
    folders: dict[str, set[Path]] = defaultdict(set)
    for path in product_files():
        stem = path.name.partition(".")[0]
        if stem not in EVERYWHERE and path not in DOORS:
            folders[stem].add(path.parent)
    twice = {stem: sorted(map(str, where)) for stem, where in folders.items() if len(where) > 1}
    assert len(folders) > 150
    assert not twice


def test_no_identifier_stands_on_the_glossarys_other_list() -> None:
    words = names_of((ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    assert {"say", "wish", "behind"} <= words
    wrong = [
        row for path in product_files() for row in misnamed(path, (ROOT / path).read_text(encoding="utf-8"), words)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "def _say(): pass"),
        ("a.py", "x = f'{bus_news:>3}'"),
        ("a.pyx", "cdef double calm_s  # quiet"),
        ("a.h", "/* fine */ double NEWS_PER_S;"),
    ],
)
def test_a_name_of_the_other_list_is_found(name: str, text: str) -> None:
    assert misnamed(Path(name), text, {"say", "news", "calm"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", "# say\nessay = 'say'\nx = f'say {essay}'"),
        ("a.pyx", '"""say"""\ncdef int newsy  # news'),
        ("a.h", '// calm\nchar* a = "calm"; /* news\n say */'),
    ],
)
def test_comments_and_texts_are_no_names(name: str, text: str) -> None:
    assert not misnamed(Path(name), text, {"say", "news", "calm"})
