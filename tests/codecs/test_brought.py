"""Tokenizers of strangers: loaded, fitted, decoded from their tokens alone, and their faults counted."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fast_style import FastStyleTokenizer

from workbook.codecs.brought import BroughtCodec, Faults, fit_brought, load
from workbook.common.errors import InputError
from workbook.data.chunks import Normaliser

NORMALISER = Normaliser(np.full(7, -2.0), np.full(7, 2.0))
TRAIN = np.random.default_rng(0).uniform(-2, 2, (64, 8, 7))

STRANGER = '''
"""As a user would write it: rounds to 16 values, and fails where a chunk begins with the largest."""
import numpy as np


class Rounder:
    vocab_size = 17

    def fit(self, chunks):
        self.low, self.high = chunks.min(), chunks.max()
        return self

    def __call__(self, chunks):
        scaled = (np.asarray(chunks) - self.low) / (self.high - self.low)
        return np.rint(scaled * 15).astype(int).reshape(len(chunks), -1).tolist()

    def decode(self, tokens):
        if any(sequence[0] == 15 for sequence in tokens):
            raise ValueError("I do not like this one")
        return np.array(tokens).reshape(-1, 8, 7) / 15 * (self.high - self.low) + self.low
'''


class Rounder:
    """Rounds normalised numbers to hundredths."""

    vocab_size = 201

    def __call__(self, chunks: Any) -> list[list[int]]:
        return (np.rint(np.asarray(chunks) * 100) + 100).astype(int).reshape(len(chunks), -1).tolist()

    def decode(self, tokens: list[list[int]]) -> Any:
        return (np.array(tokens, dtype=float) - 100).reshape(-1, 8, 7) / 100


class Remembering(Rounder):
    """Gives back what it was called with last."""

    def __call__(self, chunks: Any) -> list[list[int]]:
        self.last = np.asarray(chunks)
        return super().__call__(chunks)

    def decode(self, tokens: list[list[int]]) -> Any:
        return self.last[: len(tokens)]


class Shorter(Rounder):
    """Leaves out what stands after the last number that is not 0."""

    def __call__(self, chunks: Any) -> list[list[int]]:
        return [tokens[: max(at for at in range(56) if tokens[at] != 100) + 1] for tokens in super().__call__(chunks)]

    def decode(self, tokens: list[list[int]]) -> Any:
        return super().decode([[*sequence, *[100] * (56 - len(sequence))] for sequence in tokens])


class Outside(Rounder):
    vocab_size = 150


class Negative(Rounder):
    def __call__(self, chunks: Any) -> list[list[int]]:
        return [[token - 100 for token in tokens] for tokens in super().__call__(chunks)]


class Endless(Rounder):
    """NaN for chunks that begin above the middle, a wrong shape for one alone that begins with 0."""

    def decode(self, tokens: list[list[int]]) -> Any:
        found = super().decode(tokens)
        found[[sequence[0] > 100 for sequence in tokens]] = np.nan
        return found


class Flat(Rounder):
    def decode(self, tokens: list[list[int]]) -> Any:
        return super().decode(tokens).reshape(len(tokens), -1)


def codec_of(tokenizer: Any) -> BroughtCodec:
    return BroughtCodec("made", tokenizer, NORMALISER, (8, 7))


class TestCodec:
    def test_a_good_one_is_measured_as_any_other(self) -> None:
        codec = codec_of(Rounder())
        tokens = codec.encode(TRAIN)
        assert np.abs(codec.decode(tokens) - TRAIN).max() <= 2 * 0.005 + 1e-9
        assert codec.bits(tokens) == pytest.approx(56 * np.log2(201))
        assert codec.faults(TRAIN) == Faults(64, 0, 0, 0, 0, 0)

    def test_fasts_own_interface_fits_on_the_class_and_varies_in_length(self) -> None:
        codec = fit_brought("fast_style:FastStyleTokenizer", TRAIN, NORMALISER)
        assert isinstance(codec.tokenizer, FastStyleTokenizer)
        tokens = codec.encode(TRAIN)
        assert codec.vocabulary == codec.tokenizer.vocab_size
        assert codec.bits(tokens) == pytest.approx(tokens.lengths.mean() * np.log2(codec.vocabulary))
        assert codec.faults(TRAIN) == Faults(64, 0, 0, 0, 0, 0)
        assert np.abs(codec.decode(tokens) - TRAIN).max() < 0.5

    def test_one_chunk_that_fails_spoils_no_other(self, tmp_path: Path) -> None:
        path = tmp_path / "stranger.py"
        path.write_text(STRANGER, encoding="utf8")
        codec = fit_brought(str(path), TRAIN, NORMALISER)
        tokens = codec.encode(TRAIN)
        fails = tokens.codes[:, 0] == 15
        assert codec.faults(TRAIN) == Faults(64, 0, int(fails.sum()), 0, 0, 0)
        decoded = codec.decode(tokens)
        assert 0 < fails.sum() < 64
        assert np.abs(decoded[~fails] - TRAIN[~fails]).max() <= 4 / 15 / 2 + 1e-9
        assert (decoded[fails] == 0).all()

    @pytest.mark.parametrize(
        ("tokenizer", "fault"),
        [
            (Remembering(), "state"),
            (Outside(), "outside_vocabulary"),
            (Negative(), "outside_vocabulary"),
            (Flat(), "shape"),
        ],
    )
    def test_faults_are_counted_by_their_kind(self, tokenizer: Any, fault: str) -> None:
        found = codec_of(tokenizer).faults(TRAIN)
        assert getattr(found, fault) > 32
        assert sum(found.as_json().values()) >= 64 + getattr(found, fault)

    def test_what_is_not_finite_is_the_middle_of_the_range(self) -> None:
        codec = codec_of(Endless())
        tokens = codec.encode(TRAIN)
        above = tokens.codes[:, 0] > 100
        assert codec.faults(TRAIN) == Faults(64, 0, 0, 0, int(above.sum()), 0)
        assert (codec.decode(tokens)[above] == 0).all()
        assert np.isfinite(codec.decode(tokens)).all()

    def test_a_memory_of_what_was_encoded_helps_nobody(self) -> None:
        codec = codec_of(Remembering())
        assert (codec.decode(codec.encode(TRAIN)) == 0).all()
        assert codec.faults(TRAIN) == Faults(64, 0, 64, 0, 0, 64)


class TestOtherProcesses:
    """Which have none of its class until they load it."""

    def test_have_it_by_its_file(self, tmp_path: Path) -> None:
        path = tmp_path / "stranger.py"
        path.write_text(STRANGER, encoding="utf8")
        fit_brought(str(path), TRAIN, NORMALISER)
        codec = fit_brought(f"{path}:Rounder", TRAIN, NORMALISER)  # of the class that the first has loaded
        assert codec.can_be_sent()
        tokens = codec.encode(TRAIN)
        (tmp_path / "sent").write_bytes(pickle.dumps((codec, tokens)))
        program = "import pickle, sys; codec, tokens = pickle.load(open('sent', 'rb')); "
        program += "sys.stdout.buffer.write(pickle.dumps(codec.decode(tokens)))"
        found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True)
        assert np.array_equal(pickle.loads(found.stdout), codec.decode(tokens))

    def test_have_the_class_as_the_file_is_now(self, tmp_path: Path) -> None:
        path = tmp_path / "changing.py"
        for size in (17, 18):
            path.write_text(STRANGER.replace("17", str(size)), encoding="utf8")
            codec = fit_brought(str(path), TRAIN, NORMALISER)
            assert codec.can_be_sent()
            assert pickle.loads(pickle.dumps(codec)).vocabulary == size

    def test_cannot_have_what_cannot_be_pickled(self) -> None:
        tokenizer = Rounder()
        assert codec_of(tokenizer).can_be_sent()
        tokenizer.helper = lambda: None  # type: ignore[attr-defined]
        assert not codec_of(tokenizer).can_be_sent()
        assert codec_of(tokenizer).faults(TRAIN) == Faults(64, 0, 0, 0, 0, 0)


class Squares(Rounder):
    """A token's part hangs on the one before it."""

    def decode(self, tokens: list[list[int]]) -> Any:
        found = super().decode(tokens)
        found[:, 1:] *= found[:, :-1]
        return found


class Fails(Rounder):
    """On a value that is rare at random."""

    def decode(self, tokens: list[list[int]]) -> Any:
        if any(sequence[3] == 200 and sequence[4] == 0 for sequence in tokens):
            raise ValueError("not this one")
        return super().decode(tokens)


class TestExpectedValues:
    def expected(self, tokenizer: Any, *sequences: tuple[int, float]) -> Any:
        """Of tokens that all are the first of these values or the second, with these probabilities."""
        even = np.zeros((1, 56, tokenizer.vocab_size))
        for value, share in sequences:
            even[..., value] = share
        found = replace(codec_of(tokenizer), lengths=(56, 56)).expected(even)
        return None if found is None else NORMALISER.normalise(found)

    def test_are_the_mean_of_what_tokens_stand_for(self) -> None:
        assert self.expected(Rounder(), (150, 1.0)) == pytest.approx(np.full((1, 8, 7), 0.5))
        assert self.expected(Rounder(), (150, 0.25), (50, 0.75)) == pytest.approx(np.full((1, 8, 7), -0.25))

    def test_of_certain_tokens_are_their_decode(self) -> None:
        codec = replace(codec_of(Rounder()), lengths=(56, 56))
        tokens = codec.encode(TRAIN)
        assert codec.expected(np.eye(201)[tokens.codes]) == pytest.approx(codec.decode(tokens), abs=1e-9)

    @pytest.mark.parametrize("tokenizer", [Squares(), Fails(), Remembering(), Flat()])
    def test_are_none_where_a_tokens_part_hangs_on_others_or_some_do_not_decode(self, tokenizer: Any) -> None:
        assert self.expected(tokenizer, (150, 1.0)) is None


class TestLengths:
    def test_are_those_of_the_shortest_and_longest_train_chunk(self, tmp_path: Path) -> None:
        train = TRAIN.copy()
        train[:3, 2:] = 0
        spec = f"{__name__}:"
        fixed, varying = (fit_brought(spec + name, train, NORMALISER) for name in ("Rounder", "Shorter"))
        assert (fixed.lengths, fixed.varies) == ((56, 56), False)
        assert varying.lengths[0] <= 14 < varying.lengths[1] <= 56
        assert varying.varies


class TestLoading:
    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ("nowhere", "no such folder or file"),
            ("nowhere.py", "no such file"),
            ("no_such_package:Class", "ModuleNotFoundError"),
            ("fast_style:Nothing", "has no Nothing"),
            ("fractions:Fraction", "has no __call__"),
        ],
    )
    def test_what_cannot_be_used_is_one_sentence(self, spec: str, words: str) -> None:
        with pytest.raises(InputError, match=words) as error:
            fit_brought(spec, TRAIN, NORMALISER)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("1 / 0", "ZeroDivisionError"),
            ("x = 1", "holds 0 classes"),
            ("class A:\n  def __call__(self, x): ...\n  def decode(self, x): ...\n", "vocab_size is None"),
            (
                "class A:\n  def __init__(self, size): ...\n  def __call__(self, x): ...\n  def decode(self, x): ...",
                "TypeError",
            ),
        ],
    )
    def test_a_file_that_does_not_hold_one_is_one_sentence(self, code: str, words: str, tmp_path: Path) -> None:
        path = tmp_path / f"made_{abs(hash(code))}.py"
        path.write_text(textwrap.dedent(code), encoding="utf8")
        with pytest.raises(InputError, match=words):
            fit_brought(str(path), TRAIN, NORMALISER)

    def test_a_folder_is_loaded_only_where_its_code_is_trusted(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--trust-remote-code"):
            load(str(tmp_path))
        with pytest.raises(InputError, match="loading it raises"):
            load(str(tmp_path), trust_remote_code=True)

    @pytest.mark.parametrize(
        ("tokenizer", "words"),
        [
            (lambda chunks: 1 / 0, "encoding raises ZeroDivisionError"),
            (lambda chunks: [[1]], "1 sequences for 64 chunks"),
        ],
    )
    def test_what_cannot_encode_is_told(self, tokenizer: Any, words: str) -> None:
        with pytest.raises(InputError, match=words):
            codec_of(tokenizer).encode(TRAIN)
