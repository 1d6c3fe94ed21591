"""Joints and two arms, from recordings to figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import TASK, TWO_ARMS, Array, walks
from matplotlib.text import Text
from reading import assert_same_episodes
from small_runs import Run, run_notebooks, tables_of
from writers import write_libero

from rfsq_robust import CONDITIONINGS, load_checkpoint
from workbook.common.stages import read_stage
from workbook.data.dataset import DataConfig, prepare_dataset
from workbook.data.layout import ActionLayout
from workbook.report.figures import (
    comparison as comparison_figures,
    data as data_figures,
    layers as residual_figures,
    policy as phase2_figures,
    rate_distortion as rate_figures,
    training as training_figures,
)
from workbook.report.figures.style import Canvas, Plot
from workbook.report.pages import write_reports
from workbook.report.tables import comparison as tables, data as data_tables
from workbook.report.text.data import remarks
from workbook.verdict.results import judge_comparison

TWO_JOINT_ARMS = "joint:6 gripper:1 joint:6 gripper:1"
JOINTS = "joint:6"
RATE = 12.5


def walk(layout: ActionLayout, rng: np.random.Generator, steps: int) -> Array:
    """(steps, A) actions that wander, with zeros among them; joints beyond 1, grippers that close once."""
    actions = np.clip(np.cumsum(rng.normal(0, 0.1, (steps, layout.dim)), axis=0), -0.9, 0.9)
    actions[:, layout.indices("joint")] *= 3
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


@pytest.fixture(scope="module", params=[TWO_JOINT_ARMS, JOINTS, TWO_ARMS.spec])
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
    found = remarks(read_stage(run.out, "data"))
    assert found == remarks(run.data)
    assert all(sentence.endswith(".") and "nan" not in sentence for sentence in found)
    assert f"Recorded at {RATE:g} steps a second; LIBERO's controller runs at 20." in found
    assert bool([s for s in found if "lattice" in s]) == bool(run.layout.of_kind("position"))
    assert not [s for s in found if "published" in s]


# Models and errors


def test_models_and_normaliser_have_the_layouts_width(run: Run) -> None:
    for entry in run.training["best"].values():
        checkpoint = load_checkpoint(run.out.checkpoints / entry["file"])
        assert checkpoint.model.config["action_dim"] == run.layout.dim
        assert checkpoint.normalization is not None
        assert checkpoint.normalization["min"].shape == (run.layout.dim,)


def test_errors_are_measured_in_what_the_layout_has(run: Run) -> None:
    has = {
        "position_mm": "position", "drift_mm": "position", "rotation_deg": "rotation", "drift_deg": "rotation",
        "joint_length": "joint", "gripper_abs": "gripper", "gripper_error_rate": "gripper",
    }  # fmt: skip
    for name in CONDITIONINGS:
        errors = run.comparison["models"][name]["token_errors"]
        assert {key for key in errors if key.startswith("mse_")} == {f"mse_{name}" for name in run.layout.names}
        for key, kind in has.items():
            assert (errors[key]["mean"] is not None) == bool(run.layout.of_kind(kind)), key  # type: ignore[arg-type]
        assert errors["mse"]["mean"] > 0
        assert run.comparison["models"][name]["checkpoints"]["loaded_and_identical"] == 2


def test_the_results_say_their_layout_and_hold_no_nan(run: Run) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    written = json.loads(run.out.results.read_text(encoding="utf8"), parse_constant=refuse)
    assert written["data"]["layout"] == run.layout.spec
    assert written["verdict"]["word"] == "NOT SHOWN"
    for sentence in [
        *written["against"],
        *written["discrepancies"],
        *(entry["sentence"] for entry in written["options"]),
    ]:
        assert "nan" not in sentence.split()
        assert "None" not in sentence
    assert json.loads(json.dumps(run.results)) == written


# Tables


def test_every_table_builds_and_no_cell_is_nan(run: Run) -> None:
    for table in tables_of(run):
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}
        for cell in (str(cell) for row in table.rows for cell in row):
            assert not {"nan", "inf", "None"} & set(cell.split()), cell
    criteria, verdict = judge_comparison(run.training, run.comparison)
    assert tables.criteria_table(criteria, "layernorm").rows
    assert tables.verdict_block(verdict).html


def test_tables_of_dimensions_have_the_layouts_names(run: Run) -> None:
    of_data = (data_tables.statistics_table(run.data), data_tables.normaliser_table(run.data))
    for table in (*of_data, tables.dimension_table(run.comparison)):
        assert [row[0] for row in table.rows] == list(run.layout.names)
    assert "LIBERO mean" not in data_tables.statistics_table(run.data).header


def test_the_table_of_physical_errors_leaves_out_what_the_layout_lacks(run: Run) -> None:
    labels = " ".join(str(row[0]) for row in tables.physical_table(run.comparison).rows)
    for kind, word in (("position", " mm"), ("rotation", "degrees"), ("joint", "joints"), ("gripper", "gripper")):
        assert (word in labels) == bool(run.layout.of_kind(kind)), word  # type: ignore[arg-type]


# Figures and the first page


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


WITH_NAMES = {
    "dataset": (data_figures.distributions, data_figures.autocorrelations, data_figures.example_episode),
    "comparison": (comparison_figures.dimensions,),
}
WITHOUT_NAMES = {
    "dataset": (data_figures.lengths_and_split,),
    "training": (training_figures.curves, training_figures.costs),
    "comparison": (
        comparison_figures.forward_and_tokens,
        comparison_figures.improvements,
        comparison_figures.groups,
    ),
    "rates": (rate_figures.rate_distortion,),
    "residuals": (residual_figures.residual_std, residual_figures.entropies, residual_figures.prefixes),
    "phase2": (phase2_figures.policies, phase2_figures.accuracies),
}


def check_picture(plot: Plot, words: set[str]) -> None:
    assert plot.png.startswith(b"\x89PNG")
    for text in (plot.alt, *words):
        assert "nan" not in text.split(), text
        assert "None" not in text, text


@pytest.mark.parametrize("part", WITH_NAMES)
def test_figures_of_dimensions_name_every_one(run: Run, part: str) -> None:
    for make in WITH_NAMES[part]:
        plot, words = texts(make, getattr(run, part))
        check_picture(plot, words)
        assert set(run.layout.names) <= words, make.__name__


@pytest.mark.parametrize(
    ("spec", "units"),
    [
        ("libero", "x axis: action in controller\nunits; 1 = 50 mm in position,\n0.5 rad in rotation, per step"),
        (JOINTS, "x axis: joints in the units of\nthe recording, all else in the\ncontroller's"),
        (TWO_JOINT_ARMS, "x axis: joints in the units of\nthe recording, all else in the\ncontroller's"),
    ],
)
def test_the_legend_says_the_units(spec: str, units: str) -> None:
    assert data_figures._legend(ActionLayout.parse(spec)).endswith(f"\n\n{units}")


@pytest.mark.parametrize("part", WITHOUT_NAMES)
def test_every_other_figure_builds(run: Run, part: str) -> None:
    for make in WITHOUT_NAMES[part]:
        check_picture(*texts(make, getattr(run, part)))


def test_the_figure_of_errors_shows_what_the_layout_has(run: Run) -> None:
    _, words = texts(comparison_figures.groups, run.comparison)
    labels = " ".join(words).lower()
    for kind, word in (
        ("position", "in mm"),
        ("rotation", "in degrees"),
        ("joint", "joint error"),
        ("gripper", "grip"),
    ):
        assert (word in labels) == bool(run.layout.of_kind(kind)), word  # type: ignore[arg-type]


def test_the_first_page_builds(run: Run) -> None:
    write_reports(run.out, run.results, {})
    assert run.out.reports.joinpath("index.html").stat().st_size > 10_000


def test_the_figures_of_episodes_at_rest_build(tmp_path: Path) -> None:
    at_rest = {f"demo_{i}": np.zeros((30 + i, 6)) for i in range(6)}
    dataset = prepare_dataset(write_libero(tmp_path / "a.hdf5", at_rest), DataConfig(layout=JOINTS)).dataset
    for make in (*WITH_NAMES["dataset"], *WITHOUT_NAMES["dataset"]):
        check_picture(*texts(make, dataset))


def test_the_autocorrelation_of_episodes_of_one_chunk_builds(tmp_path: Path) -> None:
    demos = {key: actions[:8] for key, actions in walks(0).items()}
    dataset = prepare_dataset(write_libero(tmp_path / "a.hdf5", demos)).dataset
    check_picture(*texts(data_figures.autocorrelations, dataset))
