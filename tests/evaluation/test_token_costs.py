"""What tokens cost a policy: words, one wrong token, overlap and borders, by hand and by law."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_codecs import make_fitting
from small_runs import ignore_progress, make_dataset

from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.bins import UniformBins
from workbook.codecs.brought import BroughtCodec
from workbook.codecs.catalogue import ENTRIES, Entry, at, catalogue
from workbook.codecs.fast import FastCodec
from workbook.codecs.klt import fit_klt
from workbook.codecs.klt_rfsq import FixedLength, KltRFSQ, fit_variable_length
from workbook.codecs.protocol import NOT_SENT, Codec, Tokens, levels_of
from workbook.common.array import Array
from workbook.evaluation.score import HeldOut, score
from workbook.evaluation.token_costs import (
    Codes,
    _calls,
    border,
    costed_codecs,
    costs_of,
    dead_places,
    decodes,
    flat,
    latency,
    one_wrong,
    overlap,
    random_tokens,
    thirds,
    token_costs,
    words,
)

DATASET = make_dataset()
TEST = HeldOut.of(DATASET)
CHUNKS = TEST.chunks.actions
N, STEPS, WIDTH = CHUNKS.shape


def of(*sequences: list[int]) -> Tokens:
    longest = max(map(len, sequences))
    return Tokens(np.array([each + [NOT_SENT] * (longest - len(each)) for each in sequences]))


@dataclass(frozen=True, eq=False)
class Signs:
    """A toy: of each step a token of 2 values, its first dimension above 0 or not, and one that is constant."""

    name: str = "signs"
    vocabulary: int = 2

    def encode(self, chunks: Array) -> Tokens:
        above = (chunks[:, :, 0] > 0).astype(np.int64)
        return Tokens(np.stack([above, np.zeros_like(above)], axis=-1))

    def decode(self, tokens: Tokens) -> Array:
        decoded = np.zeros((*tokens.codes.shape[:2], WIDTH))
        decoded[:, :, 0] = np.where(tokens.codes[..., 0] == 1, 0.5, -0.5)
        return decoded + tokens.codes[..., 1:]

    def bits(self, tokens: Tokens) -> float:
        return 2.0 * STEPS


@dataclass(frozen=True, eq=False)
class Side(Signs):
    """A toy: one token a chunk, the side on which its first dimension is in the mean."""

    def encode(self, chunks: Array) -> Tokens:
        return Tokens((chunks[:, :, 0].mean(axis=1, keepdims=True) > 0).astype(np.int64))

    def decode(self, tokens: Tokens) -> Array:
        return np.broadcast_to(tokens.codes[:, :, None] - 0.5, (len(tokens.codes), STEPS, WIDTH))

    def bits(self, tokens: Tokens) -> float:
        return 1.0


@dataclass(frozen=True, eq=False)
class FirstStep(Signs):
    """A toy: of each step a token of 2 values, of which only the first says something."""

    def encode(self, chunks: Array) -> Tokens:
        return Tokens(np.zeros(chunks.shape[:2], dtype=np.int64))

    def decode(self, tokens: Tokens) -> Array:
        decoded = np.zeros((*tokens.codes.shape, WIDTH))
        decoded[:, 0] = 100.0 * tokens.codes[:, :1]
        return decoded


@dataclass(frozen=True, eq=False)
class NeverOne(Signs):
    """A toy whose decode gives NaN where the first token is 1."""

    def decode(self, tokens: Tokens) -> Array:
        decoded = np.zeros((len(tokens.codes), STEPS, WIDTH))
        decoded[tokens.codes.reshape(len(decoded), -1)[:, 0] == 1] = np.nan
        return decoded


class Refusing:
    """A stranger's: 0 raises, 1 gives NaN, 2 zeros."""

    vocab_size = 4
    called = 0

    def __call__(self, chunks: Array) -> list[list[int]]:
        self.called += 1
        return [[3]] * len(chunks)

    def decode(self, tokens: list[list[int]]) -> Array:
        if [0] in tokens:
            raise ValueError("not this one")
        values = {1: np.nan, 2: 0.0, 3: 0.5}
        return np.array([np.full((STEPS, WIDTH), values[sequence[0]]) for sequence in tokens])


class TestWords:
    def test_by_hand(self) -> None:
        levels = np.array([16, 7, 7, 2, 1024, 3])  # 16 * 7 * 7 = 784 | 2 | 1024 | 3
        assert words(of([0] * 6), levels).tolist() == [4]
        assert words(of([0] * 6), levels, most=2048).tolist() == [3]  # 784 * 2 = 1568 | 1024 | 3

    def test_six_digits_of_three_levels_and_three_of_seven_are_a_word(self) -> None:
        assert words(of([0] * 36), np.full(36, 3)).tolist() == [6]
        assert words(of([0] * 128), np.full(128, 7)).tolist() == [43]

    def test_only_what_is_sent_takes_room(self) -> None:
        levels = np.full(4, 32)  # two fill a word
        assert words(of([0, 0, 0, 0], [0, 0, 0], [0], []), levels).tolist() == [2, 2, 1, 0]
        assert words(Tokens(np.array([[0, NOT_SENT, NOT_SENT, 0]])), levels).tolist() == [1]

    def test_a_token_that_is_larger_than_a_word_is_one(self) -> None:
        assert words(of([0, 0, 0]), np.array([5000, 2, 2])).tolist() == [2]

    def test_tokens_of_a_shared_alphabet_are_words(self) -> None:
        tokens = replace(of([0, 0, 0], [0]), shared_alphabet=True)
        assert words(tokens, np.full(3, 2)).tolist() == [3, 1]

    def test_a_statistic_takes_two(self) -> None:
        tokens = replace(of([0, 0]), side=np.zeros((1, 1, 3), dtype=np.uint16))
        assert words(tokens, np.full(2, 32)).tolist() == [1 + 6]

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(40, 2000))
    def test_hold_the_bits_and_no_two_neighbours_could_be_one(self, levels: list[int], most: int) -> None:
        (count,) = words(of([0] * len(levels)), np.array(levels), most)
        bits = float(np.log2(levels).sum())
        assert bits / np.log2(most) <= count + 1e-9
        assert 1 <= count <= len(levels)
        assert (count - 1) / 2 <= bits / np.log2(most) + 1e-9  # else two neighbours would have fitted into one


class TestOneWrong:
    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 2**32), st.lists(st.integers(1, 5), min_size=1, max_size=8))
    def test_changes_one_token_a_chunk_to_another_that_there_is(self, seed: int, sizes: list[int]) -> None:
        rng, levels = np.random.default_rng(seed), np.array(sizes)
        codes = rng.integers(0, levels, (20, len(levels)))
        codes[rng.random(codes.shape) < 0.3] = NOT_SENT
        found = one_wrong(Tokens(codes), levels, rng).codes
        changed = found != codes
        could = ((codes != NOT_SENT) & (levels > 1)).any(axis=1)
        assert (changed.sum(axis=1) == could).all()
        assert ((found >= 0) & (found < levels))[changed].all()

    def test_draws_places_and_values_evenly(self) -> None:
        levels = np.array([2, 1, 4])
        found = one_wrong(Tokens(np.tile([1, 0, 2], (6000, 1))), levels, np.random.default_rng(0)).codes
        first = found[:, 0] != 1
        assert first.mean() == pytest.approx(0.5, abs=0.03)
        shares = np.bincount(found[~first, 2], minlength=4) / (~first).sum()
        assert shares == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], abs=0.03)

    def test_side_information_stays(self) -> None:
        tokens = Tokens(np.zeros((2, 3), dtype=np.int64), np.ones((2, 3), dtype=np.uint16), True)
        found = one_wrong(tokens, np.full(3, 2), np.random.default_rng(0))
        assert found.side is tokens.side
        assert found.shared_alphabet

    def test_its_error_by_hand(self) -> None:
        """Of one token of two values a chunk, the wrong one is the other."""
        codec = Side()
        found, other = costs_of(codec, TEST), 1 - codec.encode(CHUNKS).codes
        error = (codec.decode(Tokens(other)) - CHUNKS) / TEST.normaliser.half_width
        assert found["mse_wrong"] == pytest.approx((error[TEST.chunks.valid] ** 2).mean())
        assert found["mse_wrong"] > found["mse"]


class TestThirds:
    def test_of_residual_layers_they_are_layers_in_every_step(self) -> None:
        found = thirds(Tokens(np.zeros((2, 3, 4, 8), dtype=np.int64))).reshape(2, 3, 4, 8)
        assert (found == [0, 0, 0, 1, 1, 1, 2, 2]).all()
        assert (thirds(Tokens(np.zeros((1, 2, 2, 1), dtype=np.int64))) == 0).all()

    def test_of_others_they_are_of_what_each_chunk_sends(self) -> None:
        sent = thirds(of([0] * 6, [0, 0, 0], [0]))
        assert sent[0].tolist() == [0, 0, 1, 1, 2, 2]
        assert sent[1, :3].tolist() == [0, 1, 2]
        assert sent[2, 0] == 0
        gap = thirds(Tokens(np.array([[0, NOT_SENT, NOT_SENT, 0, 0]])))
        assert gap[0, [0, 3, 4]].tolist() == [0, 1, 2]
        assert thirds(Tokens(np.zeros((1, 3, 2), dtype=np.int64))).tolist() == [[0, 0, 1, 1, 2, 2]]

    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 2**32), st.integers(0, 2))
    def test_a_wrong_token_lies_where_it_is_asked_for(self, seed: int, third: int) -> None:
        rng = np.random.default_rng(seed)
        tokens = of(*([1] * int(count) for count in rng.integers(1, 9, 20)))
        among = thirds(tokens) == third
        wrong = one_wrong(tokens, np.full(tokens.codes.shape[1], 3), rng, among)
        changed = wrong.codes != tokens.codes
        assert not (changed & ~among).any()
        assert (changed.sum(axis=1) == (among & tokens.sent).any(axis=1)).all()

    def test_the_error_of_each_by_hand(self) -> None:
        """Of the toy only the first token matters, and with `Side` there is but one."""
        found = costs_of(FirstStep(), TEST)
        assert found["mse_first"] > 2 * found["mse"]
        assert found["mse_middle"] == found["mse_last"] == pytest.approx(found["mse"])
        assert np.isnan(costs_of(Side(), TEST)["mse_last"])


class TestRandomSequences:
    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 2**32), st.booleans())
    def test_are_even_over_what_each_place_can_be(self, seed: int, shared: bool) -> None:
        rng, levels = np.random.default_rng(seed), np.array([2, 5, 9])
        tokens = replace(of([0, 0, 0], [0, 0], [0]), shared_alphabet=shared)
        codes = random_tokens(tokens, levels, rng).codes
        assert (codes < levels).all()
        assert set(codes[:, 0].tolist()) == {0, 1}
        lengths = (codes != NOT_SENT).sum(axis=1)
        assert set(lengths.tolist()) == ({1, 2, 3} if shared else {3})

    def test_what_does_not_decode_is_counted(self) -> None:
        assert decodes(Signs(), Signs().encode(CHUNKS)) == 1.0
        codes = np.array([[0] * STEPS] * 3 + [[1] * STEPS])
        assert decodes(NeverOne(), Tokens(codes[:, :, None])) == 0.75

    def test_of_fast_style_tokens_hardly_any_spells_a_chunk(self) -> None:
        fast = FastCodec.fit(DATASET.train_chunks().actions, DATASET.normaliser, 10)
        found = costs_of(fast, TEST)
        assert fast.malformed(fast.encode(CHUNKS)).sum() == 0
        assert 0 <= found["decodes"] < 0.2

    def test_of_a_brought_one_faults_and_all_zeros_count(self) -> None:
        codec = BroughtCodec("made", Refusing(), DATASET.normaliser, (STEPS, WIDTH))
        tokens = Tokens(np.array([[0], [1], [2], [3]]), shared_alphabet=True)
        assert codec.malformed(tokens).tolist() == [True, True, True, False]
        assert decodes(codec, tokens) == 0.25


class TestLatency:
    def test_is_told_once_a_setting_of_the_first_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = Entry(
            "made_up", "", "#123456", "o-", True, True, lambda f, s: [Signs(), NeverOne()], costed=at("rate", 3)
        )
        monkeypatch.setattr(catalogue_module, "ENTRIES", (made,))
        found = latency(costed_codecs(make_fitting(), [made]), TEST)
        assert found[["codec", "setting"]].to_numpy().tolist() == [["made_up", "rate=3"]]
        assert (found[["encode_ms", "decode_ms"]] > 0).to_numpy().all()

    def test_a_brought_codec_is_not_copied_for_every_chunk(self) -> None:
        tokenizer = Refusing()
        codec = BroughtCodec("made", tokenizer, DATASET.normaliser, (STEPS, WIDTH))
        own = codec.without_copies()
        calls = _calls(codec, CHUNKS[:1])
        assert own.tokenizer is not tokenizer
        assert own._fresh() is own.tokenizer
        calls["encode_ms"]()
        assert tokenizer.called == 0


class TestOverlap:
    def test_by_hand(self) -> None:
        now, later = np.array([[1, 2, 3], [0, 0, 0]]), np.array([[1, 2, 0], [0, 1, 1]])
        assert overlap(now, later) == pytest.approx(3 / 6)

    def test_sequences_that_are_not_equally_long_differ_in_the_rest(self) -> None:
        assert overlap(np.array([[1, 2, NOT_SENT]]), np.array([[1, NOT_SENT, NOT_SENT]])) == 0.5
        assert overlap(np.array([[1, 2]]), np.array([[1]])) == 0.5

    def test_of_nothing_there_is_none(self) -> None:
        assert np.isnan(overlap(np.zeros((0, 3), dtype=np.int64), np.zeros((0, 3), dtype=np.int64)))
        assert np.isnan(overlap(np.full((2, 2), NOT_SENT), np.full((2, 2), NOT_SENT)))

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.lists(st.integers(-1, 2), min_size=3, max_size=3), min_size=1, max_size=6))
    def test_is_all_with_itself_and_the_same_both_ways(self, some: list[list[int]]) -> None:
        codes: Codes = np.array(some)
        other = np.roll(codes, 1, axis=0)
        assert np.isnan(overlap(codes, codes)) == bool((codes == NOT_SENT).all())
        if (codes != NOT_SENT).any():
            assert overlap(codes, codes) == 1.0
            assert overlap(codes, other) == overlap(other, codes) <= 1.0

    def test_is_of_chunks_a_step_apart_and_of_places_that_say_something(self) -> None:
        """Of the toy, the sign of a step and of the next one are the same wherever the motion keeps its side."""
        found = costs_of(Signs(), TEST)
        agree = []
        for episode in TEST.episodes:
            sign = episode.actions[:, 0] > 0
            for start in range(0, len(sign) - STEPS, STEPS):
                agree += list(sign[start : start + STEPS] == sign[start + 1 : start + STEPS + 1])
        assert found["overlap"] == pytest.approx(np.mean(agree))
        assert (found["tokens"], found["dead"]) == (2 * STEPS, STEPS)


class TestBorder:
    def test_by_hand(self) -> None:
        episode = np.array([[0.0], [1], [5], [6], [6], [10]])  # steps 1 |4| 1 |0| 4: medians 2 and 1
        assert border([episode], 2) == 2.0
        assert border([np.array([[0.0, 0], [1, 1], [4, 4], [5, 5]])], 2) == pytest.approx(3.0)

    def test_episodes_begin_anew(self) -> None:
        episode = np.array([[0.0], [1.0], [4.0], [5.0]])
        assert border([episode, episode + 9], 2) == pytest.approx(3.0)

    @pytest.mark.parametrize("episode", [np.zeros((9, 2)), np.zeros((1, 2)), np.zeros((9, 0)), np.eye(2)])
    def test_where_nothing_moves_or_no_chunk_ends_there_is_none(self, episode: Array) -> None:
        assert np.isnan(border([episode], 3))

    def test_an_even_motion_has_no_borders(self) -> None:
        assert border([np.arange(24.0)[:, None]], 8) == 1.0
        found = costs_of(Signs(), TEST)
        assert found["border_truth"] == pytest.approx(
            border([TEST.normaliser.normalise(each.actions)[:, :6] for each in TEST.episodes], STEPS)
        )


class TestDeadPlaces:
    def test_are_those_of_a_layer_that_is_constant(self) -> None:
        dead = dead_places(Signs().encode(CHUNKS), TEST.chunks)
        assert dead.reshape(STEPS, 2).tolist() == [[False, True]] * STEPS

    def test_a_shared_alphabet_has_none(self) -> None:
        tokens = Tokens(np.zeros((N, 3), dtype=np.int64), shared_alphabet=True)
        assert not dead_places(tokens, TEST.chunks).any()


class TestLevels:
    def codecs(self) -> list[Codec]:
        chunks = DATASET.train_chunks().actions
        model = KltRFSQ.fit(chunks, DATASET.layout, DATASET.normaliser)
        return [
            UniformBins(9, DATASET.normaliser),
            *fit_klt(chunks, DATASET.normaliser, (40, 80)),
            FixedLength(model, 12),
            *fit_variable_length(model, chunks, (40,)),
        ]

    def test_every_code_is_below_those_of_its_place_and_they_make_the_bits(self) -> None:
        for codec in self.codecs():
            tokens = codec.encode(CHUNKS)
            levels = levels_of(codec, tokens)
            sent = flat(tokens) != NOT_SENT
            assert levels.shape == flat(tokens).shape[1:]
            assert (flat(tokens) < levels).all()
            assert levels.max() <= codec.vocabulary
            assert (sent * np.log2(levels)).sum(axis=1).mean() == pytest.approx(codec.bits(tokens))

    def test_any_token_that_is_wrong_decodes_to_finite_actions(self) -> None:
        for codec in self.codecs():
            tokens = codec.encode(CHUNKS)
            wrong = one_wrong(tokens, levels_of(codec, tokens), np.random.default_rng(1))
            assert np.isfinite(codec.decode(wrong)).all()


class TestTable:
    def test_has_every_entry_whose_costs_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made_up = Entry(
            "made_up", "", "#123456", "o-", True, True, lambda f, s: [Signs(), Signs()], costed=at("rate", 3, 4)
        )
        monkeypatch.setattr(catalogue_module, "ENTRIES", (made_up, ENTRIES[0]))
        found = token_costs(costed_codecs(make_fitting(), [made_up, ENTRIES[0]]), TEST, [7, 8], ignore_progress)
        made = found[found.codec == "made_up"]
        assert list(zip(made.setting, made.seed, strict=True)) == [
            ("rate=3", 7), ("rate=3", 8), ("rate=4", 7), ("rate=4", 8),
        ]  # fmt: skip
        assert set(found.codec) == {"made_up", "naive"}

    def test_bits_and_errors_are_those_of_the_scores(self) -> None:
        for codec in (UniformBins(16, TEST.normaliser), Signs()):
            row, scored = costs_of(codec, TEST), score(codec, TEST)
            assert row["mse"] == pytest.approx(np.average(scored.mse, weights=scored.steps))
            for name in ("bits", "tokens", "entropy_bits"):
                assert row[name] == pytest.approx(np.average(scored[name], weights=scored.chunks))

    def test_every_codec_of_the_catalogue_stands_in_it_and_once_a_setting(self) -> None:
        fitting = make_fitting(full=True)
        for entry in catalogue().values():
            told = entry.costed_at(fitting)
            assert told
            assert len(told) == len(set(told))
            assert set(entry.compared(fitting)) | set(entry.predicted(fitting)) <= set(told)
