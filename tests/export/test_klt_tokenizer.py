"""The KLT-RFSQ tokenizer: whose id stands where, what any sequence decodes to, and what a saved one is elsewhere."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documented import docstrings, examples
from hypothesis import given, strategies as st
from made_up import TWO_ARMS, Array, walks
from models import few_examples
from tokenizer_models import Sequences, random_sequences, refusal

import rfsq_tokenizer
from workbook.codecs import protocol
from workbook.codecs.klt import Transform
from workbook.codecs.klt_rfsq import BRANCHES, DEPTH, GripperCodebook, KltRFSQ, Stack
from workbook.codecs.klt_rfsq_file import load_klt_rfsq, save_klt_rfsq
from workbook.codecs.protocol import NOT_SENT, Tokens
from workbook.common.errors import InputError
from workbook.data.chunks import Normaliser, cut_chunks
from workbook.data.layout import LIBERO_SPEC, ActionLayout
from workbook.export.klt_tokenizer import KltTokenizer

C = 4
FILES = ["klt_rfsq.npz", "klt_tokenizer_loader.py", "processor_config.json"]
JOINTS = "joint:6 gripper:1"
WITHOUT_GRIPPER = "position:3 rotation:3"
LAYOUTS = [LIBERO_SPEC, TWO_ARMS.spec, JOINTS, WITHOUT_GRIPPER, "gripper:1"]
all_layouts = pytest.mark.parametrize("layout", LAYOUTS)


@cache
def chunks_for(layout: str, seed: int = 0) -> Array:
    """(N, C, A) chunks of random walks; those of a second arm are of another seed."""
    one, other = (cut_chunks(list(walks(seed + arm).values()), C, C).actions for arm in (0, 100))
    count = min(len(one), len(other))
    both = np.concatenate([one[:count], other[:count]], axis=2)
    return both[:, :, -1:] if layout == "gripper:1" else both[:, :, : ActionLayout.parse(layout).dim]


@cache
def fitted(layout: str = LIBERO_SPEC, residual_codes: int = 12, offset: int = 100) -> KltTokenizer:
    return KltTokenizer.fit(chunks_for(layout), layout, residual_codes, offset)


def with_settings(tokenizer: KltTokenizer, **settings: Any) -> KltTokenizer:
    kept = {"residual_codes": tokenizer.codec.count, "offset": tokenizer.offset, "limit": tokenizer.limit}
    return KltTokenizer(tokenizer.codec.model, **(kept | settings))


def by_the_codec(tokenizer: KltTokenizer, sequences: Sequences) -> Array:
    """Decoded position by position into the codec's codes, and clipped."""
    model = tokenizer.codec.model
    codes = np.full((len(sequences), tokenizer.tokens_per_chunk), NOT_SENT)
    codes[:, : len(model.grippers)] = 0
    for row, sequence in zip(codes, sequences, strict=True):
        for position, id_ in enumerate(sequence):
            meant = tokenizer.ids_of_position(position)
            row[position] = (id_ - meant.start) % len(meant)
    return clipped(tokenizer, tokenizer.codec.decode(Tokens(codes)))


def clipped(tokenizer: KltTokenizer, actions: Array) -> Array:
    limit, normaliser = tokenizer.limit, tokenizer.codec.model.normaliser
    low, high = np.where(np.isinf(limit), normaliser.low, -limit), np.where(np.isinf(limit), normaliser.high, limit)
    return np.minimum(np.maximum(actions, low), high)


def assert_within_range(tokenizer: KltTokenizer, actions: Array) -> None:
    assert np.isfinite(actions).all()
    np.testing.assert_array_equal(actions, clipped(tokenizer, actions))


# By hand


def even_model() -> KltRFSQ:
    """One joint from -2 to 2 and a gripper in chunks of one step; every layer cuts even thirds."""
    edges = [np.linspace(-1, 1, BRANCHES**j + 1) for j in range(DEPTH + 1)]
    stack = Stack(
        dimensions=np.array([0]),
        transform=Transform(np.zeros(1), np.ones((1, 1))),
        thresholds=edges[DEPTH][None, 1:-1],
        centroids=tuple((e[None, 1:] + e[None, :-1]) / 2 for e in edges),
        orders=np.zeros((1, 3), dtype=np.int64),
        gains=np.array([3.0, 2.0, 1.0]),
    )
    book = GripperCodebook(1, np.array([[-1.0], [1.0]]))
    return KltRFSQ(Normaliser(np.array([-2.0, -1.0]), np.array([2.0, 1.0])), (1, 2), (stack,), (book,))


def test_a_case_by_hand() -> None:
    """2 ids of the gripper, 3 of each layer; 0.9 lies in the upper third, of it in the lower, of it in the middle."""
    tokenizer = KltTokenizer(even_model(), residual_codes=3, offset=10, limit=np.inf)
    assert (tokenizer.vocab_size, tokenizer.tokens_per_chunk) == (11, 4)
    assert [tokenizer.ids_of_position(i) for i in range(4)] == [
        range(10, 12),
        range(12, 15),
        range(15, 18),
        range(18, 21),
    ]
    assert tokenizer([[[0.9, 1.0]]]) == [[11, 14, 15, 19]]
    decoded = tokenizer.decode([[11, 14, 15, 19], [11, 14, 15], [10, 14], [11]])
    np.testing.assert_allclose(decoded[:, 0, 0], [2 * (1 / 3 + 1 / 9), 2 * (1 / 3 + 1 / 9), 4 / 3, 0])
    np.testing.assert_array_equal(decoded[:, 0, 1], [1, 1, -1, 1])


def test_an_id_of_another_range_by_hand() -> None:
    """Modulo the size of the position's range: ids 14 and 20 are the last of two layers, 12 is the gripper's first."""
    tokenizer = KltTokenizer(even_model(), residual_codes=3, offset=10, limit=np.inf)
    np.testing.assert_array_equal(tokenizer.decode([[12, 20, 12]]), tokenizer.decode([[10, 14, 15]]))
    np.testing.assert_array_equal(tokenizer.decode([[13, 11]]), tokenizer.decode([[11, 14]]))


# Encoding


@all_layouts
def test_every_code_stands_in_the_range_of_its_place(layout: str) -> None:
    tokenizer, chunks = fitted(layout), chunks_for(layout)
    codes = tokenizer.codec.encode(chunks).codes
    tokens = tokenizer(chunks)
    assert len(tokens) == len(chunks)
    for sequence, row in zip(tokens, codes, strict=True):
        assert type(sequence) is list
        assert {type(id_) for id_ in sequence} == {int}
        assert [id_ - tokenizer.ids_of_position(i).start for i, id_ in enumerate(sequence)] == row.tolist()
        assert all(id_ in tokenizer.ids_of_position(i) for i, id_ in enumerate(sequence))


@all_layouts
def test_ranges_are_of_a_gripper_each_or_of_a_layer_and_leave_no_id_out(layout: str) -> None:
    tokenizer = fitted(layout)
    books, codes = tokenizer.codec.model.grippers, tokenizer.codec.residual_codes
    ranges = [tokenizer.ids_of_position(i) for i in range(tokenizer.tokens_per_chunk)]
    assert [len(each) for each in ranges] == [len(book.trajectories) for book in books] + [BRANCHES] * len(codes)
    assert {i for each in ranges for i in each} == set(range(100, 100 + tokenizer.vocab_size))
    owners = [*enumerate(books), *(("layer", layer) for _, _, layer in codes)]
    for one, owner in zip(ranges, owners, strict=True):
        for other, another in zip(ranges, owners, strict=True):
            assert (one == other) == (owner == another) == bool(set(one) & set(other))


def test_sizes_of_the_guides_chunks() -> None:
    steps = cut_chunks(list(walks(0).values()), 8, 8).actions
    tokenizer = KltTokenizer.fit(steps)
    assert (tokenizer.tokens_per_chunk, tokenizer.chunk_len, tokenizer.time_horizon, tokenizer.action_dim) == (
        37, 8, 8, 7,
    )  # fmt: skip
    assert (tokenizer.offset, set(tokenizer.limit)) == (0, {1.0})


def test_fewer_residual_codes_are_the_beginning_of_all() -> None:
    chunks = chunks_for(LIBERO_SPEC)
    assert with_settings(fitted(), residual_codes=5)(chunks) == [sequence[:6] for sequence in fitted()(chunks)]


def test_more_residual_codes_than_the_latents_have_are_left_out() -> None:
    assert KltTokenizer(even_model(), residual_codes=50, limit=np.inf).tokens_per_chunk == 4


def test_one_chunk_a_tensor_and_none() -> None:
    tokenizer, chunks = fitted(), chunks_for(LIBERO_SPEC)
    assert tokenizer(chunks[2]) == tokenizer(torch.from_numpy(chunks))[2:3] == tokenizer(chunks.tolist())[2:3]
    assert tokenizer(chunks[:0]) == tokenizer([]) == []
    assert tokenizer.decode([]).shape == (0, C, 7)


@pytest.mark.parametrize("position", [-1, 13, 1.0])
def test_a_position_that_is_not_there(position: Any) -> None:
    message = refusal(lambda: fitted().ids_of_position(position))
    assert message == f"position is {position}; give an integer from 0 to 12"


# Decoding


@all_layouts
def test_tokens_decode_as_the_codec_decodes_them(layout: str) -> None:
    tokenizer, chunks = fitted(layout), chunks_for(layout)
    decoded = tokenizer.decode(tokenizer(chunks))
    codec = tokenizer.codec
    assert decoded.dtype == np.float64
    np.testing.assert_array_equal(decoded, clipped(tokenizer, codec.decode(codec.encode(chunks))))
    assert ((decoded - chunks) ** 2).mean() < 0.1 * chunks.var(axis=(0, 1)).mean()


@pytest.mark.parametrize("layout", LAYOUTS)
@few_examples
@given(st.data())
def test_any_sequences_decode_as_the_codec_decodes_them(layout: str, data: st.DataObject) -> None:
    limits: list[Any] = [np.inf, 0.05, ActionLayout.parse(layout).limit]
    tokenizer = with_settings(fitted(layout), limit=data.draw(st.sampled_from(limits)))
    ids = st.integers(100, 99 + tokenizer.vocab_size)
    sequence = st.lists(ids, min_size=1, max_size=tokenizer.tokens_per_chunk)
    sequences = data.draw(st.lists(sequence, min_size=1, max_size=5))
    decoded = tokenizer.decode(sequences)
    assert_within_range(tokenizer, decoded)
    np.testing.assert_array_equal(decoded, by_the_codec(tokenizer, sequences))


def test_a_gripper_whose_token_is_missing_goes_the_most_common_way() -> None:
    tokenizer = fitted(TWO_ARMS.spec)
    first, second = tokenizer.ids_of_position(0), tokenizer.ids_of_position(1)
    alone = tokenizer.decode([[first[-1]]])
    np.testing.assert_array_equal(alone, tokenizer.decode([[first[-1], second[0]]]))
    assert (alone != tokenizer.decode([[first[-1], second[1]]])).any()
    trajectories, counts = np.unique(chunks_for(TWO_ARMS.spec)[:, :, 13], axis=0, return_counts=True)
    np.testing.assert_array_equal(alone[0, :, 13], trajectories[counts.argmax()])


def test_each_further_residual_code_takes_error_away() -> None:
    chunks = chunks_for(LIBERO_SPEC)
    tokens = np.array(fitted()(chunks))
    errors = [((fitted().decode(tokens[:, :n]) - chunks) ** 2).mean() for n in range(1, 14)]
    assert errors == sorted(errors, reverse=True)


def test_nothing_that_is_given_is_changed() -> None:
    tokens, chunks = np.array(fitted()(chunks_for(LIBERO_SPEC))), chunks_for(LIBERO_SPEC).copy()
    before = tokens.copy()
    fitted().decode(tokens)
    fitted()(chunks)
    np.testing.assert_array_equal(tokens, before)
    np.testing.assert_array_equal(chunks, chunks_for(LIBERO_SPEC))


def test_both_files_mean_the_same_by_not_sent() -> None:
    assert rfsq_tokenizer.NOT_SENT == protocol.NOT_SENT


def test_a_sequence_that_is_too_long_is_told_what_it_may_hold() -> None:
    message = refusal(lambda: fitted().decode([[100] * 14]))
    assert message == "sequence 0 holds 14 ids; give 1 to 13, which are 1 of grippers and 12 residual codes"


# The limit


def test_without_a_limit_it_is_1_and_joints_are_refused(tmp_path: Path) -> None:
    assert set(KltTokenizer(fitted().codec.model).limit) == {1.0}
    message = "dimension 0 of the training data ranges from -2 to 2, beyond the -1 to 1 of a controller; "
    message += "give limit=..., infinite for joints"
    assert refusal(lambda: KltTokenizer(even_model())) == message
    KltTokenizer(even_model(), limit=np.inf).save_pretrained(tmp_path)
    path = tmp_path / "klt_rfsq.npz"
    assert refusal(lambda: KltTokenizer.from_file(path)) == f"{path}: {message}"
    assert KltTokenizer.from_file(path, limit=[np.inf, 1.0]).limit.tolist() == [np.inf, 1.0]
    assert KltTokenizer.from_pretrained(tmp_path).limit.tolist() == [np.inf, np.inf]


# Fitting


def test_chunks_may_be_a_list_or_a_tensor() -> None:
    chunks = chunks_for(LIBERO_SPEC)
    for kind in (list(chunks), torch.from_numpy(chunks)):
        assert KltTokenizer.fit(kind, residual_codes=12, offset=100)(chunks) == fitted()(chunks)


def test_an_instance_fits_another() -> None:
    chunks = chunks_for(JOINTS)
    assert fitted().fit(chunks, JOINTS, residual_codes=12, offset=100)(chunks) == fitted(JOINTS)(chunks)


def test_the_limit_is_that_of_the_layout_where_none_is_named() -> None:
    assert fitted(JOINTS).limit.tolist() == [math.inf] * 6 + [1.0]
    assert set(KltTokenizer.fit(chunks_for(JOINTS), JOINTS, limit=0.25).limit) == {0.25}


@pytest.mark.parametrize("count", [1, 2, 3])
@all_layouts
def test_few_chunks_are_enough(count: int, layout: str) -> None:
    chunks = chunks_for(layout)[:count]
    tokenizer = KltTokenizer.fit(chunks, layout)
    assert np.isfinite(tokenizer.decode(random_sequences(np.random.default_rng(0), tokenizer, 50))).all()
    np.testing.assert_allclose(tokenizer.decode(tokenizer(chunks)), chunks, atol=1e-9)


def test_actions_that_never_move() -> None:
    still = np.full((3, C, 7), 0.25)
    tokenizer = KltTokenizer.fit(still)
    np.testing.assert_array_equal(tokenizer.decode(tokenizer(still)), still)


CHUNKS = [np.zeros((C, 7)), np.zeros((C, 7))]


@pytest.mark.parametrize(
    ("actions", "settings", "message"),
    [
        ([*CHUNKS, np.zeros((3, 7))], {}, "chunk 2 of actions has shape (3, 7); give chunks of 4 steps"),
        (CHUNKS, {"layout": JOINTS + " joint:1"}, "chunk 0 of actions has shape (4, 7); give chunks of 4 steps, as"),
        (CHUNKS, {"layout": "arm:7"}, "layout 'arm:7': cannot read 'arm:7'"),
        (CHUNKS, {"residual_codes": 0}, "residual_codes is 0; give an integer from 1"),
        (CHUNKS, {"residual_codes": 2.0}, "residual_codes is 2.0; give an integer from 1"),
        (CHUNKS, {"offset": -1}, "offset is -1; give an integer from 0"),
        (CHUNKS, {"limit": [1.0, 1.0]}, "limit is [1.0, 1.0]; give one positive number, or 7"),
        ([], {}, "actions hold no episode"),
        (np.zeros((2, C)), {}, "episode 0 of actions has shape (4,)"),
        (np.full((2, C, 7), np.inf), {}, "episode 0 of actions, step 0, dimension 0: is inf"),
    ],
)
def test_what_cannot_be_fitted(actions: Any, settings: dict[str, Any], message: str) -> None:
    assert refusal(lambda: KltTokenizer.fit(actions, **settings)).startswith(message)


# Files


def write(path: Path, model: KltRFSQ) -> Path:
    with_model = KltTokenizer(model, limit=np.inf)
    with_model.save_pretrained(path.parent / "folder")
    return Path(shutil.move(path.parent / "folder" / "klt_rfsq.npz", path))


def test_a_file_of_a_run(tmp_path: Path) -> None:
    path = write(tmp_path / "klt_rfsq.npz", fitted().codec.model)
    chunks = chunks_for(LIBERO_SPEC)
    for name in (path, str(path)):
        tokenizer = KltTokenizer.from_file(name, residual_codes=12, offset=100)
        assert tokenizer(chunks) == fitted()(chunks)
    assert KltTokenizer.from_file(path, limit=0.5).decode([[0]]).max() <= 0.5


def test_the_snippet_of_the_docstring_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "klt_rfsq.npz", fitted().codec.model)
    (snippet,) = examples(dict(docstrings())["workbook/export/klt_tokenizer.py: module"])
    scope = {"KltTokenizer": KltTokenizer, "actions": chunks_for(LIBERO_SPEC)}
    exec(snippet, scope)
    assert scope["actions"].shape == chunks_for(LIBERO_SPEC).shape


def test_files_that_hold_no_tokenizer(tmp_path: Path) -> None:
    missing, damaged = tmp_path / "none.npz", tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK")
    assert refusal(lambda: KltTokenizer.from_file(missing)).startswith(f"{missing}: no such file")
    assert refusal(lambda: KltTokenizer.from_file(damaged)).startswith(f"{damaged}: not a KLT-RFSQ")
    path = write(tmp_path / "klt_rfsq.npz", even_model())
    assert refusal(lambda: KltTokenizer.from_file(path, residual_codes=0)).startswith(
        f"{path}: residual_codes is 0; give"
    )


def of_stack(**changes: Any) -> Callable[[KltRFSQ], KltRFSQ]:
    return lambda model: replace(model, stacks=(replace(model.stacks[0], **changes),))


EVEN = even_model().stacks[0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: replace(model, normaliser=Normaliser(np.array([3.0, -1.0]), np.array([2.0, 1.0]))),
        lambda model: replace(model, normaliser=Normaliser(np.array([np.nan, -1.0]), np.array([2.0, 1.0]))),
        lambda model: replace(model, normaliser=Normaliser(np.zeros(3), np.ones(3))),
        lambda model: replace(model, grippers=(GripperCodebook(1, np.array([[np.inf]])),)),
        lambda model: replace(model, grippers=(GripperCodebook(2, np.array([[1.0]])),)),
        of_stack(transform=Transform(np.zeros(2), np.ones((1, 1)))),
        of_stack(centroids=(*EVEN.centroids[:3], EVEN.centroids[3][:, :-1], *EVEN.centroids[4:])),
        of_stack(centroids=(EVEN.centroids[0] * np.nan, *EVEN.centroids[1:])),
        of_stack(transform=Transform(np.zeros(1), np.full((1, 1), np.inf))),
        of_stack(transform=Transform(np.full(1, 1.7e308), np.full((1, 1), 1.7e308))),
        of_stack(orders=np.full((1, 3), 7)),
        of_stack(thresholds=np.zeros((2, 728))),
    ],
)
def test_a_file_whose_arrays_do_not_fit(spoil: Callable[[KltRFSQ], KltRFSQ], tmp_path: Path) -> None:
    path = tmp_path / "klt_rfsq.npz"
    codec = KltTokenizer(even_model(), limit=np.inf)
    codec.save_pretrained(tmp_path / "folder")
    variable = load_klt_rfsq(tmp_path / "folder" / "klt_rfsq.npz")[0]
    save_klt_rfsq(path, [replace(variable, model=spoil(variable.model))])
    message = refusal(lambda: KltTokenizer.from_file(path))
    assert message.startswith(f"{path}: holds arrays that do not fit each other, or NaN")
    shutil.copy(path, tmp_path / "folder")
    message = refusal(lambda: KltTokenizer.from_pretrained(tmp_path / "folder"))
    assert message.startswith(f"{tmp_path / 'folder' / 'klt_rfsq.npz'}: is missing, cut short or no KLT-RFSQ")


def test_what_is_not_finite_is_refused_and_not_returned() -> None:
    """Of 3 layers in the cell where they are asked for, which the load of a file does not look at."""
    centroids = (*EVEN.centroids[:3], EVEN.centroids[3] * np.inf, *EVEN.centroids[4:])
    tokenizer = KltTokenizer(of_stack(centroids=centroids)(even_model()), limit=np.inf)
    assert np.isfinite(tokenizer.decode([[1, 4, 5]])).all()
    assert refusal(lambda: tokenizer.decode([[1, 4, 5, 9]])).startswith("decoded actions, chunk 0, step 0, dimension 0")


# Saved and loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer"
    with_settings(fitted(), limit=[1, 1 / 3, 1, math.inf, 1, 1, 0.1]).save_pretrained(path)
    return path


def assert_same(one: KltTokenizer, other: KltTokenizer) -> None:
    for name in ("chunk_len", "action_dim", "offset", "vocab_size", "tokens_per_chunk"):
        assert getattr(one, name) == getattr(other, name)
    np.testing.assert_array_equal(one.limit, other.limit)
    sequences = random_sequences(np.random.default_rng(0), one, 50)
    np.testing.assert_array_equal(other.decode(sequences), one.decode(sequences))
    assert one(one.decode(sequences)) == other(one.decode(sequences))


@all_layouts
def test_loaded_again_it_is_the_same(layout: str, tmp_path: Path) -> None:
    fitted(layout).save_pretrained(tmp_path / "a" / "b")
    settings = {"trust_remote_code": True, "_from_auto": True}
    assert_same(fitted(layout), KltTokenizer.from_pretrained(str(tmp_path / "a" / "b"), **settings))


def test_a_folder_holds_three_files(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    content = json.loads((folder / "processor_config.json").read_text(encoding="utf8"))
    assert content["processor_class"] == "KltTokenizer"
    assert content["auto_map"] == {"AutoProcessor": "klt_tokenizer_loader.KltTokenizer"}
    assert content["limit"] == [1, 1 / 3, 1, None, 1, 1, 0.1]


def test_saving_over_another_replaces_all_of_it(folder: Path) -> None:
    fitted(JOINTS, offset=7).save_pretrained(folder)
    assert_same(fitted(JOINTS, offset=7), KltTokenizer.from_pretrained(folder))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("processor_class", "RFSQTokenizer", "is not of a KltTokenizer; name a folder"),
        ("layers", 3, "holds the unknown layers; "),
        ("digits", 0, "digits is 0; give an integer from 1"),
        ("digits", None, "digits is None; give an integer from 1"),
        ("offset", None, "offset is None; give an integer from 0"),
        ("offset", "0", "offset is '0'; give an integer"),
        ("limit", [1.0] * 6, "limit is [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]; give one positive number, or 7"),
        ("limit", 1.0, "'limit' holds something else than numbers"),
        ("limit", ["wide"] * 7, "'limit' holds something else than numbers"),
    ],
)
def test_a_config_that_is_not_whole(key: str, value: Any, message: str, folder: Path) -> None:
    path = folder / "processor_config.json"
    content = json.loads(path.read_text(encoding="utf8"))
    path.write_text(json.dumps(content | {key: value}), encoding="utf8")
    assert refusal(lambda: KltTokenizer.from_pretrained(folder)).startswith(f"{path}: {message}")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_model_that_is_not_whole(spoil: Callable[[Path], Any], folder: Path) -> None:
    path = folder / "klt_rfsq.npz"
    spoil(path)
    with pytest.raises(InputError, match="is missing, cut short or no KLT-RFSQ; save the tokenizer again"):
        KltTokenizer.from_pretrained(folder)


def test_a_repository_on_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for, and that it loads from where it was put."""
    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **settings: Any) -> str:
        asked.update(settings, name=name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded = KltTokenizer.from_pretrained("someone/tokens", revision="main", use_fast=True)
    assert_same(loaded, KltTokenizer.from_pretrained(folder))
    wanted = {"name": "someone/tokens", "revision": "main"}
    assert asked == wanted | {"allow_patterns": ["processor_config.json", "klt_rfsq.npz"]}


# In a process of its own

BY_TRANSFORMERS = f"""
import sys
sys.path.append({sysconfig.get_path("purelib")!r})
import numpy as np
from transformers import AutoProcessor
folder, tokens, out = sys.argv[1:]
"""
USED = """
tokenizer = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
tokens = np.load(tokens)
decoded = tokenizer.decode(tokens)
np.savez(out, decoded=decoded, part=tokenizer.decode(tokens[:, :5]), again=tokenizer(decoded))
"""
REFUSED = """
try:
    AutoProcessor.from_pretrained(folder, trust_remote_code=True)
except ImportError as error:
    open(out, "w").write(str(error))
"""


def run_elsewhere(options: list[str], code: str, tmp_path: Path, folder: Path) -> Path:
    pytest.importorskip("transformers")
    elsewhere, tokens, out = (tmp_path / name for name in ("elsewhere", "tokens.npy", "out.npz"))
    elsewhere.mkdir()
    np.save(tokens, fitted()(chunks_for(LIBERO_SPEC)))
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(elsewhere), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, *options, "-c", BY_TRANSFORMERS + code, str(folder), str(tokens), str(out)],
        cwd=elsewhere,
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_transformers_loads_a_folder_where_the_workbook_is_installed(tmp_path: Path, folder: Path) -> None:
    found = np.load(run_elsewhere([], USED, tmp_path, folder))
    tokenizer = KltTokenizer.from_pretrained(folder)
    tokens = np.load(tmp_path / "tokens.npy")
    np.testing.assert_array_equal(found["decoded"], tokenizer.decode(tokens))
    np.testing.assert_array_equal(found["part"], tokenizer.decode(tokens[:, :5]))
    assert found["again"].tolist() == tokenizer(found["decoded"])


def test_without_the_workbook_the_folder_says_what_to_install(tmp_path: Path, folder: Path) -> None:
    """-S leaves out the files of site-packages that put this repository on the path."""
    message = run_elsewhere(["-I", "-S"], REFUSED, tmp_path, folder).read_text()
    assert message == (
        f"{folder}: the tokenizer in it needs the workbook, which cannot be imported (No module named 'workbook'); "
        "install its repository, robust-rfsq-workbook, with pip install -e"
    )


# Whatever a policy says


def decode_random_sequences(count: int) -> None:
    """Of the guide's sizes, with a limit that clips much."""
    chunks = cut_chunks(list(walks(0, 20).values()), 8, 8).actions
    tokenizer = KltTokenizer.fit(chunks, offset=1000, limit=[1, 1, 1, 1, np.inf, 0.2, 1])
    rng = np.random.default_rng(count)
    at_the_limit = 0
    for start in range(0, count, 10_000):
        batch = min(10_000, count - start)
        actions = tokenizer.decode(random_sequences(rng, tokenizer, batch))
        assert actions.shape == (batch, 8, 7)
        assert_within_range(tokenizer, actions)
        at_the_limit += int((np.abs(actions[..., 5]) == 0.2).sum())
    assert at_the_limit > count / 100


def test_20_000_random_sequences_decode() -> None:
    decode_random_sequences(20_000)


@pytest.mark.slow
def test_a_million_random_sequences_decode() -> None:
    decode_random_sequences(1_000_000)
