"""The site as commissioning runs it: what a watched run may do that the site alone may not."""

import copy
import tomllib
from importlib.resources import files

import pytest

from tidegate.config.compile import compile_site
from tidegate.config.site import parse_site
from tidegate.ext.abi import program
from tidegate.runtime.commissioning.private_run import ATTENDED_REVERT_MS, bounded

RAW = tomllib.loads(files("tidegate.config").joinpath("sites/simulated.toml").read_text(encoding="utf-8"))


def site(pcs, **more):
    raw = copy.deepcopy(RAW)
    raw["device"][1].update(map=pcs)
    found, problems = parse_site({**raw, **more})
    assert problems == []
    return found


@pytest.mark.parametrize(
    ("pcs", "more", "measured_s"),
    [
        ("sinexcel-pws", {}, ATTENDED_REVERT_MS / 1e3),  # its watchdog cannot be read: this run is to measure it
        ("sinexcel-pws", {"commissioning": {"pcs_revert_ms": 2140}}, 2.14),
        ("sinexcel-pws", {"commissioning": {"pcs_revert_ms": {"pcs1": 3000}}}, 3.0),
        ("sunspec-701", {}, 0.0),  # its own register says it
    ],
)
def test_a_converter_whose_watchdog_nobody_knows_runs_before_somebodys_eyes(pcs, more, measured_s):
    plain = site(pcs, **more)
    watched = program.rows(compile_site(bounded(plain, 500.0)))["units"][0]
    assert watched["revert_measured_s"] == measured_s
    alone = program.rows(compile_site(plain))["units"][0]["revert_measured_s"]
    assert alone == (measured_s if more else 0.0), "and only there"
