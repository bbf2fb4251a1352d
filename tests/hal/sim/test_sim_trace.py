"""Traces are checked row by row; what is wrong is said with file, line, column and remedy."""

import numpy as np
import pytest

from tidegate.hal.sim.build import steps
from tidegate.hal.sim.trace import TraceError, read_trace

GOOD = "t_s,power_w,note\n0,100,a\n2,200,b\n4,150,c\n"


def trace(tmp_path, text, **options):
    path = tmp_path / "load.csv"
    path.write_text(text)
    return read_trace(path, options.pop("column", "power_w"), **options)


def test_rows_come_back_as_numbers(tmp_path):
    t_s, power_w = trace(tmp_path, GOOD)
    assert list(t_s) == [0, 2, 4] and list(power_w) == [100, 200, 150]


def test_part_of_a_trace_begins_with_the_row_that_holds_there(tmp_path):
    t_s, power_w = trace(tmp_path, GOOD, start_s=3.0, length_s=1.5)
    assert list(t_s) == [0.0, 1.0] and list(power_w) == [200, 150]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (GOOD.replace("200", ""), {}, "line 3, power_w: is blank"),
        (GOOD.replace("200", "two"), {}, "line 3, power_w: 'two' is not a number"),
        (GOOD.replace("200", "nan"), {}, "line 3, power_w: 'nan' is not a finite number"),
        (GOOD.replace("4,", "1,"), {}, "line 4, t_s: 1 does not rise"),
        (GOOD.replace("2,200,b", "2,200"), {}, "line 3: 2 fields, the header has 3"),
        (GOOD, {"column": "watt"}, "no column 'watt'; it has: t_s, power_w, note"),
        (GOOD, {"start_s": 99.0}, "start at 99 s, the trace is 4 s long"),
        ("t_s,power_w\n", {}, "expected a header row and at least one of numbers"),
    ],
)
def test_bad_trace_is_refused_with_its_place(tmp_path, text, options, said):
    with pytest.raises(TraceError, match=r"load\.csv") as caught:
        trace(tmp_path, text, **options)
    assert said in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"nothing\.csv"):
        read_trace(tmp_path / "nothing.csv", "power_w")


@pytest.mark.parametrize("load", [([0, 1], [1.0]), ([0, 0], [1.0, 2.0]), ([0, 1], [1.0, np.nan])])
def test_arrays_that_are_no_trace_are_refused(load):
    with pytest.raises(ValueError, match="load trace"):
        steps(load, {"load_w": 0.0, "trace_ppm": 0.0, "trace_phase_s": 0.0})
