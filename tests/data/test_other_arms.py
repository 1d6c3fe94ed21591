"""Joints and two arms, from recordings to figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import TASK, TWO_ARMS, Array, walks
from matplotlib.text import Text
from reading import about, assert_plain, assert_same_episodes
from small_runs import Run, run_notebooks
from writers import write_libero

from rfsq_robust import load_checkpoint
from workbook.codecs.catalogue import CONDITIONED
from workbook.common.table import Bullets, Table
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.layout import ActionLayout, Kind
from workbook.report.blocks import BLOCKS, show
from workbook.report.figures import (
    comparison as comparison_figures,
    data as data_figures,
    layers as layer_figures,
    policy as policy_figures,
    rate_distortion as rate_figures,
    training as training_figures,
)
from workbook.report.figures.style import Canvas, Plot
from workbook.report.pages import write_reports
from workbook.report.text.data import remarks

TWO_JOINT_ARMS = "joint:6 gripper:1 joint:6 gripper:1"
JOINTS = "joint:6"
PER_CENT = "joint:5 opening:1"
RATE = 12.5


def walk(layout: ActionLayout, rng: np.random.Generator, steps: int) -> Array:
    """(steps, A) actions that wander, with zeros among them; joints beyond 1, grippers that close once."""
    actions = np.clip(np.cumsum(rng.normal(0, 0.1, (steps, layout.dim)), axis=0), -0.9, 0.9)
    actions[:, layout.indices("joint")] *= 3
    actions[:, layout.indices("opening")] = 50 + 50 * actions[:, layout.indices("opening")]
    actions[::9, layout.motion] = 0.0
    for dimension in layout.indices("gripper"):
        actions[:, dimension] = np.where(np.arange(steps) < rng.integers(5, steps - 5), -1.0, 1.0)
    return actions


def write_walks(folder: Path, layout: ActionLayout) -> Path:
    """Two files x 5 demos, at another control rate than LIBERO's."""
    rng = np.random.default_rng(0)
    for task in ("open the drawer", TASK):
        demos = {f"demo_{i}": walk(layout, rng, int(rng.integers(24, 61))) for i in range(5)}
        write_libero(folder / f"{task.replace(' ', '_')}_demo.hdf5", demos, task, RATE)
    return folder


@pytest.fixture(scope="module", params=[TWO_JOINT_ARMS, JOINTS, TWO_ARMS.spec, PER_CENT])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("layout")
    data = write_walks(folder / "data", ActionLayout.parse(request.param))
    return run_notebooks(folder / "out", prepare_dataset(data, DataConfig(layout=request.param)))


# Data


def test_saving_and_loading_keeps_everything(run: Run) -> None:
    saved, loaded = run.prepared.dataset, run.dataset
    assert (loaded.layout, loaded.split, loaded.sha256) == (run.layout, saved.split, saved.sha256)
    assert (loaded.chunk_len, loaded.stride, loaded.control_rate_hz) == (saved.chunk_len, saved.stride, RATE)
    assert_same_episodes(loaded, saved)
    assert all(episode.session == episode.source for episode in loaded.episodes)
    assert loaded.normaliser.low.tobytes() == saved.normaliser.low.tobytes()
    assert loaded.normaliser.high.tobytes() == saved.normaliser.high.tobytes()


def test_joints_are_used_as_they_were_recorded(run: Run) -> None:
    rng = np.random.default_rng(0)
    recorded = [walk(run.layout, rng, int(rng.integers(24, 61))) for _ in range(10)]
    for read, written in zip(run.dataset.episodes, recorded, strict=True):
        assert read.actions.tobytes() == written.tobytes()
    assert run.prepared.changes.clipping.steps_any == 0
    assert [reading.name for reading in run.prepared.changes.grippers] == [
        name for name in run.layout.names if name.startswith("gripper")
    ]


def test_the_remarks_are_whole_sentences(run: Run) -> None:
    found = remarks(run.evidence)
    assert_plain(found)
    assert about(f"{RATE:g} steps a second", found)
    assert bool(about("lattice", found)) == bool(run.layout.of_kind("position"))
    assert not about("published", found)


# Models and errors


def test_models_and_normaliser_have_the_layouts_width(run: Run) -> None:
    for entry in run.training["best"].values():
        checkpoint = load_checkpoint(run.out.checkpoints / entry["file"])
        assert checkpoint.model.config["action_dim"] == run.layout.dim
        assert checkpoint.normalization is not None
        assert checkpoint.normalization["min"].shape == (run.layout.dim,)


def test_errors_are_measured_in_what_the_layout_has(run: Run) -> None:
    has: dict[str, tuple[Kind, ...]] = {
        "position_mm": ("position",), "drift_mm": ("position",), "rotation_deg": ("rotation",),
        "drift_deg": ("rotation",), "joint_length": ("joint",), "gripper_abs": ("gripper", "opening"),
        "gripper_error_rate": ("gripper",), "gripper_on_time": ("gripper",), "gripper_shift_steps": ("gripper",),
    }  # fmt: skip
    scores = run.evidence.scores
    assert {name for name in scores.rows if name.startswith("mse_")} == {f"mse_{name}" for name in run.layout.names}
    for codec in CONDITIONED.values():
        for metric, kinds in has.items():
            measured = scores.estimate(metric, codec).mean is not None
            assert measured == bool(run.layout.of_kind(*kinds)), metric
        assert (scores.estimate("mse", codec).mean or 0) > 0
    assert run.evidence.models.loaded_identical.all()


# Tables, figures and the first page


def test_every_table_builds_and_no_cell_is_nan(run: Run) -> None:
    without = ("replay", "sample", "loop", "predictions", "brought")  # what this run has none of
    shown = {name: show(run.evidence, name).content for name in BLOCKS if not name.startswith(without)}
    tables = {name: content for name, content in shown.items() if isinstance(content, Table)}
    assert len(tables) > 20
    for name, table in tables.items():
        assert table.rows or name in ("smallest", "left_out"), name
        assert {len(row) for row in table.rows} <= {len(table.header)}
        for cell in (str(cell) for row in table.rows for cell in row):
            assert not {"nan", "inf", "None"} & set(cell.split()), (name, cell)
    for content in shown.values():
        if isinstance(content, Bullets):
            assert not {"nan", "None"} & set(" ".join(content.sentences).split())


def test_tables_of_dimensions_have_the_layouts_names(run: Run) -> None:
    for name in ("statistics", "normaliser", "dimensions"):
        table = show(run.evidence, name).content
        assert isinstance(table, Table)
        assert [row[0] for row in table.rows] == list(run.layout.names)
    assert "LIBERO mean" not in show(run.evidence, "statistics").html


def texts(make: Callable[[Any], Plot], shown: Any) -> tuple[Plot, set[str]]:
    """A figure and every text in it."""
    found: set[str] = set()

    def finish(self: Canvas) -> Plot:
        plot = original(self)
        found.update(text.get_text() for text in self.figure.findobj(Text))
        return plot

    original = Canvas.finish
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Canvas, "finish", finish)
        return make(shown), found


WITH_NAMES = (data_figures.distributions, data_figures.autocorrelations, data_figures.example_episode)
OF_DATA = (*WITH_NAMES, data_figures.lengths_and_split)
OF_RUN = (
    training_figures.curves,
    training_figures.costs,
    comparison_figures.forward_and_tokens,
    comparison_figures.improvements,
    comparison_figures.groups,
    comparison_figures.dimensions,
    rate_figures.rate_distortion,
    layer_figures.residual_std,
    layer_figures.entropies,
    layer_figures.prefixes,
    policy_figures.policies,
    policy_figures.accuracies,
)


def check_picture(plot: Plot, words: set[str]) -> None:
    assert plot.png.startswith(b"\x89PNG")
    for text in (plot.alt, *words):
        assert "nan" not in text.split(), text
        assert "None" not in text, text


def test_figures_of_dimensions_name_every_one(run: Run) -> None:
    shown = [*((make, run.dataset) for make in WITH_NAMES), (comparison_figures.dimensions, run.evidence)]
    for make, of in shown:
        plot, words = texts(make, of)
        check_picture(plot, words)
        assert set(run.layout.names) <= words, make.__name__


@pytest.mark.parametrize(("spec", "unit"), [("libero", "50 mm"), (JOINTS, "joints"), (TWO_JOINT_ARMS, "joints")])
def test_the_legend_says_the_units(spec: str, unit: str) -> None:
    assert unit in data_figures._legend(ActionLayout.parse(spec))


@pytest.mark.parametrize("make", OF_RUN)
def test_every_figure_builds(run: Run, make: Callable[[Any], Plot]) -> None:
    check_picture(*texts(make, run.evidence))


def test_the_figure_of_errors_shows_what_the_layout_has(run: Run) -> None:
    _, words = texts(comparison_figures.groups, run.evidence)
    labels = " ".join(words).lower()
    for kind, word in (
        ("position", "in mm"),
        ("rotation", "in degrees"),
        ("joint", "joint error"),
        ("gripper", "grip"),
    ):
        assert (word in labels) == bool(run.layout.of_kind(kind)), word  # type: ignore[arg-type]


def test_the_pages_build(run: Run) -> None:
    write_reports(run.evidence)
    page = run.out.reports.joinpath("index.html").read_text(encoding="utf8")
    assert page.count("<img ") == 5
    assert "NOT EVIDENCE" in page


def test_the_figures_of_episodes_at_rest_build(tmp_path: Path) -> None:
    at_rest = {f"demo_{i}": np.zeros((30 + i, 6)) for i in range(6)}
    dataset = prepare_dataset(write_libero(tmp_path / "a.hdf5", at_rest), DataConfig(layout=JOINTS)).dataset
    for make in OF_DATA:
        check_picture(*texts(make, dataset))


def test_the_autocorrelation_of_episodes_of_one_chunk_builds(tmp_path: Path) -> None:
    demos = {key: actions[:8] for key, actions in walks(0).items()}
    dataset = prepare_dataset(write_libero(tmp_path / "a.hdf5", demos)).dataset
    check_picture(*texts(data_figures.autocorrelations, dataset))
