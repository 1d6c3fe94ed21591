"""A tokenizer that somebody brings: loaded by its name, fitted, and put behind the codec protocol.

It has FAST's interface: calling it with (N, C, A) chunks in [-1, 1] gives N lists of tokens, `decode` takes such lists
and gives (N, C, A) back, `vocab_size` says how many values a token has, and `fit`, where there is one, takes the train
chunks. Its faults are counted, and a chunk that it cannot decode is the middle of the range.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import inspect
import pickle
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workbook.codecs.protocol import NOT_SENT, Tokens
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.paths import expand
from workbook.data.chunks import Normaliser

SAME_DECODE = 1e-6  # in normalised units, between two decodes of the same tokens
SWAPPED = 32  # pairs of sequences
HOW = "name it as package.module:Class, path/to/file.py:Class, or a folder that save_pretrained wrote"

Sequences = list[list[int]]


@dataclass(frozen=True)
class Faults:
    """Chunks of those that were tried of which the codec did something that a policy would meet.

    outside_vocabulary: a token is negative, or not below `vocab_size`; raised: decoding raised; shape: it gave another
    shape; not_finite: it gave NaN or infinity; state: a fresh copy, in another order, decoded otherwise.
    """

    chunks: int
    outside_vocabulary: int
    raised: int
    shape: int
    not_finite: int
    state: int

    def as_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class BroughtCodec:
    """A fitted tokenizer behind the codec protocol.

    tokenizer: as it was fitted; where it is `copied`, copies of it do the work, so that none remembers what another has
    encoded. shape: (C, A) of a chunk; lengths: tokens of the shortest and of the longest train chunk; source: what it
    was loaded from, so that another process finds its class.
    """

    name: str
    tokenizer: Any
    normaliser: Normaliser
    shape: tuple[int, int]
    copied: bool = True
    lengths: tuple[int, int] = (0, 0)
    source: str = ""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"tokenizer": pickle.dumps(self.tokenizer)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["source"]:
            load(state["source"], trust_remote_code=True)  # as it was where this comes from
        vars(self).update(state | {"tokenizer": pickle.loads(state["tokenizer"])})  # of our own process

    @property
    def varies(self) -> bool:
        """Whether chunks differ in length."""
        return self.lengths[0] < self.lengths[1]

    @property
    def vocabulary(self) -> int:
        return vocabulary_of(self.tokenizer, self.name)

    def encode(self, chunks: Array) -> Tokens:
        """Raises InputError where the tokenizer raises, or gives another number of sequences than chunks."""
        return self._encode(self._fresh(), chunks)

    def decode(self, tokens: Tokens) -> Array:
        decoded, _ = self._decode(self._fresh(), _lists(tokens))
        return self.normaliser.denormalise(decoded)

    def bits(self, tokens: Tokens) -> float:
        return float(tokens.lengths.mean() * np.log2(self.vocabulary))

    def malformed(self, tokens: Tokens) -> NDArray[np.bool_]:
        """(N,) which sequences it does not decode, or makes nothing but zeros of, as FAST does where it fails."""
        decoded, found = self._decode(self._fresh(), _lists(tokens))
        return np.array([bool(problem) for problem in found]) | ~decoded.any(axis=(1, 2))

    def expected(self, probabilities: Array) -> Array | None:
        """(N, J, values) of sequences as long as all -> (N, C, A); None where a token's part hangs on the others."""
        if self._parts is None:
            return None
        nothing, parts = self._parts
        decoded = nothing + probabilities.reshape(len(probabilities), -1) @ parts
        return self.normaliser.denormalise(decoded.reshape(-1, *self.shape))

    @cached_property
    def _parts(self) -> tuple[Array, Array] | None:
        """The decode of zeros (C * A,), and what each value at each place adds to it, or to any other: (J * L, C * A).

        That it is any other is seen by swapping tokens of random sequences: the sum of two decodes stays.
        """
        rng, (length, values) = np.random.default_rng(0), (self.lengths[1], self.vocabulary)
        one, other = rng.integers(0, values, (2, SWAPPED, length))
        swaps = rng.random(one.shape) < 0.5
        swapped = np.where(swaps, one, other), np.where(swaps, other, one)
        decoded, found = self._decode(self._fresh(), np.concatenate([one, other, *swapped]).tolist())
        before, after = decoded.reshape(2, 2, SWAPPED, -1).sum(axis=1)
        if any(found) or np.abs(before - after).max() > SAME_DECODE:
            return None
        every = np.zeros((1 + length * values, length), dtype=np.int64)
        place, value = np.divmod(np.arange(length * values), values)
        every[1 + np.arange(length * values), place] = value
        decoded, found = self._decode(self._fresh(), every.tolist())
        nothing, *others = decoded.reshape(len(every), -1)
        return None if any(found) else (nothing, np.stack(others) - nothing)

    def can_be_sent(self) -> bool:
        """Whether another process can be given it."""
        try:
            pickle.loads(pickle.dumps(self))
        except Exception:  # whatever a stranger's code raises
            return False
        return True

    def without_copies(self) -> BroughtCodec:
        """The same on one copy of its own, as who uses it would: copying takes time that is not the tokenizer's."""
        return replace(self, tokenizer=self._fresh(), copied=False)

    def faults(self, chunks: Array) -> Faults:
        """What goes wrong with these (N, C, A) chunks."""
        encoder, order = self._fresh(), np.random.default_rng(0).permutation(len(chunks))
        tokens = self._encode(encoder, chunks)
        sequences = _lists(tokens)
        known, _ = self._decode(encoder, sequences)  # by the copy that has just encoded them, in their order
        shuffled, found = self._decode(self._fresh(), [sequences[i] for i in order])
        differs = np.abs(known[order] - shuffled).reshape(len(chunks), -1).max(axis=1, initial=0) > SAME_DECODE
        return Faults(
            chunks=len(chunks),
            outside_vocabulary=int((tokens.codes >= self.vocabulary).any(axis=1).sum()),
            raised=found.count("raised"),
            shape=found.count("shape"),
            not_finite=found.count("not_finite"),
            state=int(differs.sum()),
        )

    def _fresh(self) -> Any:
        return copy.deepcopy(self.tokenizer) if self.copied else self.tokenizer

    def _encode(self, tokenizer: Any, chunks: Array) -> Tokens:
        try:
            given = tokenizer(self.normaliser.normalise(chunks))
            sequences = [list(map(int, np.ravel(_plain(each)))) for each in given]
        except Exception as error:  # whatever a stranger's code raises
            raise InputError(f"--codec {self.name}: encoding raises {_named(error)}; mend it there") from None
        if len(sequences) != len(chunks):
            found = f"gives {len(sequences)} sequences for {len(chunks)} chunks"
            raise InputError(f"--codec {self.name}: {found}; give one for each")
        codes = np.full((len(chunks), max(map(len, sequences), default=0)), NOT_SENT, dtype=np.int64)
        for row, tokens in zip(codes, sequences, strict=True):
            # A negative token would look like one that is not sent.
            row[: len(tokens)] = [token if token >= 0 else self.vocabulary for token in tokens]
        return Tokens(codes, shared_alphabet=True)

    def _decode(self, tokenizer: Any, sequences: Sequences) -> tuple[Array, list[str]]:
        """Normalised chunks, and for each what went wrong or ''. One that fails alone spoils no other."""
        together, problem = self._try(tokenizer, sequences)
        if not problem:
            return together, [""] * len(sequences)
        parts = [self._try(tokenizer, [sequence]) for sequence in sequences]
        decoded = [part if not problem else np.zeros((1, *self.shape)) for part, problem in parts]
        return np.concatenate(decoded), [problem for _, problem in parts]

    def _try(self, tokenizer: Any, sequences: Sequences) -> tuple[Array, str]:
        try:
            given = tokenizer.decode(sequences, **self._shape_arguments(tokenizer))
            found = np.asarray(_plain(given), dtype=np.float64)
        except Exception:  # whatever a stranger's code raises
            return np.empty(0), "raised"
        if found.shape != (len(sequences), *self.shape):
            return np.empty(0), "shape"
        return found, "" if np.isfinite(found).all() else "not_finite"

    def _shape_arguments(self, tokenizer: Any) -> dict[str, int]:
        """FAST's decoder is told the shape of a chunk, and else takes that of the last call."""
        known = inspect.signature(tokenizer.decode).parameters
        shape = {"time_horizon": self.shape[0], "action_dim": self.shape[1]}
        return {name: value for name, value in shape.items() if name in known}


def fit_brought(spec: str, train: Array, normaliser: Normaliser, trust_remote_code: bool = False) -> BroughtCodec:
    """Load, fit on (N, C, A) train chunks in controller units where it can be fitted, and look at its interface.

    Raises:
        InputError: it is not there, cannot be made or fitted, lacks a part of the interface, or cannot encode.
    """
    found, normalised = load(spec, trust_remote_code), normaliser.normalise(train)
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # every stage fits it, to the same
        seed(0)
    try:
        tokenizer = _fitted(found, normalised)
    except Exception as error:  # whatever a stranger's code raises
        raise InputError(f"--codec {spec}: making and fitting it raises {_named(error)}; mend it there") from None
    for name, part in (("__call__", "called with chunks"), ("decode", "decoded")):
        if not callable(getattr(tokenizer, name, None)):
            raise InputError(f"--codec {spec}: has no {name}, so nothing can be {part}; give it FAST's interface")
    vocabulary_of(tokenizer, spec)
    shape = train.shape[1], train.shape[2]
    codec = BroughtCodec(type(tokenizer).__name__, tokenizer, normaliser, shape, source=spec)
    lengths = codec.encode(train).lengths
    return replace(codec, lengths=(int(lengths.min()), int(lengths.max())))


def fit_all(specs: Sequence[str], train: Array, normaliser: Normaliser, trust_remote_code: bool) -> list[BroughtCodec]:
    """As `fit_brought`, each under a name of its own."""
    found = [fit_brought(spec, train, normaliser, trust_remote_code) for spec in specs]
    names = [codec.name for codec in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"--codec: two of them are called {twice}; give their classes names of their own")
    return found


def _fitted(found: Any, normalised: Array) -> Any:
    """A class's `fit` may belong to the class, as FAST's does, or to an instance, and give a tokenizer or nothing."""
    fit = getattr(found, "fit", None)
    if inspect.isclass(found) and not inspect.ismethod(fit):
        found = found()
        fit = getattr(found, "fit", None)
    fitted = fit(normalised) if callable(fit) else None
    return found if fitted is None else fitted


def vocabulary_of(tokenizer: Any, name: str) -> int:
    size = getattr(tokenizer, "vocab_size", None)
    size = size() if callable(size) else size
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 2:
        raise InputError(f"--codec {name}: its vocab_size is {size!r}; say how many values a token has, to count bits")
    return int(size)


def load(spec: str, trust_remote_code: bool = False) -> Any:
    """The class or object that a spec names.

    Raises:
        InputError: it is not there, or is a folder whose code is not trusted.
    """
    path, _, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    place = expand(path)
    if place.is_dir():
        return _from_folder(place, trust_remote_code)
    if place.suffix == ".py":
        if not place.is_file():
            raise InputError(f"--codec {place}: there is no such file; {HOW}")
        return _named_in(_module_of(place, place.stat().st_mtime_ns), name, spec)
    if not name:
        raise InputError(f"--codec {spec}: there is no such folder or file; {HOW}")
    try:
        module = importlib.import_module(path)
    except Exception as error:  # whatever a stranger's code raises
        raise InputError(f"--codec {spec}: importing {path} raises {_named(error)}; install it, or {HOW}") from None
    return _named_in(module, name, spec)


def _from_folder(folder: Path, trust_remote_code: bool) -> Any:
    if not trust_remote_code:
        raise InputError(
            f"--codec {folder}: loading it runs the code in this folder; say --trust-remote-code to let it"
        )
    try:
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(folder), trust_remote_code=True, local_files_only=True)
    except Exception as error:  # whatever a stranger's code raises
        raise InputError(f"--codec {folder}: loading it raises {_named(error)}; {HOW}") from None


@cache
def _module_of(path: Path, changed_at: int) -> ModuleType:
    """One for each state of a file, so that what is pickled is of the class that its module has."""
    own_name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"  # the same in every process
    made = importlib.util.spec_from_file_location(own_name, path)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules[own_name] = module  # so that a copy finds its class
    try:
        made.loader.exec_module(module)
    except Exception as error:  # whatever a stranger's code raises
        raise InputError(f"--codec {path}: running it raises {_named(error)}; mend it there") from None
    return module


def _named_in(module: ModuleType, name: str, spec: str) -> Any:
    if name:
        if not hasattr(module, name):
            raise InputError(f"--codec {spec}: it has no {name}; name a class that is there")
        return getattr(module, name)
    own = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]
    fitting = [each for each in own if hasattr(each, "decode") and "__call__" in vars(each)]
    if len(fitting) != 1:
        raise InputError(f"--codec {spec}: holds {len(fitting)} classes with decode; name one as {spec}:Class")
    return fitting[0]


def _lists(tokens: Tokens) -> Sequences:
    return [codes[sent].tolist() for codes, sent in zip(tokens.codes, tokens.sent, strict=True)]


def _plain(values: Any) -> Any:
    """Of a tensor, an array."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def _named(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__
