"""Names of the image's rows, and the check that all modules were built from one set of headers."""

from types import ModuleType, SimpleNamespace
from typing import cast

import pytest

from tidegate.ext.abi import image, shared
from tidegate.ext.bus import can_view


def test_every_site_and_unit_name_is_unique() -> None:
    names = [name for name, _ in image.fixed_points(image.UNITS_LIMIT)]
    assert len(set(names)) == len(names)


def test_unit_points_follow_the_site_points_in_image_order() -> None:
    rows = image.fixed_points(3)
    for unit in range(3):
        for which, name in enumerate(image.UNIT_NAMES):
            index = image.unit_point(unit, which)
            assert rows[index][0] == f"unit{unit}.{name}"
            assert image.unit_point(unit, name) == index


@pytest.mark.parametrize(
    ("unit", "which"), [(-1, 0), (16, 0), (0, -1), (0, len(image.UNIT_NAMES)), (0, "no_such_point")]
)
def test_a_unit_point_outside_the_image_is_refused(unit: int, which: int | str) -> None:
    with pytest.raises(ValueError):
        image.unit_point(unit, which)


def test_the_name_of_a_site_point_ends_in_its_unit() -> None:
    for name, unit in zip(image.SITE_NAMES, image.SITE_UNITS, strict=True):
        if unit in ("W", "Ws", "s"):
            assert name.endswith(f"_{unit.lower()}"), name


def test_modules_of_one_build_agree_on_their_layout() -> None:
    image.check_layouts([image, shared, can_view])


def test_a_module_of_another_build_is_refused_by_name() -> None:
    old = cast(ModuleType, SimpleNamespace(__name__="tidegate.ext.old", layout=lambda: {"point_t": 16}))
    with pytest.raises(ImportError, match=r"tidegate\.ext\.old was built with point_t = 16.*make build"):
        image.check_layouts([image, old])
