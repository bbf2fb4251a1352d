from collections.abc import Iterable
from types import ModuleType

QUALITY_NAMES: tuple[str, ...]
POINT_FIELDS: list[tuple[str, str]]
SITE_NAMES: tuple[str, ...]
SITE_UNITS: tuple[str, ...]
UNIT_NAMES: tuple[str, ...]
UNIT_UNITS: tuple[str, ...]
REASONS_BY_NUMBER: tuple[str, ...]
MODES_BY_NUMBER: tuple[str, ...]
POINTS_LIMIT: int
UNITS_LIMIT: int

def unit_point(unit: int, which: int | str) -> int: ...
def fixed_points(n_units: int) -> list[tuple[str, str]]: ...
def layout() -> dict[str, int]: ...
def check_layouts(modules: Iterable[ModuleType]) -> None: ...
