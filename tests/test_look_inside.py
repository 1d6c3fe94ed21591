"""The notebook to play in: it runs on the committed models, and says what its exercises ask."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import torch

from rfsq_robust import load_checkpoint
from workbook.common.paths import NOTEBOOKS
from workbook.data.dataset import prepare_dataset
from workbook.report.drawings.slider import slider
from workbook.training import look_inside
from workbook.training.trainer import TrainConfig

LARGEST = 1_000_000  # bytes of the committed models


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    path = tmp_path_factory.mktemp("look") / "executed.ipynb"
    source = NOTEBOOKS / "00_look_inside.ipynb"
    papermill.execute_notebook(str(source), str(path), {"chunk": 3}, kernel_name="python3", progress_bar=False)
    return nbformat.read(path, as_version=4)


def test_it_runs_on_another_chunk_and_every_exercise_has_an_answer(executed: nbformat.NotebookNode) -> None:
    after = zip(executed.cells, executed.cells[1:], strict=False)
    exercises = [answer for text, answer in after if text.cell_type == "markdown" and "**Exercise.**" in text.source]
    assert len(exercises) == 8
    assert all(answer.outputs for answer in exercises)
    assert not [o for cell in executed.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]


def test_its_page_has_a_slider_that_needs_no_kernel(executed: nbformat.NotebookNode) -> None:
    shown = [o.data.get("text/html", "") for cell in executed.cells for o in cell.get("outputs", []) if "data" in o]
    (html,) = [text for text in shown if 'class="slider"' in text]
    assert html.count("<figure>") == 8


def test_the_committed_models_are_small_and_load() -> None:
    files = list(look_inside.FOLDER.glob("*.pt"))
    assert {path.stem for path in files} == {*look_inside.CODECS, "policy"}
    assert sum(path.stat().st_size for path in files) < LARGEST
    for name, conditioning in look_inside.CODECS.items():
        assert load_checkpoint(look_inside.FOLDER / f"{name}.pt").model.conditioning == conditioning
    assert look_inside.load_policy()(torch.zeros(2, 8, 7)).shape == (2, 8, 16, 7)


def test_the_script_makes_them_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_inside, "FOLDER", tmp_path / "models")
    monkeypatch.setattr(look_inside, "CONFIG", TrainConfig(epochs=1))
    monkeypatch.setattr(look_inside, "POLICY_STEPS", 2)
    threads = torch.get_num_threads()
    look_inside.make()
    torch.set_num_threads(threads)
    assert {path.name for path in look_inside.FOLDER.iterdir()} == {
        "naive.pt", "fixed_scale.pt", "layernorm.pt", "policy.pt",
    }  # fmt: skip
    assert look_inside.load_policy()(torch.zeros(1, 8, 7)).isfinite().all()


def test_pairs_are_neighbours_of_one_episode() -> None:
    dataset = prepare_dataset("sample").dataset
    before, after = look_inside.pairs(dataset, "test")
    assert before.shape == after.shape
    first = dataset.normaliser.normalise(dataset.part("test")[0].actions)
    torch.testing.assert_close(before[0], torch.from_numpy(first[:8]).float())
    torch.testing.assert_close(after[0], torch.from_numpy(first[8:16]).float())
    lengths = [len(episode.actions) // 8 - 1 for episode in dataset.part("test")]
    assert len(before) == sum(lengths)


class TestSlider:
    def test_every_frame_stands_there_without_scripts(self) -> None:
        frames = {f"{k} layers": {"a < b": np.array([0.0, k]), "c": np.array([1.0, 0.0])} for k in (1, 2)}
        html = slider("name", frames, ["#111111", "#222222"], "lines").html
        assert html.count("<polyline") == 4
        assert html.count("a &lt; b") == 4
        assert "<figure hidden" not in html
        assert html.count("<script>") == 1

    @pytest.mark.parametrize("frames", [{}, {"one": {"a": np.array([1.0])}}])
    def test_nothing_to_draw_is_refused(self, frames: dict[str, dict[str, np.ndarray]]) -> None:
        with pytest.raises(ValueError, match="frames"):
            slider("name", frames, ["#111111"], "lines")
