"""What runs side by side: models in every state, borders under the thread sanitizer, faults planted in both."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import borders
import run

needs_spin = pytest.mark.skipif(shutil.which("spin") is None, reason="spin is not installed")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
SHORT = [model for model in run.MODELS if model.stem != "lease"]  # its 10^6 states are for `make models`


def test_every_model_has_planted_faults() -> None:
    assert len(run.MODELS) >= 6
    assert all(run.plants(model) for model in run.MODELS)


@needs_spin
@needs_gcc
@pytest.mark.parametrize("model", SHORT, ids=lambda model: model.stem)
def test_a_model_holds_in_every_state_and_its_planted_faults_are_found(model: Path) -> None:
    whole = run.search(model)
    assert whole.errors == 0, whole.said
    assert [plant for plant in run.plants(model) if not run.search(model, plant).errors] == []


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return borders.build(tmp_path_factory.mktemp("borders") / "whole")


@needs_gcc
@pytest.mark.parametrize("border", borders.BORDERS)
def test_a_border_is_without_a_race(program: Path, border: str) -> None:
    assert borders.run(program, border, 5_000) == 0


@needs_gcc
@pytest.mark.parametrize("plant", borders.PLANTS, ids=lambda plant: f"{plant.border}")
def test_a_race_planted_at_a_border_is_found(plant: borders.Plant, tmp_path: Path) -> None:
    assert borders.run(borders.build(tmp_path / "planted", plant), plant.border, 20_000) != 0


def test_every_border_has_a_planted_race() -> None:
    assert {plant.border for plant in borders.PLANTS} == set(borders.BORDERS)
