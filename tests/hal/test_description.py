"""The describe blob as types: nothing of what the compiler writes is lost, older and later ones are read or refused."""

from pathlib import Path

import msgspec
import pytest

from tidegate.config import site as site_file
from tidegate.config.compile import compile_site
from tidegate.config.site import load_site
from tidegate.ext.abi import program
from tidegate.hal import description

ROOT = Path(__file__).parents[2]
SITES = sorted((ROOT / "config").glob("*/*.toml"))


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_everything_that_the_compiler_writes_has_its_field(path):
    blob = program.describe(compile_site(load_site(path)))
    found = msgspec.to_builtins(description.described(blob))

    def lost(wrote: object, read: object, at: str) -> list[str]:
        if isinstance(wrote, dict):
            assert isinstance(read, dict), at
            return [one for key in wrote for one in
                    (lost(wrote[key], read[key], f"{at}.{key}") if key in read else [f"{at}.{key}"])]  # fmt: skip
        if isinstance(wrote, list):
            assert isinstance(read, (list, tuple)) and len(read) == len(wrote), at
            return [one for i, row in enumerate(wrote) for one in lost(row, read[i], f"{at}[{i}]")]
        return [] if wrote == read else [f"{at}: {wrote!r} became {read!r}"]

    assert lost(blob, found, "") == []


# Keys of the site file that are not in the description: one of before that nothing reads, one in the rows of lines.
ELSEWHERE = {"Control": {"meter_latency_ms"}, "Simulation": {"contact"}}
PAIRS = [
    (name, getattr(site_file, name), getattr(description, name))
    for name in ("SiteHead", "Storage", "Limits", "Control", "Slot", "Gateway", "Fetch", "Carbon", "Simulation",
                 "SimulatedFault", "Recorder")
    if hasattr(site_file, name)
]  # fmt: skip


@pytest.mark.parametrize("name, model, row", PAIRS, ids=[name for name, *_ in PAIRS])
def test_a_default_of_the_description_is_the_site_files(name, model, row):
    assert set(model.model_fields) - ELSEWHERE.get(name, set()) == set(row.__struct_fields__)
    for field in msgspec.structs.fields(row):
        theirs = model.model_fields[field.name]
        if not theirs.is_required():
            ours = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            assert ours == theirs.get_default(call_default_factory=True), field.name


def test_a_blob_from_before_a_field_gets_its_default():
    found = description.described({"site": {"name": "old"}, "points": [{"name": "a.b"}], "faults": [{"id": "x"}]})
    assert found.gateway.journal_mb_max == 2048
    assert found.point_units == {"a.b": ""}
    assert found.fault_names() == {0: "x"}


def test_fields_of_a_later_release_are_left_aside():
    assert description.described({"sundial": 3, "site": {"name": "new", "moon": "full"}}).site.name == "new"


def test_a_later_schema_is_refused_with_its_version_and_the_remedy():
    with pytest.raises(description.DescriptionError, match=r"version 2, this release reads 1; use the release"):
        description.described({"schema": 2})


def test_a_damaged_blob_is_refused_with_the_place():
    with pytest.raises(description.DescriptionError, match=r"points\[0\].*compile the site again"):
        description.described({"points": [{"unit": "W"}]})
