"""The pages lead where they say."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def test_every_link_between_pages_leads_to_a_file() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named and named <= targets


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
    proof = [ROOT / "ext" / "safety" / "safety.c", *(ROOT / "tests" / "proof").glob("*.c")]
    contracts = "".join(file.read_text() for file in proof)
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
