"""The pages lead where they say."""

import re
from fnmatch import fnmatch
from pathlib import Path

from tests.tools.gate_source import gate_source

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FOLDERS = ("ext", "hal", "config", "runtime", "tests", "docs", "packaging", ".ci")
SOURCES = (".pyx", ".pxd", ".pyi", ".py", ".c", ".h", ".sh", ".j2")


def files_named(text: str) -> list[str]:
    """Paths of the repository and names of source files in a page's code spans and drawings."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.S | re.M)
    drawings = [block for language, block in blocks if not language]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    named = []
    for word in " ".join(spans + drawings).split():
        word = word.strip(",;:()[]\"'?!").removesuffix(".").split("::")[0]
        path = word.split("/")[0] in FOLDERS and "/" in word
        source = word.endswith(SOURCES) and re.fullmatch(r"[\w.*-]+", word)
        if path or source:
            named.append(word)
    return named


def test_every_link_between_pages_leads_to_a_file() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_every_file_that_a_page_names_exists() -> None:
    here = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*")} | {p.name for p in ROOT.iterdir()}
    missing, seen = [], 0
    for page in PAGES:
        for name in files_named(page.read_text()):
            seen += 1
            found = any(ROOT.glob(name.rstrip("/"))) if "/" in name else any(fnmatch(one, name) for one in here)
            if not found:
                missing.append(f"{page.relative_to(ROOT)}: {name}")
    assert seen > 200 and not missing
    assert files_named("`ext/no_such.pyx` and `python tests/gone.py --x`, `lost.pyx`;\n```\nrun ext/away.h\n```\n") == [
        "ext/no_such.pyx", "tests/gone.py", "lost.pyx", "ext/away.h",
    ]  # fmt: skip


def test_every_room_of_the_compiled_core_and_of_the_processes_is_on_the_architecture_page() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [init.parent for folder in ("ext", "runtime") for init in (ROOT / folder).glob("*/__init__.py")]
    assert len(rooms) > 15 and not [room.name for room in rooms if f"{room.name}/" not in text]


def test_every_header_of_the_core_is_on_the_architecture_page() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    headers = [path.name for path in (ROOT / "ext").rglob("*.h")]
    assert len(headers) > 5 and not [name for name in headers if f"{name}`" not in text]


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = {
        name: page.name
        for page in PAGES
        for name in re.findall(r"(?:`|^)(?:[A-Z]+=\S+ )*make ([a-z-]+)", page.read_text(), flags=re.M)
    }
    assert len(named) > 10 and not {name: page for name, page in named.items() if name not in targets}


def test_ci_calls_nothing_that_the_readme_does_not_have() -> None:
    called = set(re.findall(r"^make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), flags=re.M))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert "test" in called and called <= named


def requirements() -> dict[str, str]:
    """id -> how it is verified, from the table of docs/safety.md."""
    text = (ROOT / "docs" / "safety.md").read_text()
    return dict(re.findall(r"^\| (S\d+) \| .* \| ([^|]+) \|$", text, flags=re.M))


def test_everything_that_verifies_a_safety_requirement_exists() -> None:
    tests = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        tests |= set(re.findall(r"^def (test_\w+)", file.read_text(), flags=re.M))
    contracts = gate_source() + "".join(file.read_text() for file in (ROOT / "tests" / "proof").glob("*.c"))
    files = {file.name for file in (ROOT / "tests").rglob("*.*")}
    missing = []
    for ident, how in requirements().items():
        for name in re.findall(r"`([^`]+)`", how):
            pattern = re.compile(name.replace("*", r"\w*") + "$")
            if "/" in name or "." in name:
                found = (ROOT / name).exists() or name in files
            else:
                found = any(pattern.match(test) for test in tests)
            if not found:
                missing.append(f"{ident}: {name}")
        proved = re.search(r"\bproof\b(?: \((S\d+)\))?", how)
        if proved and f" {proved[1] or ident}:" not in contracts:
            missing.append(f"{ident}: a contract of this name")
        if "volume" in how and "gate_volume.c" not in files:
            missing.append(f"{ident}: gate_volume.c")
    assert len(requirements()) >= 20 and not missing


def test_every_page_is_found_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"]
    assert len(pages) > 40 and not [name for name in pages if f"(docs/{name})" not in text]
