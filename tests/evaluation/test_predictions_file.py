"""Files of predictions: what is read from each format, and the one sentence for each that cannot be used."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documented import blocks
from made_predictions import NORMALISER, actions_of, certain, content, made_checkpoint, made_tokens, read, save, spoiled

from workbook import run
from workbook.common.errors import InputError
from workbook.data.layout import ActionLayout
from workbook.evaluation.predictions.judge import judge
from workbook.evaluation.predictions.read import (
    FEWEST_EPISODES,
    FEWEST_MOMENTS,
    PredictionsConfig,
    decode,
    read_predictions,
)

MOMENTS = 40
Content = dict[str, Any]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return made_checkpoint(tmp_path / "codec.pt")


@pytest.fixture
def found(checkpoint: Path) -> Content:
    """A good file's content."""
    tokens = made_tokens(MOMENTS)
    draft = spoiled(tokens[..., :3], 0.3)
    return content(checkpoint, tokens, spoiled(tokens, 0.2), draft, task=[f"task {n % 2}" for n in range(MOMENTS)])


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[Content], str]:
    """The sentence for a content that cannot be used; it names the file."""

    def read_and_fail(changed: Content) -> str:
        path = save(tmp_path / "predictions.npz", changed)
        return refused(path)

    return read_and_fail


def refused(path: Path, checkpoint: str = "") -> str:
    with pytest.raises(InputError) as caught:
        read(path, checkpoint)
    said = str(caught.value)
    assert "\n" not in said
    return said.replace(str(path), "FILE")


@pytest.mark.parametrize("ending", [".h5", ".hdf5", ".npz", ".pt", ".pth", ".NPZ"])
def test_every_format_holds_the_same(found: Content, tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"predictions{ending.lower()}", found)
    given = read(path.rename(path.with_suffix(ending)))
    assert np.array_equal(given.main, found["main_logits"])
    assert given.draft is not None
    assert np.array_equal(given.draft, found["draft_logits"])
    assert np.array_equal(given.tokens, found["tokens"])
    assert np.array_equal(given.actions, found["actions"])
    assert given.task.tolist() == [0, 1] * (MOMENTS // 2)
    assert (given.named, given.normaliser_assumed) == ((True, True), False)
    assert np.array_equal(given.codec.normaliser.low, NORMALISER.low)


def test_logits_may_be_of_half_precision(found: Content, tmp_path: Path) -> None:
    logits = torch.from_numpy(found["main_logits"]).bfloat16()
    given = read(save(tmp_path / "half.pt", found | {"main_logits": logits}))
    assert np.array_equal(given.main, logits.float().numpy())


def test_an_episode_is_told_apart_by_its_task(found: Content, tmp_path: Path) -> None:
    episode = np.arange(MOMENTS) // 4 % 5  # five numbers, in each of two tasks
    task = np.arange(MOMENTS) // (MOMENTS // 2)
    given = read(save(tmp_path / "a.npz", found | {"episode": episode, "task": task}))
    assert np.array_equal(given.group, np.arange(MOMENTS) // 4)


def test_without_episodes_neighbours_stand_together(checkpoint: Path, tmp_path: Path) -> None:
    tokens = made_tokens(FEWEST_MOMENTS)
    held = content(checkpoint, tokens, tokens)
    del held["episode"]
    given = read(save(tmp_path / "a.npz", held))
    assert (given.named, given.draft) == ((False, False), None)
    assert (np.diff(given.group) >= 0).all()
    assert np.bincount(given.group).tolist() == [10] * 30


def test_the_option_stands_over_the_checkpoint_that_the_file_names(found: Content, tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", found | {"checkpoint": "gone.pt"})
    assert "gone.pt: no such checkpoint file" in refused(path)
    assert read(path, str(tmp_path / "codec.pt")).codec.vocabulary == 5


def test_a_path_in_the_file_begins_in_its_folder(found: Content, tmp_path: Path) -> None:
    assert read(save(tmp_path / "a.h5", found | {"checkpoint": "codec.pt"})).codec.vocabulary == 5


def test_a_checkpoint_without_a_normaliser_gets_that_of_the_data(found: Content, tmp_path: Path) -> None:
    held = torch.load(tmp_path / "codec.pt", weights_only=True)
    torch.save(held | {"normalization": None}, tmp_path / "codec.pt")
    assert read(save(tmp_path / "a.npz", found)).normaliser_assumed


# What cannot be used


def test_no_such_file(tmp_path: Path) -> None:
    assert "FILE: no such file" in refused(tmp_path / "gone.npz")
    assert "FILE: no such file" in refused(tmp_path)


@pytest.mark.parametrize("ending", [".h5", ".npz", ".pt"])
@pytest.mark.parametrize("kept", [0, 100, 2000])
def test_a_file_that_is_cut_short(found: Content, tmp_path: Path, ending: str, kept: int) -> None:
    path = save(tmp_path / f"a{ending}", found)
    path.write_bytes(path.read_bytes()[:kept])
    assert "FILE: not a" in refused(path)


def test_another_format(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    assert "FILE: ends in none of .h5" in refused(tmp_path / "a.csv")


class Planted:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("ending", [".pt", ".npz"])
def test_code_in_a_file_is_never_run(found: Content, tmp_path: Path, ending: str) -> None:
    planted, path = tmp_path / "planted", tmp_path / f"a{ending}"
    held = found | {"task": Planted(planted)}
    if ending == ".pt":
        torch.save(held, path)
    else:
        np.savez(path, **{name: np.asarray(value) for name, value in held.items()}, allow_pickle=True)
    assert "never loaded here" in refused(path)
    assert not planted.exists()


def test_a_bare_pickle_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Planted(tmp_path / "planted")))
    refused(tmp_path / "a.pt")
    assert not (tmp_path / "planted").exists()


def test_what_is_no_dictionary(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "a.pt")
    assert "holds a list, not a dictionary" in refused(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["main_logits", "tokens", "actions"])
def test_a_missing_key(found: Content, refusal: Callable[[Content], str], name: str) -> None:
    assert f"FILE: has no '{name}'" in refusal({key: value for key, value in found.items() if key != name})


def test_no_checkpoint(found: Content, refusal: Callable[[Content], str]) -> None:
    del found["checkpoint"]
    assert "names no 'checkpoint'; name that of the codec with --predictions-checkpoint" in refusal(found)


def test_a_checkpoint_that_is_none(found: Content, tmp_path: Path) -> None:
    (tmp_path / "codec.pt").write_bytes(b"no checkpoint")
    said = refused(save(tmp_path / "a.npz", found))
    assert "codec.pt: not a PyTorch checkpoint" in said
    assert "--predictions-checkpoint" in said


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("main_logits", (MOMENTS, 5, 12, 5)),  # layers
        ("main_logits", (MOMENTS, 4, 9, 5)),  # latents
        ("main_logits", (MOMENTS, 4, 12, 7)),  # levels
        ("main_logits", (MOMENTS, 4, 3, 4, 5)),
        ("main_logits", (MOMENTS - 1, 4, 12, 5)),
        ("draft_logits", (MOMENTS, 0, 12, 5)),
        ("draft_logits", (MOMENTS, 3, 12, 4)),
        ("tokens", (MOMENTS, 12, 4)),
        ("tokens", (MOMENTS, 3, 4, 3)),
        ("actions", (MOMENTS, 21)),
        ("actions", (MOMENTS, 3, 6)),
        ("actions", (0, 3, 7)),  # no moments
    ],
)
def test_a_wrong_shape(found: Content, refusal: Callable[[Content], str], name: str, shape: tuple[int, ...]) -> None:
    said = refusal(found | {name: np.zeros(shape)})
    assert f"FILE, '{name}': has shape {shape}, expected (" in said


def test_a_draft_of_more_layers_than_the_codec(found: Content, refusal: Callable[[Content], str]) -> None:
    assert "'draft_logits': has 5 layers, and the codec 4" in refusal(
        found | {"draft_logits": np.zeros((MOMENTS, 5, 12, 5))}
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["main_logits", "draft_logits", "actions"])
def test_values_that_are_not_finite(found: Content, refusal: Callable[[Content], str], name: str, value: float) -> None:
    found[name].flat[-1] = value
    assert f"FILE, '{name}': holds values that are NaN or infinite" in refusal(found)


@pytest.mark.parametrize("value", [-1, 5, 1.5])
def test_tokens_out_of_range(found: Content, refusal: Callable[[Content], str], value: float) -> None:
    found["tokens"] = found["tokens"].astype(float)
    found["tokens"].flat[-1] = value
    assert "5 levels are the whole numbers 0 to 4" in refusal(found)


@pytest.mark.parametrize("value", ["text", np.array(["text"] * MOMENTS), np.zeros((2, 2), dtype=bool)])
def test_what_is_no_number(found: Content, refusal: Callable[[Content], str], value: object) -> None:
    assert "'actions': is no array of numbers" in refusal(found | {"actions": value})


@pytest.mark.parametrize("name", ["episode", "task"])
def test_names_that_are_not_one_a_moment(found: Content, refusal: Callable[[Content], str], name: str) -> None:
    assert f"FILE, '{name}': has shape (2,)" in refusal(found | {name: np.arange(2)})


def test_too_few_episodes(found: Content, refusal: Callable[[Content], str]) -> None:
    few = np.arange(MOMENTS) % (FEWEST_EPISODES - 1)
    found["task"] = np.zeros(MOMENTS)
    assert f"holds moments of {FEWEST_EPISODES - 1} episodes" in refusal(found | {"episode": few})


def test_too_few_moments(found: Content, refusal: Callable[[Content], str]) -> None:
    del found["episode"]
    assert f"holds {MOMENTS} moments and no 'episode'; write at least {FEWEST_MOMENTS}" in refusal(found)


@pytest.mark.parametrize("other", [np.arange(MOMENTS), np.full(MOMENTS, MOMENTS), np.full(MOMENTS, -1)])
def test_another_moment_that_is_none(found: Content, refusal: Callable[[Content], str], other: np.ndarray) -> None:
    found |= {"other_main_logits": found["main_logits"], "other": other}
    assert "FILE, 'other': does not name another" in refusal(found)


@pytest.mark.parametrize("missing", ["other", "draft_logits"])
def test_another_draft_without_what_belongs_to_it(
    found: Content, refusal: Callable[[Content], str], missing: str
) -> None:
    found |= {"other_main_logits": found["main_logits"], "other": np.roll(np.arange(MOMENTS), 1)}
    del found[missing]
    assert f"has 'other_main_logits' without '{missing}'" in refusal(found)


def test_a_codec_of_other_actions(found: Content, tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", found)
    with pytest.raises(InputError, match="has actions of 7 numbers, and layout 'joint:6' has 6; name the data"):
        read_predictions(PredictionsConfig(str(path)), ActionLayout.parse("joint:6"), NORMALISER)


@pytest.mark.parametrize("spoil", ["gone", "main_logits", "checkpoint", "alone"])
def test_the_command_ends_before_the_first_notebook(
    found: Content, tmp_path: Path, tiny_data: Path, spoil: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(run, "_execute", lambda *_: pytest.fail("a notebook was started"))
    path = save(tmp_path / "a.npz", {name: value for name, value in found.items() if name != spoil})
    options = ["--predictions", str(tmp_path / "gone.npz" if spoil == "gone" else path)]
    options = ["--predictions-checkpoint", str(path)] if spoil == "alone" else options
    assert run.main([*options, "--data", str(tiny_data), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: ") for line in said if "warning" not in line.lower()] == [True]


# Whether it means what it says


def test_tokens_in_the_other_order(found: Content, refusal: Callable[[Content], str]) -> None:
    tokens = found["tokens"]
    turned = tokens.swapaxes(1, 2).reshape(tokens.shape)
    assert "tokens are in the order latent * steps + step" in refusal(found | {"tokens": turned})


@pytest.mark.parametrize("name", ["main_logits", "draft_logits"])
def test_logits_in_the_other_order(found: Content, refusal: Callable[[Content], str], name: str) -> None:
    logits = found[name]
    turned = logits.reshape(*logits.shape[:2], 3, 4, 5).swapaxes(2, 3).reshape(logits.shape)
    assert f"FILE, '{name}': places are in the order latent * steps + step" in refusal(found | {name: turned})


def test_tokens_of_one_action_told_for_every_step(
    found: Content, checkpoint: Path, refusal: Callable[[Content], str]
) -> None:
    once = np.repeat(found["tokens"][:, :1], 3, axis=1)
    changed = found | {"tokens": once, "main_logits": certain(once), "draft_logits": certain(once[..., :3])}
    assert "tokens are those of the first action, told for every step" in refusal(changed)
    changed["actions"] = actions_of(checkpoint, once)  # told for every step, too: then they agree
    save(Path(checkpoint).with_name("tiled.npz"), changed)
    assert read(Path(checkpoint).with_name("tiled.npz")).actions.shape == (MOMENTS, 3, 7)


def test_actions_that_are_normalised(found: Content, refusal: Callable[[Content], str]) -> None:
    changed = found | {"actions": NORMALISER.normalise(found["actions"])}
    assert "actions are normalised; write them in the units of the data" in refusal(changed)


def test_tokens_of_another_codec(found: Content, refusal: Callable[[Content], str]) -> None:
    changed = found | {"tokens": made_tokens(MOMENTS, seed=9)}
    assert "its true tokens do not decode to its actions" in refusal(changed)


def test_layernorm_tokens_decode_to_no_actions_and_are_read_all_the_same(tmp_path: Path) -> None:
    checkpoint = made_checkpoint(tmp_path / "codec.pt", "layernorm")
    tokens = made_tokens(MOMENTS)
    held = content(checkpoint, tokens, tokens) | {"actions": np.random.default_rng(0).uniform(-1, 1, (MOMENTS, 3, 7))}
    given = read(save(tmp_path / "a.npz", held))
    layers = list(np.moveaxis(tokens, -1, 0))
    certain_of = [np.eye(5)[layer] for layer in layers]
    assert np.allclose(decode(given.codec, layers), given.space.expected(certain_of), atol=1e-5)


def test_a_checkpoint_alone_is_refused() -> None:
    with pytest.raises(InputError, match="given without predictions"):
        PredictionsConfig("", "codec.pt")


def test_settings_tell_the_files_by_name_and_hash(found: Content, tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", found)
    settings = PredictionsConfig(str(path)).settings
    assert settings is not None
    assert (settings["predictions"], settings["predictions_checkpoint"]) == ("a.npz", None)
    assert replace(PredictionsConfig(str(path)), predictions="").settings is None
    save(path, found | {"actions": found["actions"] + 0.01})
    assert PredictionsConfig(str(path)).settings != settings


def test_the_snippet_writes_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heading: Your own predictions, judged. With made-up heads: linear ones, of the guide's sizes."""
    monkeypatch.chdir(tmp_path)
    checkpoint = made_checkpoint(Path("rfsq_robust_scale_best.pt"), hidden=16, layers=8, levels=7)
    tokens = made_tokens(MOMENTS, 8, 16, 8, 7)
    torch.manual_seed(0)
    hidden, draft_weights, main_weights = (torch.randn(*s) for s in ((MOMENTS, 20), (20, 3 * 896), (20, 8 * 896)))

    def main(hidden: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        assert coarse.shape == (MOMENTS, 3, 128)
        logits = (hidden @ main_weights).unflatten(1, (8, 128, 7))
        logits[:, :3] += 100 * torch.nn.functional.one_hot(coarse, 7)  # it says what it is given
        return logits

    scope = {
        "draft": lambda hidden: (hidden @ draft_weights).unflatten(1, (3, 128, 7)), "main": main, "hidden": hidden,
        "tokens": torch.from_numpy(tokens), "actions": torch.from_numpy(actions_of(checkpoint, tokens)),
        "task": torch.arange(MOMENTS) % 3, "episode": torch.arange(MOMENTS) // 4,
    }  # fmt: skip
    (snippet,) = [text for place, text in blocks("python") if place.endswith(": Your own predictions, judged")]
    exec(snippet, scope)
    given = read(tmp_path / "predictions.pt")
    assert given.other is not None
    assert (given.task[given.other] == given.task).mean() > 0.9
    found = judge(given).tables["predictions_acceptance"]
    assert (found.accepted == 1).all()
    assert (found.accepted_other == 1).all()
    assert (found.by_chance < 0.5).all()
