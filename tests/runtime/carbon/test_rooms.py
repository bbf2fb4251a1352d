"""The rooms of the account stand in one order, and each takes only from those before it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
CARBON = ROOT / "runtime" / "carbon"
ORDER = ("integers", "factors", "ledger", "engine", "readings", "jobs", "sidecar", "report", "example_day", "__main__")


def imports(path):
    """(line, module) of every import of the product in a file, lazy ones too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tidegate."):
            yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("tidegate."))


def test_a_room_of_the_account_imports_only_rooms_before_it():
    wrong, seen = [], set()
    for path in CARBON.rglob("*.py"):
        room = path.relative_to(CARBON).with_suffix("").parts[0]
        if room == "__init__":
            continue
        seen.add(room)
        for line, module in imports(path):
            if module.startswith("tidegate.runtime.carbon."):
                other = module.split(".")[3]
                if ORDER.index(other) > ORDER.index(room):
                    wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong
    assert seen == set(ORDER)


def test_the_product_never_imports_the_demo():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for top in ("runtime", "config", "hal")
        for path in (ROOT / top).rglob("*.py")
        if "demo" not in path.relative_to(ROOT).parts and path.name != "demo_command.py"
        for line, module in imports(path)
        if module.startswith("tidegate.runtime.demo")
    ]
    assert not wrong
