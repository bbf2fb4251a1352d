"""`tidegate grid-operator`: what is said at the command line becomes the API's order, and what is held is shown."""

import pytest
from click.testing import CliRunner

from tidegate.runtime.api import blocking_client
from tidegate.runtime.cli import control_commands


class Asked:
    """A client that keeps what it was asked."""

    def __init__(self, *_args, **_more):
        self.calls = []
        Asked.last = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def grid_operator(self, **what):
        self.calls.append(what)
        return {"text": "taken"}

    def release_grid_operator(self):
        self.calls.append("release")
        return {"text": "released"}

    def why(self):
        measured = {"mean_w": 3900.0, "covered_s": 40.0, "above_s": 1.0, "above_wh": 0.3}
        text = "import at most 4200 W (order 17)"
        return {"grid_operator": {"text": text, "peer": "dso", "left_ms": 60_000, "measured": measured}}


@pytest.fixture(autouse=True)
def client(monkeypatch):
    monkeypatch.setattr(blocking_client, "Client", Asked)
    monkeypatch.setattr(control_commands, "echo_answer", lambda answer: None)


def run(*words):
    return CliRunner().invoke(control_commands.grid_operator, list(words))


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["limit", "20kW", "--for", "15m"],
         {"import_w_max": 20e3, "export_w_max": None, "for_s": 900.0, "reference": ""}),
        (["limit", "0W", "--export", "--for", "2h", "--reference", "order 17"],
         {"import_w_max": None, "export_w_max": 0.0, "for_s": 7200.0, "reference": "order 17"}),
        (["stop", "--for", "10m"], {"stop": True, "for_s": 600.0, "reference": ""}),
        (["clear"], "release"),
    ],
)  # fmt: skip
def test_each_word_becomes_the_order_that_the_api_has(words, asked):
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert Asked.last.calls == [asked]


@pytest.mark.parametrize("words", [["limit", "20kW"], ["limit", "20 bananas", "--for", "1m"], ["stop"]])
def test_an_order_without_an_end_or_a_power_is_refused(words):
    assert run(*words).exit_code != 0


def test_show_says_the_order_its_end_and_what_the_meter_showed():
    said = run("show").output
    assert "import at most 4200 W (order 17), by dso, 60 s left" in said
    assert "mean 3900 W over 40 s; above the limit for 1 s, 0.3 Wh" in said
