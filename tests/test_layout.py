"""Layouts of other robots: parsing, errors by hand, and the four stages from recordings to figures."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import walks
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from numpy.typing import NDArray
from writers import TASK, write_libero

from rfsq_robust import CONDITIONINGS, load_checkpoint
from workbook import tables, training, variants
from workbook.chunks import Normaliser
from workbook.comparison import compare
from workbook.data_card import describe
from workbook.data_remarks import remarks
from workbook.dataset import DataConfig, Prepared, load_dataset, prepare_dataset, save_dataset
from workbook.errors import InputError
from workbook.evaluation import Metric, episode_metrics, summarise
from workbook.figures import comparison as comparison_figures
from workbook.figures import data as data_figures
from workbook.figures import residuals as residual_figures
from workbook.figures import training as training_figures
from workbook.figures.style import Canvas, Plot
from workbook.layout import KINDS, LIBERO, LIBERO_NAME, LIBERO_SPEC, SIZES, ActionLayout, Kind
from workbook.paths import OutputFolder
from workbook.report import write_reports
from workbook.residual_analysis import analyse
from workbook.results import assemble, judge_comparison
from workbook.stages import read_stage, write_stage
from workbook.training import TrainConfig, measure_step_seconds
from workbook.variants import train_variants

Array = NDArray[np.float64]
Evidence = dict[str, Any]
HYPOTHESIS = settings(deadline=None, max_examples=60)
TWO_ARMS = f"{LIBERO_SPEC} {LIBERO_SPEC}"
TWO_JOINT_ARMS = "joint:6 gripper:1 joint:6 gripper:1"
JOINTS = "joint:6"
SMALL = TrainConfig(epochs=2, batch_size=16, learning_rate=5e-3, hidden_dim=6, num_layers=4)
RATE = 12.5
HALF_RADIAN_IN_DEGREES = 28.64788975654116


# Parsing


def test_libero_is_a_name_for_its_spec() -> None:
    assert ActionLayout.parse(LIBERO_NAME) == ActionLayout.parse("position:3 rotation:3 gripper:1") == LIBERO
    assert LIBERO.spec == "position:3 rotation:3 gripper:1"
    assert LIBERO.is_libero
    assert not ActionLayout.parse("joint:7").is_libero
    assert not ActionLayout.parse(TWO_ARMS).is_libero


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("libero", "x y z roll pitch yaw gripper"),
        ("position:2 rotation:1", "x y yaw"),
        ("position:1 gripper:1", "x gripper"),
        ("joint:1", "joint"),
    ],
)
def test_names_of_one_arm_have_no_number(spec: str, names: str) -> None:
    assert ActionLayout.parse(spec).names == tuple(names.split())


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("joint:3 gripper:1", ["joint 1", "joint 2", "joint 3", "gripper"]),
        ("gripper:2", ["gripper 1", "gripper 2"]),
        ("joint:2 gripper:1 joint:2 gripper:1", ["joint 1", "joint 2", "gripper 1", "joint 3", "joint 4", "gripper 2"]),
        ("position:1 rotation:3 rotation:1", ["x", "roll", "pitch", "yaw 1", "yaw 2"]),
        (
            TWO_ARMS,
            [f"{name} {arm}" for arm in (1, 2) for name in ("x", "y", "z", "roll", "pitch", "yaw", "gripper")],
        ),
    ],
)
def test_names_that_come_again_are_numbered(spec: str, names: list[str]) -> None:
    assert ActionLayout.parse(spec).names == tuple(names)


def test_groups_indices_motion_and_limit_by_hand() -> None:
    layout = ActionLayout.parse("joint:2 position:1 gripper:1 rotation:3 position:2")
    assert layout.dim == 9
    assert [(group.kind, group.start, group.size) for group in layout.groups] == [
        ("joint", 0, 2), ("position", 2, 1), ("gripper", 3, 1), ("rotation", 4, 3), ("position", 7, 2),
    ]  # fmt: skip
    assert layout.of_kind("position") == [slice(2, 3), slice(7, 9)]
    assert layout.of_kind("joint", "rotation") == [slice(0, 2), slice(4, 7)]
    assert layout.indices("position").tolist() == [2, 7, 8]
    assert layout.indices("gripper").tolist() == [3]
    assert sorted(layout.motion.tolist()) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert layout.limit.tolist() == [np.inf, np.inf, 1, 1, 1, 1, 1, 1, 1]


def test_a_kind_that_is_not_there_has_no_dimensions() -> None:
    layout = ActionLayout.parse(JOINTS)
    assert layout.of_kind("gripper") == []
    assert layout.indices("position", "gripper").tolist() == []
    assert layout.indices("gripper").dtype == np.int64


def a_group(kind: Kind) -> st.SearchStrategy[str]:
    sizes = st.sampled_from(SIZES[kind]) if kind in SIZES else st.integers(1, 30) | st.just(999)
    return sizes.map(lambda size: f"{kind}:{size}")


some_specs = st.lists(st.sampled_from(KINDS).flatmap(a_group), min_size=1, max_size=6)


@HYPOTHESIS
@given(some_specs, st.sampled_from([" ", "  ", "\t", " \n "]))
def test_a_layout_reads_its_own_spec(groups: list[str], between: str) -> None:
    layout = ActionLayout.parse(between.join(groups))
    assert layout.spec == " ".join(groups)
    assert ActionLayout.parse(layout.spec) == layout


@HYPOTHESIS
@given(some_specs)
def test_every_dimension_has_one_kind_and_a_name_of_its_own(groups: list[str]) -> None:
    layout = ActionLayout.parse(" ".join(groups))
    assert layout.dim == sum(int(group.split(":")[1]) for group in groups)
    assert len(set(layout.names)) == layout.dim
    by_kind = np.concatenate([layout.indices(kind) for kind in KINDS])
    assert sorted(by_kind.tolist()) == layout.indices(*KINDS).tolist() == list(range(layout.dim))
    assert sorted([*layout.motion, *layout.indices("gripper")]) == list(range(layout.dim))
    assert np.isinf(layout.limit).nonzero()[0].tolist() == layout.indices("joint").tolist()


@pytest.mark.parametrize(
    "spec",
    [
        "", "  ", "position", "position:", ":3", "position:0", "position:4", "position:03", "position:3.0",
        "rotation:2", "rotation:4", "elbow:3", "Position:3", "LIBERO", "libero gripper:1", "joint:-1", "joint:+1",
        "joint:1000", "joint:1e2", "joint:1\u00b2", "joint:\u0663", "joint:1\u0663", "joint:\uff11", "joint: 6",
        "joint:6,gripper:1", "joint:6 gripper",
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_is_refused_in_one_sentence(spec: str) -> None:
    with pytest.raises(InputError) as raised:
        ActionLayout.parse(spec)
    message = str(raised.value)
    assert message.startswith(f"layout '{' '.join(spec.split())}'")
    assert "\n" not in message
    assert not message.endswith(".")


def test_the_message_says_what_to_write() -> None:
    with pytest.raises(InputError, match=r"cannot read 'elbow:3'.*position, rotation, gripper, joint.*'libero'"):
        ActionLayout.parse("joint:3 elbow:3")
    with pytest.raises(InputError, match="position has 6 numbers, and may have 1 or 2 or 3; use joint:6"):
        ActionLayout.parse("position:6")


# Errors by hand


def unit(layout: ActionLayout) -> Normaliser:
    return Normaliser(np.full(layout.dim, -1.0), np.full(layout.dim, 1.0))


def measure(spec: str, original: Array, decoded: Array) -> dict[str, Metric]:
    layout = ActionLayout.parse(spec)
    return episode_metrics([original], [decoded], layout, unit(layout), np.full(layout.dim, 0.25))


def values(metrics: dict[str, Metric]) -> dict[str, float]:
    return {name: float(metric.values[0]) for name, metric in metrics.items()}


def without_figure(metrics: dict[str, Metric]) -> set[str]:
    return {name for name, estimate in summarise([metrics, metrics]).items() if estimate.mean is None}


def one_arm() -> tuple[Array, Array]:
    """Four steps of LIBERO's layout and their decoded ones, with errors in position, rotation and gripper."""
    original, decoded = np.zeros((4, 7)), np.zeros((4, 7))
    original[:, 6] = [-1, -1, 1, 1]
    decoded[:, :3] = [0.03, -0.04, 0.0]
    decoded[:, 4] = [0.2, -0.2, 0.2, 0.2]
    decoded[:, 6] = [-1.5, -1, -0.5, 1]  # beyond the range, right, closes a step late, right
    return original, decoded


def test_errors_of_liberos_layout_by_hand() -> None:
    metrics = measure(LIBERO_SPEC, *one_arm())
    found = values(metrics)
    assert found["position_mm"] == pytest.approx(0.05 * 50)
    assert found["rotation_deg"] == pytest.approx(0.2 * HALF_RADIAN_IN_DEGREES)
    assert found["drift_mm"] == pytest.approx(4 * 0.05 * 50)
    assert found["drift_deg"] == pytest.approx(2 * 0.2 * HALF_RADIAN_IN_DEGREES)
    assert found["gripper_abs"] == pytest.approx(1.5 / 4)  # what was played is clipped to -1
    assert found["gripper_error_rate"] == pytest.approx(1 / 4)
    assert (found["gripper_on_time"], found["gripper_shift_steps"]) == (0.0, 1.0)
    assert found["max_abs"] == pytest.approx(1.5)
    assert found["zeros_kept"] == pytest.approx((4 * 3) / (4 * 6))
    squares = 4 * (0.03**2 + 0.04**2 + 0.2**2) + 0.5**2 + 1.5**2  # of the decoder's output, not clipped
    assert found["mse"] == pytest.approx(squares / 28)
    assert found["relative_mse"] == pytest.approx(squares / 28 / 0.25)
    assert found["mse_y"] == pytest.approx(0.04**2)
    assert found["mse_gripper"] == pytest.approx((0.5**2 + 1.5**2) / 4)
    assert without_figure(metrics) == {"joint_length"}


def test_errors_of_two_arms_are_means_over_them() -> None:
    first_original, first_decoded = one_arm()
    second_original = np.zeros((4, 7))
    second_original[:, 6] = [-1, 1, 1, -1]
    second_decoded = second_original.copy()
    second_decoded[:, 2] = [0.1, -0.1, 0.1, -0.1]
    metrics = measure(
        TWO_ARMS,
        np.column_stack([first_original, second_original]),
        np.column_stack([first_decoded, second_decoded]),
    )
    found = values(metrics)
    assert found["position_mm"] == pytest.approx((0.05 + 0.1) / 2 * 50)
    assert found["rotation_deg"] == pytest.approx(0.2 / 2 * HALF_RADIAN_IN_DEGREES)
    assert found["drift_mm"] == pytest.approx(4 * 0.05 / 2 * 50)
    assert found["drift_deg"] == pytest.approx(2 * 0.2 / 2 * HALF_RADIAN_IN_DEGREES)
    assert found["gripper_abs"] == pytest.approx(1.5 / 8)
    assert found["gripper_error_rate"] == pytest.approx(1 / 8)
    assert found["gripper_on_time"] == pytest.approx(2 / 3)  # one switch of the first arm, two of the second
    assert found["gripper_shift_steps"] == pytest.approx(1 / 3)
    assert metrics["gripper_shift_steps"].weights.tolist() == [3.0]
    squares = 4 * (0.03**2 + 0.04**2 + 0.2**2) + 0.5**2 + 1.5**2 + 4 * 0.1**2
    assert found["mse"] == pytest.approx(squares / 56)
    assert (found["mse_z 1"], found["mse_z 2"]) == (0.0, pytest.approx(0.01))
    assert without_figure(metrics) == {"joint_length"}


def test_two_equal_arms_have_the_errors_of_one() -> None:
    one, two = (values(measure(spec, *one_or_two)) for spec, one_or_two in (
        (LIBERO_SPEC, one_arm()), (TWO_ARMS, [np.column_stack([part, part]) for part in one_arm()]),
    ))  # fmt: skip
    for name in set(one) & set(two):
        assert two[name] == pytest.approx(one[name]), name
    assert "position_mm" in set(one) & set(two)


def test_joints_have_a_length_in_their_own_units_and_are_not_clipped() -> None:
    original = np.full((5, 7), 2.0)
    original[:, 6] = [-1, -1, -1, 1, 1]
    decoded = original.copy()
    decoded[:, 0] += 3.0
    decoded[:, 5] -= 4.0
    decoded[:, 6] *= 1.5
    metrics = measure("joint:6 gripper:1", original, decoded)
    found = values(metrics)
    assert found["joint_length"] == pytest.approx(5.0)
    assert found["max_abs"] == pytest.approx(4.0)
    assert found["gripper_abs"] == 0.0
    assert found["gripper_on_time"] == 1.0
    assert found["mse_joint 1"] == pytest.approx(9.0)
    assert without_figure(metrics) == {"position_mm", "rotation_deg", "drift_mm", "drift_deg", "zeros_kept"}


def test_joints_of_two_arms_have_a_mean_length() -> None:
    original = np.zeros((3, 4))
    decoded = np.array([[3.0, 4.0, 0.0, 1.0]] * 3)
    metrics = measure("joint:2 joint:2", original, decoded)
    assert values(metrics)["joint_length"] == pytest.approx((5.0 + 1.0) / 2)
    assert values(metrics)["zeros_kept"] == pytest.approx(1 / 4)


def test_without_a_gripper_it_has_no_figure() -> None:
    metrics = measure(JOINTS, np.ones((4, 6)), np.zeros((4, 6)))
    gripper = {"gripper_abs", "gripper_error_rate", "gripper_on_time", "gripper_shift_steps"}
    space = {"position_mm", "rotation_deg", "drift_mm", "drift_deg"}
    assert without_figure(metrics) == gripper | space | {"zeros_kept"}
    summary = summarise([metrics])
    assert (summary["joint_length"].mean, summary["mse"].mean) == (pytest.approx(6**0.5), pytest.approx(1.0))


# Recordings of another width


def test_another_width_than_the_layouts_names_the_option(tmp_path: Path, tiny_data: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_libero(tmp_path / "two_arms.hdf5", {f"demo_{i}": rng.normal(size=(30, 14)) for i in range(6)})
    with pytest.raises(InputError, match=r"two_arms\.hdf5, demo_0: .*\(30, 14\), expected \(steps, 7\).*--layout"):
        prepare_dataset(path)
    with pytest.raises(InputError, match=r"expected \(steps, 14\) for the layout 'joint:6 gripper:1 .*--layout"):
        prepare_dataset(tiny_data, DataConfig(layout=TWO_JOINT_ARMS))
    with pytest.raises(InputError, match="layout 'joint:x'"):
        prepare_dataset(path, DataConfig(layout="joint:x"))


def test_a_value_that_is_no_number_is_named_by_the_layouts_name(tmp_path: Path) -> None:
    demos = {f"demo_{i}": np.full((10, 14), float(i)) for i in range(6)}
    demos["demo_2"][4, 9] = np.nan
    path = write_libero(tmp_path / "a.hdf5", demos)
    with pytest.raises(InputError, match=r"a\.hdf5, demo_2, step 4, joint 9: the action is nan"):
        prepare_dataset(path, DataConfig(layout=TWO_JOINT_ARMS))


# End to end


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
        path = write_libero(folder / f"{task.replace(' ', '_')}_demo.hdf5", demos, task)
        with h5py.File(path, "r+") as file:
            file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": RATE}})
    return folder


@contextmanager
def quickly() -> Iterator[None]:
    """One thread, no worker processes, and a short measurement of the training step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WORKBOOK_PREFIX", raising=False)
        patch.setattr(training, "available_cores", lambda: 1)
        patch.setattr(variants, "measure_step_seconds", partial(measure_step_seconds, rounds=5, steps=1))
        yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Run:
    """What the four notebooks make of recordings in one layout."""

    layout: ActionLayout
    out: OutputFolder
    prepared: Prepared
    data: Evidence
    training: Evidence
    comparison: Evidence
    residuals: Evidence
    results: Evidence

    @property
    def dataset(self) -> Any:
        return self.prepared.dataset


@pytest.fixture(scope="module", params=[TWO_JOINT_ARMS, JOINTS, TWO_ARMS])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    layout = ActionLayout.parse(request.param)
    folder = tmp_path_factory.mktemp("layout")
    out = OutputFolder.at(str(folder / "out"))
    with quickly():
        prepared = prepare_dataset(write_walks(folder / "data", layout), DataConfig(layout=request.param))
        save_dataset(prepared.dataset, out)
        dataset = load_dataset(out)
        data = write_stage(out, "data", {"layout": request.param}, describe(prepared))
        trained = write_stage(out, "training", {}, train_variants(out, dataset, SMALL, 2, "cpu"))
        comparison = write_stage(out, "comparison", {}, compare(out, dataset, trained, lambda done, total: None))
        residuals = write_stage(out, "residuals", {}, analyse(out, dataset, read_stage(out, "training")))
        results = assemble(out)
    return Run(layout, out, prepared, data, trained, comparison, residuals, results)


def test_saving_and_loading_keeps_everything(run: Run) -> None:
    saved, loaded = run.dataset, load_dataset(run.out)
    assert (loaded.layout, loaded.split, loaded.sha256) == (run.layout, saved.split, saved.sha256)
    assert (loaded.chunk_len, loaded.stride, loaded.control_rate_hz) == (saved.chunk_len, saved.stride, RATE)
    for read, written in zip(loaded.episodes, saved.episodes, strict=True):
        assert read.actions.tobytes() == written.actions.tobytes()
        assert replace(read, actions=None).__dict__ == replace(written, actions=None).__dict__
        assert read.session == read.source
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
    for sentence in [*written["against"], *written["partings"], *(entry["sentence"] for entry in written["options"])]:
        assert "nan" not in sentence.split()
        assert "None" not in sentence
    assert json.loads(json.dumps(run.results)) == written


def test_every_table_builds_and_no_cell_is_nan(run: Run) -> None:
    criteria, verdict = judge_comparison(run.training, run.comparison)
    shown = [
        tables.statistics_table(read_stage(run.out, "data")),
        tables.statistics_table(run.data),
        tables.normaliser_table(run.data),
        tables.tasks_table(run.data),
        tables.training_table(run.training),
        tables.guide_epochs_table(run.training),
        tables.closing_table(run.training, run.comparison),
        tables.criteria_table(criteria, "layernorm"),
        tables.criteria_table(run.results["criteria"], "scale"),
        tables.bits_table(run.comparison),
        tables.physical_table(run.comparison),
        tables.dimension_table(run.comparison),
        tables.layers_table(run.residuals),
        tables.options_table(run.results["options"]),
        tables.provenance_table(run.results["provenance"]),
    ]
    for table in shown:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}
        for cell in (str(cell) for row in table.rows for cell in row):
            assert not {"nan", "inf", "None"} & set(cell.split()), cell
    assert tables.verdict_block(verdict).html


def test_tables_of_dimensions_have_the_layouts_names(run: Run) -> None:
    for table in (
        tables.statistics_table(run.data), tables.normaliser_table(run.data), tables.dimension_table(run.comparison)
    ):  # fmt: skip
        assert [row[0] for row in table.rows] == list(run.layout.names)
    assert "LIBERO mean" not in tables.statistics_table(run.data).header


def test_the_table_of_physical_errors_leaves_out_what_the_layout_lacks(run: Run) -> None:
    labels = " ".join(str(row[0]) for row in tables.physical_table(run.comparison).rows)
    for kind, word in (("position", " mm"), ("rotation", "degrees"), ("joint", "joints"), ("gripper", "gripper")):
        assert (word in labels) == bool(run.layout.of_kind(kind)), word  # type: ignore[arg-type]


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
        comparison_figures.rate_distortion,
        comparison_figures.groups,
    ),
    "residuals": (residual_figures.residual_std, residual_figures.entropies, residual_figures.prefixes),
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
