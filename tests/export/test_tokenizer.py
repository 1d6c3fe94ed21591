"""The RFSQ tokenizer: where each code stands, what any sequence decodes to, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from made_up import Array, walks
from models import ACTION_DIM, DECODING, decoding_conditionings, few_examples, used_model
from tokenizer_models import (
    CHUNK_LEN,
    HIGH,
    LOW,
    Sequences,
    checkpoint_of,
    chunks_for,
    make_tokenizer,
    random_sequences,
    refusal,
)
from torch import Tensor

from rfsq_robust import ActionRFSQAE, Checkpoint, Conditioning, save_checkpoint
from rfsq_tokenizer import RFSQTokenizer

TOKENIZER = make_tokenizer(offset=100)  # C = 4, H = 6, L = 5, K = 3: 72 ids from 100 to 114
PER_LAYER = 24


def codes_of(tokenizer: RFSQTokenizer, chunks: Array) -> Tensor:
    checkpoint = tokenizer.checkpoint
    return checkpoint.model.encode(checkpoint.normalise(torch.from_numpy(chunks)))


def by_the_model(tokenizer: RFSQTokenizer, codes: Tensor) -> Array:
    """Codes (B, C, H, k) decoded without a tokenizer, within the controller's -1 to 1."""
    checkpoint = tokenizer.checkpoint
    return checkpoint.denormalise(checkpoint.model.decode_from_indices(codes)).double().clamp(-1, 1).numpy()


def assert_within_range(tokenizer: RFSQTokenizer, actions: Array) -> None:
    limit = tokenizer.limit
    assert np.isfinite(actions).all()
    assert (actions >= np.where(np.isfinite(limit), -limit, LOW.numpy())).all()
    assert (actions <= np.where(np.isfinite(limit), limit, HIGH.numpy())).all()


# Encoding


def test_every_code_stands_at_its_place() -> None:
    chunks = chunks_for(TOKENIZER)
    codes = codes_of(TOKENIZER, chunks)
    tokens = TOKENIZER(chunks)
    assert [len(sequence) for sequence in tokens] == [72] * 5
    for chunk, sequence in enumerate(tokens):
        for layer in range(3):
            for step in range(CHUNK_LEN):
                for latent in range(6):
                    position = (layer * CHUNK_LEN + step) * 6 + latent
                    assert sequence[position] == 100 + layer * 5 + int(codes[chunk, step, latent, layer])


def test_tokens_are_lists_of_plain_integers() -> None:
    tokens = TOKENIZER(chunks_for(TOKENIZER))
    assert type(tokens) is list
    assert {type(sequence) for sequence in tokens} == {list}
    assert {type(id_) for sequence in tokens for id_ in sequence} == {int}


def test_a_single_chunk_gives_a_list_with_one_list() -> None:
    chunks = chunks_for(TOKENIZER)
    assert TOKENIZER(chunks[2]) == TOKENIZER(chunks)[2:3]


def test_arrays_tensors_and_lists_are_the_same() -> None:
    chunks = chunks_for(TOKENIZER).astype(np.float32)
    given: list[Any] = [torch.from_numpy(chunks), torch.from_numpy(chunks).requires_grad_(), chunks.tolist()]
    assert all(TOKENIZER(actions) == TOKENIZER(chunks) for actions in given)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_no_chunks_give_no_tokens_and_these_no_actions(kind: Callable[[Array], Any]) -> None:
    tokens = TOKENIZER(kind(chunks_for(TOKENIZER)[:0]))
    assert tokens == []
    for none in (tokens, (), np.array(tokens), torch.tensor(tokens)):
        assert TOKENIZER.decode(none).shape == (0, CHUNK_LEN, ACTION_DIM)


@pytest.mark.parametrize("layers", [1, 2])
def test_fewer_layers_are_the_beginning_of_all(layers: int) -> None:
    chunks = chunks_for(TOKENIZER)
    tokens = make_tokenizer(layers=layers)(chunks)
    assert tokens == [sequence[: layers * PER_LAYER] for sequence in make_tokenizer()(chunks)]


def test_sizes() -> None:
    tokenizer = make_tokenizer(layers=2, offset=7)
    assert (tokenizer.layers, tokenizer.offset, tokenizer.vocab_size, tokenizer.tokens_per_chunk) == (2, 7, 10, 48)
    assert (tokenizer.chunk_len, tokenizer.time_horizon, tokenizer.action_dim) == (4, 4, 7)


def test_the_layers_share_the_ids_and_the_positions_among_them() -> None:
    ranges = [TOKENIZER.ids_of_layer(layer) for layer in range(3)]
    assert ranges == [range(100, 105), range(105, 110), range(110, 115)]
    assert [TOKENIZER.layer_of_position(i) for i in range(72)] == [0] * 24 + [1] * 24 + [2] * 24
    for sequence in TOKENIZER(chunks_for(TOKENIZER)):
        assert all(id_ in ranges[TOKENIZER.layer_of_position(i)] for i, id_ in enumerate(sequence))


@pytest.mark.parametrize("attempt", [lambda: TOKENIZER.ids_of_layer(3), lambda: TOKENIZER.ids_of_layer(-1)])
def test_a_layer_that_is_not_there(attempt: Callable[[], Any]) -> None:
    assert "give an integer from 0 to 2" in refusal(attempt)


@pytest.mark.parametrize("position", [-1, 72])
def test_a_position_that_is_not_there(position: int) -> None:
    assert refusal(lambda: TOKENIZER.layer_of_position(position)).endswith("give an integer from 0 to 71")


# Decoding


@decoding_conditionings
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_whole_layers_decode_as_the_model_decodes_them(conditioning: Conditioning, layers: int) -> None:
    tokenizer = make_tokenizer(conditioning)
    chunks = chunks_for(tokenizer)
    decoded = tokenizer.decode([sequence[: layers * PER_LAYER] for sequence in tokenizer(chunks)])
    assert decoded.dtype == np.float64
    np.testing.assert_array_equal(decoded, by_the_model(tokenizer, codes_of(tokenizer, chunks)[..., :layers]))


@decoding_conditionings
@pytest.mark.parametrize("length", [1, 5, 24, 25, 47, 71])
def test_scalars_without_a_code_get_nothing_from_a_layer(conditioning: Conditioning, length: int) -> None:
    """The latent summed up scalar by scalar."""
    tokenizer = make_tokenizer(conditioning)
    [sequence] = tokenizer(chunks_for(tokenizer, 1))
    model = tokenizer.checkpoint.model
    latent = torch.zeros(1, CHUNK_LEN, 6)
    for position, id_ in enumerate(sequence[:length]):
        layer, scalar = divmod(position, PER_LAYER)
        step, number = divmod(scalar, 6)
        quantizer = model.rfsq.quantizers[layer]
        latent[0, step, number] += quantizer.to_values(torch.tensor([id_ % 5]), *quantizer.constants())[0]
    with torch.no_grad():
        expected = tokenizer.checkpoint.denormalise(model.decoder(latent)).double().clamp(-1, 1).numpy()
    np.testing.assert_array_equal(tokenizer.decode([sequence[:length]]), expected)


def test_no_code_says_as_much_as_no_layer() -> None:
    """One id of the second layer moves its own step alone."""
    [sequence] = TOKENIZER(chunks_for(TOKENIZER, 1))
    first, longer = TOKENIZER.decode([sequence[:24]])[0], TOKENIZER.decode([sequence[:25]])[0]
    assert (first[1:] == longer[1:]).all()
    assert (first[0] != longer[0]).any()


def test_sequences_of_a_batch_may_differ_in_length() -> None:
    [sequence] = TOKENIZER(chunks_for(TOKENIZER, 1))
    sequences = [sequence[:length] for length in (72, 1, 30, 24, 72)]
    together = TOKENIZER.decode(sequences)
    for row, alone in zip(together, sequences, strict=True):
        np.testing.assert_allclose(row, TOKENIZER.decode([alone])[0], rtol=0, atol=1e-6)


@few_examples
@given(st.data())
def test_an_id_of_another_layer_says_its_code(data: st.DataObject) -> None:
    [sequence] = TOKENIZER(chunks_for(TOKENIZER, 1))
    moved = [100 + (id_ - 100) % 5 + 5 * data.draw(st.integers(0, 2)) for id_ in sequence]
    np.testing.assert_array_equal(TOKENIZER.decode([moved]), TOKENIZER.decode([sequence]))


def test_an_offset_moves_every_id_and_no_action() -> None:
    plain = make_tokenizer()
    chunks = chunks_for(plain)
    tokens, moved = plain(chunks), TOKENIZER(chunks)
    assert moved == [[id_ + 100 for id_ in sequence] for sequence in tokens]
    np.testing.assert_array_equal(TOKENIZER.decode(moved), plain.decode(tokens))


@few_examples
@given(
    st.lists(st.lists(st.integers(100, 114), min_size=1, max_size=72), min_size=1, max_size=5),
    st.sampled_from(DECODING),
    st.sampled_from([1.0, 0.05, [0.5, 1, 2, 0.1, np.inf, np.inf, 1e-3]]),
)
def test_any_sequence_decodes_within_the_range(sequences: Sequences, conditioning: Conditioning, limit: Any) -> None:
    tokenizer = make_tokenizer(conditioning, offset=100, limit=limit)
    actions = tokenizer.decode(sequences)
    assert actions.shape == (len(sequences), CHUNK_LEN, ACTION_DIM)
    assert_within_range(tokenizer, actions)


def test_actions_are_clipped_to_the_limit_and_joints_to_the_train_range() -> None:
    """A decoder whose biases alone say where each dimension goes: far out, and within."""
    model = used_model("scale")
    far = torch.tensor([9.0, -9.0, 0.5, 9.0, -9.0, 0.0, 0.25])
    with torch.no_grad():
        model.decoder[2].weight.zero_()
        model.decoder[2].bias.copy_(far)
    ends = {"min": -2 * torch.ones(7).double(), "max": 2 * torch.ones(7).double()}
    tokenizer = RFSQTokenizer(Checkpoint(model, normalization=ends), limit=[0.3, 0.7, 1, np.inf, np.inf, 1, 0.4])
    assert set(map(tuple, tokenizer.decode([[0]])[0])) == {(0.3, -0.7, 1.0, 2.0, -2.0, 0.0, 0.4)}


@pytest.mark.parametrize("kind", ["tuples", "int16", "uint64", "torch", "arrays", "tensors", "numbers"])
def test_tokens_may_come_in_many_kinds(kind: str) -> None:
    tokens = TOKENIZER(chunks_for(TOKENIZER))
    given: Any = {
        "tuples": tuple(tuple(sequence) for sequence in tokens),
        "int16": np.array(tokens, dtype=np.int16),
        "uint64": np.array(tokens, dtype=np.uint64),
        "torch": torch.tensor(tokens, dtype=torch.int32),
        "arrays": [np.array(sequence) for sequence in tokens],
        "tensors": [torch.tensor(sequence) for sequence in tokens],
        "numbers": [[np.int32(id_) for id_ in sequence] for sequence in tokens],
    }[kind]
    np.testing.assert_array_equal(TOKENIZER.decode(given), TOKENIZER.decode(tokens))


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, lambda ids: list(np.array(ids))])
def test_one_sequence_alone(kind: Callable[[list[int]], Any]) -> None:
    [sequence] = TOKENIZER(chunks_for(TOKENIZER, 1))
    np.testing.assert_array_equal(TOKENIZER.decode(kind(sequence[:30])), TOKENIZER.decode([sequence[:30]]))


def test_an_array_of_no_sequences() -> None:
    assert TOKENIZER.decode(np.zeros((0, 72), dtype=np.int64)).shape == (0, CHUNK_LEN, ACTION_DIM)


def test_the_shape_may_be_named_as_for_fast() -> None:
    tokens = TOKENIZER(chunks_for(TOKENIZER))
    named = TOKENIZER.decode(tokens, time_horizon=CHUNK_LEN, action_dim=ACTION_DIM)
    np.testing.assert_array_equal(named, TOKENIZER.decode(tokens))


# What cannot be decoded


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[100, 101], [102, 99]], "sequence 1, position 1: id 99 is not an integer from 100 to 114"),
        ([[100, 101], [115]], "sequence 1, position 0: id 115 is not an integer from 100 to 114"),
        ([[100], [101, -1, 99]], "sequence 1, position 1: id -1 is not"),
        ([[100], [10**30]], f"sequence 1, position 0: id {10**30} is not"),
        ([[100], [101, 102.0]], "sequence 1, position 1: id 102.0 is not an integer"),
        ([[100], [101, True]], "sequence 1, position 1: id True is not an integer"),
        ([[100], [None]], "sequence 1, position 0: id None is not an integer"),
        ([[100], ["101"]], "sequence 1, position 0: id '101' is not an integer"),
        ([[[100]]], "sequence 0, position 0: id [100] is not an integer"),
        (np.array([[100.0, 101.0]]), "sequence 0, position 0: id 100.0 is not an integer"),
        (np.array([[100, 99]], dtype=np.uint8), "sequence 0, position 1: id 99 is not"),
        (np.array([[100, 2**64 - 1]], dtype=np.uint64), f"sequence 0, position 1: id {2**64 - 1} is not"),
        (torch.tensor([[100, 120]]), "sequence 0, position 1: id 120 is not"),
        (torch.tensor([[100.0]], dtype=torch.bfloat16), "sequence 0, position 0: id 100.0 is not"),
        (np.array([[True]]), "sequence 0, position 0: id True is not"),
        ([100, 101, 0], "sequence 0, position 2: id 0 is not"),
        ("tokens", "tokens are 'tokens'; give a list of ids"),
        (["101", 102], "sequence 0, position 0: id '101' is not"),
        (b"efg", "tokens are b'efg'; give a list of ids"),
        (iter([101, 102]), "tokens are <list_iterator object"),
        ({101: 102}, "tokens are {101: 102}; give a list of ids"),
        ([[100], [np.float32(101.5)]], "sequence 1, position 0: id 101.5 is not"),
        ([[100], [10**5000]], "sequence 1, position 0: id a number too long to show is not"),
        ([[100], ["x" * 1000]], f"sequence 1, position 0: id '{'x' * 56}... is not"),
        ([[100], []], "sequence 1 holds 0 ids; give 1 to 72, which are 4 steps of 6 latents in 3 layers"),
        ([[]], "sequence 0 holds 0 ids"),
        ([[100] * 73], "sequence 0 holds 73 ids; give 1 to 72"),
        (np.full((2, 73), 100), "sequence 0 holds 73 ids"),
        (np.zeros((2, 0), dtype=np.int64), "sequence 0 holds 0 ids"),
        ([[100], 101], "sequence 1 is 101, not a list of ids"),
        (100, "tokens are 100; give a list of ids"),
        (np.array(100), "tokens are array(100); give a list of ids"),
    ],
)
def test_what_is_no_sequence_is_named(tokens: Any, message: str) -> None:
    assert refusal(lambda: TOKENIZER.decode(tokens)).startswith(message)


@pytest.mark.parametrize(("name", "given"), [("time_horizon", 8), ("action_dim", 6), ("time_horizon", 0)])
def test_another_shape_than_the_tokenizers_is_refused(name: str, given: int) -> None:
    tokens = TOKENIZER(chunks_for(TOKENIZER))
    assert refusal(lambda: TOKENIZER.decode(tokens, **{name: given})).startswith(f"{name} is {given}, but this")


# What cannot be encoded


@pytest.mark.parametrize("shape", [(3, 4, 7), (4, 7)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite(shape: tuple[int, ...], value: float) -> None:
    actions = np.zeros(shape)
    actions[..., 3, 5] = value
    assert refusal(lambda: TOKENIZER(actions)).startswith(f"actions, chunk 0, step 3, dimension 5: is {value}; ")


@pytest.mark.parametrize("shape", [(), (7,), (8, 7), (2, 5, 7), (2, 4, 6), (1, 2, 4, 7), (2, 4, 0)])
def test_actions_of_another_shape(shape: tuple[int, ...]) -> None:
    message = refusal(lambda: TOKENIZER(np.zeros(shape)))
    assert message.startswith(f"actions of shape {shape} are not chunks; give (batch, 4, 7) or (4, 7)")


@pytest.mark.parametrize("actions", [[[0.0] * 7, [0.0] * 6], None, "actions", {"a": 1}])
def test_actions_that_are_no_numbers(actions: Any) -> None:
    assert "actions" in refusal(lambda: TOKENIZER(actions))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_complex_actions_are_refused_and_none_of_them_dropped(kind: Callable[[Any], Any]) -> None:
    given = kind(chunks_for(TOKENIZER) + 0j)
    assert refusal(lambda: TOKENIZER(given)) in ("actions are complex; give real numbers",)


@pytest.mark.parametrize("value", [1e300, -1e300, 1e40, 3e18])
def test_an_action_far_beyond_the_units_of_the_training_data(value: float) -> None:
    """The train range of dimension 4 is -0.1 to 0.3, so that 3e18 is 1.5e19 normalised."""
    actions = chunks_for(TOKENIZER)
    actions[2, 1, 4] = value
    message = refusal(lambda: TOKENIZER(actions))
    assert message.startswith(f"actions, chunk 2, step 1, dimension 4: is {value}, which is beyond 1e+18 or infinite")


def test_the_largest_actions_have_codes() -> None:
    actions = chunks_for(TOKENIZER)
    actions[2, 1, 4] = 1e17
    assert_within_range(TOKENIZER, TOKENIZER.decode(TOKENIZER(actions)))


# The limit


def checkpoint_within(low: float, high: float, **more: Any) -> Checkpoint:
    """A train range of -1 to 1 but for dimension 3."""
    ends = {name: torch.full((7,), end, dtype=torch.float64) for name, end in (("min", -1.0), ("max", 1.0))}
    ends["min"][3], ends["max"][3] = low, high
    return Checkpoint(used_model("scale"), normalization=ends, **more)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.2, 0.3), (-1 - 1e-10, 1 + 1e-10), (5e-2, 5e-2)])
def test_without_a_limit_it_is_1_where_that_clips_no_training_data(low: float, high: float) -> None:
    assert RFSQTokenizer(checkpoint_within(low, high)).limit.tolist() == [1.0] * 7


@pytest.mark.parametrize(("low", "high"), [(-1.57, 1.0), (-1.0, 1.57), (-1 - 1e-8, 1.0), (1.5, 1.5)])
def test_without_a_limit_joints_are_refused_and_not_clipped(low: float, high: float, tmp_path: Any) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, checkpoint_within(low, high))
    message = f"dimension 3 of the training data ranges from {low:.10g} to {high:.10g}, beyond the -1 to 1 of a "
    message += "controller; give limit=..., infinite for joints"
    assert refusal(lambda: RFSQTokenizer(checkpoint_within(low, high))) == message
    assert refusal(lambda: RFSQTokenizer.from_checkpoint(path)) == f"{path}: {message}"


def test_joints_are_fitted_on_only_with_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is trained; with one, the decoder alone says how far the joint goes."""
    chunks = np.stack([episode[:8] for episode in EPISODES])
    chunks[0, 0, 0] = np.pi
    monkeypatch.setattr("workbook.training.trainer.train", None)
    assert "dimension 0 of the training data ranges" in refusal(lambda: RFSQTokenizer.fit(chunks, **SMALL))
    monkeypatch.undo()
    tokenizer = RFSQTokenizer.fit(chunks, **SMALL, limit=[np.inf, *[1.0] * 6])
    with torch.no_grad():
        tokenizer.checkpoint.model.decoder[2].bias.fill_(9.0)
    np.testing.assert_array_equal(tokenizer.decode(tokenizer(chunks[:1]))[0, :, 0], np.full(8, np.pi))


LIMIT = [1.0, 1.0, 1.0, np.inf, 0.5, 1.0, 2.0]


def test_the_limit_that_training_wrote_is_taken_unless_one_is_given(tmp_path: Any) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, checkpoint_within(-2.0, 2.0, provenance={"limit": LIMIT}))
    assert RFSQTokenizer.from_checkpoint(path).limit.tolist() == LIMIT
    assert RFSQTokenizer.from_checkpoint(path, limit=0.25).limit.tolist() == [0.25] * 7


@pytest.mark.parametrize(
    "limit", [None, 1.0, "wide", {"a": 1}, LIMIT[:6], [*LIMIT, 1.0], ["1"] * 7, [True] * 7, [np.nan] * 7, [0.0] * 7]
)
def test_a_written_limit_that_is_none(limit: Any) -> None:
    checkpoint = checkpoint_within(-1.0, 1.0, provenance={"limit": limit})
    message = refusal(lambda: RFSQTokenizer(checkpoint))
    assert message.startswith("the limit in the checkpoint's provenance is ")
    assert message.endswith(", not a list of 7 positive numbers; give limit=..., infinite for joints")
    assert RFSQTokenizer(checkpoint, limit=1.0).limit.tolist() == [1.0] * 7


# Numbers that would overflow


@pytest.mark.parametrize("name", ["decoder.0.bias", "decoder.2.weight", "rfsq.layers.1.log_gain"])
def test_what_overflows_is_refused_and_not_returned(name: str) -> None:
    tokenizer = make_tokenizer("learned_scale")
    tokens = tokenizer(chunks_for(tokenizer))
    with torch.no_grad():
        tokenizer.checkpoint.model.get_parameter(name).fill_(3e38)
    assert refusal(lambda: tokenizer.decode(tokens)).startswith("decoded actions, chunk ")


@few_examples
@given(st.floats(0, 40), st.floats(0, 40), st.integers(0, 2**31))
def test_what_is_not_refused_decodes_to_numbers(first: float, second: float, seed: int) -> None:
    model = used_model("scale", seed % 5)
    with torch.no_grad():
        model.decoder[0].weight.mul_(10**first)
        model.decoder[2].weight.mul_(10**second)
    tokenizer = RFSQTokenizer(Checkpoint(model, normalization={"min": LOW, "max": HIGH}), limit=1.0)
    try:
        actions = tokenizer.decode(random_sequences(np.random.default_rng(seed), tokenizer, 5))
    except ValueError:
        assert first + second > 30
    else:
        assert_within_range(tokenizer, actions)


def test_a_train_range_too_wide_for_a_float() -> None:
    checkpoint = checkpoint_within(-1.7e308, 1.7e308)
    message = refusal(lambda: RFSQTokenizer(checkpoint, limit=np.inf))
    assert message.startswith("dimension 3 of the training data ranges from -1.7e+308 to 1.7e+308, too far")


# What makes no tokenizer


def test_layernorm_tokens_are_refused_when_the_tokenizer_is_made(tmp_path: Any) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, checkpoint_of("layernorm"))
    message = refusal(lambda: RFSQTokenizer.from_checkpoint(path))
    assert message.startswith(f"{path}: conditioning 'layernorm' has tokens that cannot be decoded")
    assert message.endswith("take a checkpoint of conditioning 'scale'")


def test_a_checkpoint_without_a_normaliser(tmp_path: Any) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, Checkpoint(used_model("scale")))
    message = refusal(lambda: RFSQTokenizer.from_checkpoint(path))
    assert message.startswith(f"{path}: the checkpoint carries no normaliser; save it again with")


def test_a_file_that_is_no_checkpoint(tmp_path: Any) -> None:
    assert "no such checkpoint file" in refusal(lambda: RFSQTokenizer.from_checkpoint(tmp_path / "none.pt"))


def test_a_checkpoint_file_gives_the_tokenizer_of_its_model(tmp_path: Any) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, checkpoint_of())
    tokenizer = RFSQTokenizer.from_checkpoint(path, layers=2, chunk_len=CHUNK_LEN, offset=3, limit=0.5)
    same = make_tokenizer(layers=2, offset=3, limit=0.5)
    tokens = same(chunks_for(same))
    assert tokenizer(chunks_for(same)) == tokens
    np.testing.assert_array_equal(tokenizer.decode(tokens), same.decode(tokens))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "layers is 0; give an integer from 1 to 3"),
        ({"layers": 4}, "layers is 4; give an integer from 1 to 3"),
        ({"layers": 1.0}, "layers is 1.0; give an integer"),
        ({"layers": True}, "layers is True; give an integer"),
        ({"chunk_len": 0}, "chunk_len is 0; give an integer from 1"),
        ({"offset": -1}, "offset is -1; give an integer from 0"),
        ({"offset": 2**70}, f"offset is {2**70}; give an integer from 0 to {2**31 - 15}"),
        ({"offset": 2**31 - 14}, f"offset is {2**31 - 14}; give an integer from 0 to {2**31 - 15}"),
        ({"offset": 2**31 - 4, "layers": 1}, f"offset is {2**31 - 4}; give an integer from 0 to {2**31 - 5}"),
        ({"offset": list(range(100))}, f"offset is {str(list(range(100)))[:57]}...; give an integer"),
        ({"offset": "7"}, "offset is '7'; give an integer"),
        ({"limit": 0.0}, "limit is 0.0; give one positive number, or 7"),
        ({"limit": np.nan}, "limit is nan; give one positive number"),
        ({"limit": [1.0] * 6}, "limit is [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]; give one positive number, or 7"),
        ({"limit": np.ones(500)}, f"limit is array([{'1., ' * 20}"[:66] + "...; give one positive"),
        ({"limit": "wide"}, "limits are no array of numbers"),
        ({"limit": 1j}, "limits are complex; give real numbers"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    assert refusal(lambda: make_tokenizer(**settings)).startswith(message)


def test_the_greatest_ids_fit_32_bits() -> None:
    tokenizer = make_tokenizer(offset=2**31 - 15)
    chunks = chunks_for(tokenizer)
    tokens = np.array(tokenizer(chunks), dtype=np.int32)
    assert tokenizer.ids_of_layer(2)[-1] == 2**31 - 1
    np.testing.assert_array_equal(tokenizer.decode(tokens), make_tokenizer().decode(make_tokenizer()(chunks)))


# Fitting


SMALL: dict[str, Any] = {"num_layers": 2, "num_levels": 5, "hidden_dim": 8, "epochs": 3}
EPISODES = list(walks(3).values())


def test_fitted_tokens_say_what_the_actions_were() -> None:
    tokenizer = RFSQTokenizer.fit(list(walks(3, 40).values()), epochs=60)
    chunks = np.stack([episode[:8] for episode in walks(4).values()])
    error = ((tokenizer.decode(tokenizer(chunks)) - chunks) ** 2).mean()
    assert error < 0.1 * chunks.var(axis=(0, 1)).mean()
    assert tokenizer.checkpoint.model.conditioning == "scale"


def test_a_fitted_tokenizer_has_what_was_asked_for() -> None:
    tokenizer = RFSQTokenizer.fit(EPISODES, **SMALL, chunk_len=5, offset=9, limit=2.0)
    assert (tokenizer.layers, tokenizer.num_levels, tokenizer.checkpoint.model.hidden_dim) == (2, 5, 8)
    assert (tokenizer.chunk_len, tokenizer.offset, set(tokenizer.limit)) == (5, 9, {2.0})
    assert len(tokenizer(EPISODES[0][:5])[0]) == 5 * 8 * 2


def test_chunk_length_is_that_of_an_array_and_8_for_episodes() -> None:
    assert RFSQTokenizer.fit(np.stack([episode[:12] for episode in EPISODES]), **SMALL).chunk_len == 12
    assert RFSQTokenizer.fit(torch.from_numpy(np.stack([e[:3] for e in EPISODES])), **SMALL).chunk_len == 3
    assert RFSQTokenizer.fit(EPISODES, **SMALL).chunk_len == 8


def test_the_last_fifth_of_the_chunks_is_not_trained_on() -> None:
    """10 chunks: the range is that of the first 8, padding left out."""
    steps = np.linspace(-0.5, 0.5, 8)[:, None] * np.ones(ACTION_DIM)
    chunks = np.stack([steps] * 10)
    chunks[8:] *= 1.5
    chunks[0, 0] = -0.75
    bounds = RFSQTokenizer.fit(chunks, **SMALL).checkpoint.normalization
    assert bounds is not None
    assert (bounds["min"].tolist(), bounds["max"].tolist()) == ([-0.75] * 7, [0.5] * 7)


def test_fitting_twice_gives_the_same_and_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(5)
    first = RFSQTokenizer.fit(EPISODES, **SMALL, seed=1)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    again, other = RFSQTokenizer.fit(EPISODES, **SMALL, seed=1), RFSQTokenizer.fit(EPISODES, **SMALL, seed=2)
    chunks = EPISODES[0][:16].reshape(2, 8, 7)
    assert first(chunks) == again(chunks) != other(chunks)


def test_an_instance_fits_another() -> None:
    fitted = TOKENIZER.fit(EPISODES, **SMALL)
    assert isinstance(fitted, RFSQTokenizer)
    assert (fitted.offset, TOKENIZER.offset) == (0, 100)


def with_a(value: float) -> list[Array]:
    spoilt = [episode.copy() for episode in EPISODES]
    spoilt[1][3, 2] = value
    return spoilt


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (with_a(np.nan), "episode 1 of actions, step 3, dimension 2: is nan; fix"),
        (with_a(np.inf), "episode 1 of actions, step 3, dimension 2: is inf; fix"),
        (EPISODES[0], "episode 0 of actions has shape (7,); give (N, T, A) chunks"),
        ([EPISODES[0], EPISODES[1][:, :6]], "episode 1 of actions has shape"),
        ([EPISODES[0], np.zeros((0, 7))], "episode 1 of actions has shape (0, 7)"),
        (np.zeros((2, 3, 4, 5)), "episode 0 of actions has shape (3, 4, 5)"),
        ([], "actions hold no episode"),
        (np.zeros((0, 8, 7)), "actions hold no episode"),
        (np.zeros((1, 8, 7)), "actions make 1 chunk; give at least 2"),
        ([["a", "b"]], "episode 0 of actions are no array of numbers"),
    ],
)
def test_actions_that_cannot_be_fitted_on(actions: Any, message: str) -> None:
    assert refusal(lambda: RFSQTokenizer.fit(actions, **SMALL)).startswith(message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0; give an integer from 1"),
        ({"num_levels": 1}, "num_levels is 1; give an integer from 2"),
        ({"hidden_dim": 1}, "hidden_dim is 1; give an integer from 2"),
        ({"epochs": 0}, "epochs is 0; give an integer from 1"),
        ({"num_layers": 2.0}, "num_layers is 2.0; give an integer"),
        ({"num_levels": "5"}, "num_levels is '5'; give an integer"),
        ({"hidden_dim": None}, "hidden_dim is None; give an integer"),
        ({"epochs": 2.5}, "epochs is 2.5; give an integer"),
        ({"epochs": True}, "epochs is True; give an integer"),
        ({"offset": 2**31 - 9}, f"offset is {2**31 - 9}; give an integer from 0 to {2**31 - 10}"),
        ({"limit": [1.0]}, "limit is [1.0]; give one positive number, or 7"),
        ({"seed": -1}, "seed is -1; give an integer from 0"),
        ({"chunk_len": 0}, "chunk_len is 0; give an integer from 1"),
        ({"limit": -1.0}, "limit is -1.0; give one positive number"),
    ],
)
def test_parameters_that_cannot_be_fitted_with(setting: dict[str, Any], message: str) -> None:
    assert refusal(lambda: RFSQTokenizer.fit(EPISODES, **(SMALL | setting))).startswith(message)


def test_without_the_workbook_fitting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "workbook.training", None)
    with pytest.raises(ImportError, match="install its repository with pip install -e") as raised:
        RFSQTokenizer.fit(EPISODES)
    assert "\n" not in str(raised.value)


# Whatever a policy says


def bulk_tokenizer(num_layers: int) -> RFSQTokenizer:
    """Of the guide's sizes, 8 steps, with the decoder's weights enlarged so that much has to be clipped."""
    torch.manual_seed(num_layers)
    model = ActionRFSQAE(num_layers=num_layers, conditioning="scale").eval()
    with torch.no_grad():
        model.decoder[2].weight.mul_(4)
    checkpoint = Checkpoint(model, normalization={"min": LOW, "max": HIGH})
    return RFSQTokenizer(checkpoint, offset=1000, limit=[1, 1, 1, 1, 1, np.inf, 0.5])


def decode_random_sequences(tokenizer: RFSQTokenizer, count: int) -> None:
    rng = np.random.default_rng(count)
    clipped = 0
    for start in range(0, count, 10_000):
        batch = min(10_000, count - start)
        actions = tokenizer.decode(random_sequences(rng, tokenizer, batch))
        assert actions.shape == (batch, 8, ACTION_DIM)
        assert_within_range(tokenizer, actions)
        clipped += int((np.abs(actions[..., 6]) == 0.5).sum())
    assert clipped > count / 100


def test_20_000_random_sequences_decode() -> None:
    decode_random_sequences(bulk_tokenizer(3), 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("num_layers", [3, 8])
def test_a_million_random_sequences_decode(num_layers: int) -> None:
    decode_random_sequences(bulk_tokenizer(num_layers), 1_000_000)
