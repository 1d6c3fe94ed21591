"""What a codec's tokens cost the policy that predicts them, and Phase 3, beside bits.

tables/token_costs.parquet, of the test part: codec, setting, seed |

    tokens, dead      of a chunk; and of these, those that say next to nothing, as the layers of naive that are constant
    words             of a chunk: neighbouring tokens that one of at most 1,024 values could say
    bits              of a chunk
    entropy_bits      of a chunk if each code were stored at its empirical entropy
    mse, mse_wrong    in normalised units squared; and with one token of each chunk replaced by another value
    mse_first, mse_middle, mse_last
                      the same of a token in each third, of chunks that have one: thirds of the layers where steps have
                      residual layers, else of the chunk's sequence
    decodes           share of random sequences that decode: tokens even over their values, as many as chunks have
    overlap           share of live places at which the chunk that starts a step later has the same token
    border            median step of the motion where a chunk ends over that within chunks, of decoded actions
    border_truth      the same of the recorded actions
    encode_ms, decode_ms
                      CPU time of one chunk on one thread, of the first model: differs between machines and runs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbook.codecs.brought import BroughtCodec
from workbook.codecs.catalogue import Entry, Fitting
from workbook.codecs.protocol import NOT_SENT, Codec, Fallible, Tokens, code_entropy, entropy_bits, levels_of
from workbook.codecs.rfsq import DEAD_BELOW_BITS
from workbook.common.array import Array
from workbook.common.jobs import OnProgress
from workbook.common.timing import Call, time_in_turn
from workbook.data.chunks import Chunks, cut_chunks, join_chunks
from workbook.evaluation.score import HeldOut, seeds_of

WORD = 1024  # values of the largest word: FAST's vocabulary
SIDE_WORDS = 2  # that a float16 of side information takes: 65,536 values
TIMED = ("encode_ms", "decode_ms")
THIRDS = ("mse_first", "mse_middle", "mse_last")
RANDOM_SEQUENCES = 256
REPETITIONS, MOST_SECONDS = 5, 0.3  # of timing, and what those of one call may take together

Codes = NDArray[np.int64]


Costed = Mapping[tuple[str, str], Sequence[Codec]]  # codecs by entry and setting


def costed_codecs(fitting: Fitting, among: Sequence[Entry]) -> dict[tuple[str, str], Sequence[Codec]]:
    every = [(entry, setting) for entry in among for setting in entry.costed_at(fitting)]
    return {(entry.name, str(setting)): entry.codecs(fitting, setting) for entry, setting in every}


def token_costs(costed: Costed, test: HeldOut, seeds: Sequence[int], on_progress: OnProgress) -> pd.DataFrame:
    """The rows without their times; seeds: of the trained models, in order."""
    rows = []
    for done, ((name, setting), codecs) in enumerate(costed.items()):
        on_progress(done, len(costed))
        for codec, seed in zip(codecs, seeds_of(codecs, seeds), strict=True):
            rows.append({"codec": name, "setting": setting, "seed": seed} | costs_of(codec, test))
    on_progress(len(costed), len(costed))
    return pd.DataFrame(rows)


def latency(costed: Costed, test: HeldOut) -> pd.DataFrame:
    """Rows of codec and setting: what one chunk in the middle of the part takes, timed in turn."""
    middle = len(test.chunks.actions) // 2
    chunk = test.chunks.actions[middle : middle + 1]
    calls = {
        (*named, kind): call for named, codecs in costed.items() for kind, call in _calls(codecs[0], chunk).items()
    }
    timed = time_in_turn(calls, REPETITIONS, MOST_SECONDS)
    return pd.DataFrame([
        {"codec": name, "setting": setting} | {kind: 1000 * timed[name, setting, kind] for kind in TIMED}
        for name, setting in costed
    ])  # fmt: skip


def _calls(codec: Codec, chunk: Array) -> dict[str, Call]:
    if isinstance(codec, BroughtCodec):
        codec = codec.without_copies()
    tokens = codec.encode(chunk)
    return dict(zip(TIMED, (lambda: codec.encode(chunk), lambda: codec.decode(tokens)), strict=True))


def costs_of(codec: Codec, test: HeldOut) -> dict[str, Any]:
    """The row of one codec, without its name, setting and seed."""
    chunks = test.chunks
    tokens = codec.encode(chunks.actions)
    levels, dead = levels_of(codec, tokens), dead_places(tokens, chunks)
    decoded = codec.decode(tokens)
    wrong = codec.decode(one_wrong(tokens, levels, np.random.default_rng(0)))
    now, later = (_live(codec.encode(each), dead) for each in _a_step_apart(test))
    played, recorded = (
        [test.normaliser.normalise(episode)[:, test.layout.motion] for episode in join_chunks(chunks, each)]
        for each in (decoded, chunks.actions)
    )
    steps = chunks.actions.shape[1]
    return {
        "tokens": float(tokens.lengths.mean()),
        "dead": float((flat(tokens) != NOT_SENT)[:, dead].sum(axis=1).mean()),
        "words": float(words(tokens, levels).mean()),
        "bits": codec.bits(tokens),
        "entropy_bits": entropy_bits(tokens, chunks.valid),
        "mse": _mse(decoded, test),
        "mse_wrong": _mse(wrong, test),
        **{name: _mse_within(codec, tokens, levels, third, test) for third, name in enumerate(THIRDS)},
        "decodes": decodes(codec, random_tokens(tokens, levels, np.random.default_rng(0))),
        "overlap": overlap(now, later),
        "border": border(played, steps),
        "border_truth": border(recorded, steps),
    }


def _live(tokens: Tokens, dead: NDArray[np.bool_]) -> Codes:
    codes = flat(tokens).copy()
    codes[:, np.flatnonzero(dead)] = NOT_SENT
    return codes


def _a_step_apart(test: HeldOut) -> tuple[Array, Array]:
    """The chunks of every C-th step that have C steps more in front of them, and those that start a step later."""
    length = test.chunks.actions.shape[1]
    longer = cut_chunks([episode.actions for episode in test.episodes], length + 1, length)
    whole = longer.actions[longer.valid.all(axis=1)]
    return whole[:, :-1], whole[:, 1:]


def flat(tokens: Tokens) -> Codes:
    """The tokens of each chunk in the order in which they are sent: (N, J)."""
    return tokens.codes.reshape(len(tokens.codes), -1)


def dead_places(tokens: Tokens, chunks: Chunks) -> NDArray[np.bool_]:
    """Which places of a chunk say next to nothing, as a layer is dead: (J,). A shared alphabet has no such places."""
    shape = tokens.codes.shape[1:]
    if tokens.shared_alphabet:
        return np.zeros(shape, dtype=bool)
    return np.broadcast_to(code_entropy(tokens, chunks.valid) < DEAD_BELOW_BITS, shape).reshape(-1)


def words(tokens: Tokens, levels: Codes, most: int = WORD) -> Codes:
    """Words of each chunk, (N,): in their order, tokens share one while it has at most so many values.

    levels: (J,) values of each token. Tokens of a shared alphabet are words as they are. Side information is not
    packed with tokens.
    """
    if tokens.shared_alphabet:
        return tokens.lengths
    sent = flat(tokens) != NOT_SENT
    if sent.all():
        sent = sent[:1]  # every chunk's are alike
    count = np.zeros(len(sent), dtype=np.int64)
    values = np.full(len(sent), most + 1)  # of the word that is being filled: none is
    for here, size in zip(sent.T, levels, strict=True):
        opens = here & (values * size > most)
        count += opens
        values = np.where(opens, size, np.where(here, values * size, values))
    side = 0 if tokens.side is None else SIDE_WORDS * int(np.prod(tokens.side.shape[1:]))
    return np.broadcast_to(count + side, len(tokens.codes))


def one_wrong(
    tokens: Tokens, levels: Codes, rng: np.random.Generator, among: NDArray[np.bool_] | None = None
) -> Tokens:
    """Tokens of which one a chunk, drawn evenly from those that could be another, has any of its other values.

    among: (N, J) which places are drawn from; None for all.
    """
    codes = flat(tokens).copy()
    could = (codes != NOT_SENT) & (levels > 1)
    if among is not None:
        could &= among
    rows = np.flatnonzero(could.any(axis=1))
    places = np.where(could, rng.random(codes.shape), -1.0).argmax(axis=1)[rows]
    codes[rows, places] = (codes[rows, places] + rng.integers(1, levels[places])) % levels[places]
    return Tokens(codes.reshape(tokens.codes.shape), tokens.side, tokens.shared_alphabet)


def thirds(tokens: Tokens) -> Codes:
    """Which third each token belongs to, 0, 1 or 2: (N, J).

    Of codes (N, C, ..., K) of K residual layers a third of the layers; of others a third of each chunk's sequence.
    """
    codes = flat(tokens)
    if tokens.codes.ndim == 4:
        layers = tokens.codes.shape[-1]
        return np.broadcast_to(3 * (np.arange(codes.shape[1]) % layers) // layers, codes.shape)
    sent = codes != NOT_SENT
    place = (sent.cumsum(axis=1) - 1).clip(0)
    return 3 * place // sent.sum(axis=1, keepdims=True).clip(1)


def random_tokens(tokens: Tokens, levels: Codes, rng: np.random.Generator) -> Tokens:
    """Sequences of tokens that are even over their values, as long as those of chunks that are drawn.

    Where places have alphabets of their own all are filled, for the tokens themselves say how many count. Side
    information is that of the chunks.
    """
    drawn = rng.integers(len(tokens.codes), size=RANDOM_SEQUENCES)
    codes = rng.integers(0, levels, (RANDOM_SEQUENCES, len(levels)))
    if tokens.shared_alphabet:
        codes = np.where(flat(tokens)[drawn] == NOT_SENT, NOT_SENT, codes)
    side = None if tokens.side is None else tokens.side[drawn]
    return Tokens(codes.reshape(-1, *tokens.codes.shape[1:]), side, tokens.shared_alphabet)


def decodes(codec: Codec, tokens: Tokens) -> float:
    """Share of sequences that decode to finite actions."""
    if isinstance(codec, Fallible):
        return 1 - float(codec.malformed(tokens).mean())
    return float(np.isfinite(codec.decode(tokens)).all(axis=(1, 2)).mean())


def overlap(now: Codes, later: Codes) -> float:
    """Share of places of (N, J) codes that are the same in both; NaN without any.

    Where only one of the two has a token, they differ; where neither has one, there is no place. Sequences that are
    not equally long, (N, J) and (N, J'), end in nothing.
    """
    most = max(now.shape[1], later.shape[1])
    now, later = (np.pad(each, ((0, 0), (0, most - each.shape[1])), constant_values=NOT_SENT) for each in (now, later))
    either = (now != NOT_SENT) | (later != NOT_SENT)
    return float((now == later)[either].mean()) if either.any() else np.nan


def border(episodes: Sequence[Array], length: int) -> float:
    """Median of |a_t+1 - a_t|, summed over dimensions, where a chunk of so many steps ends, over that within chunks.

    episodes: (T, A). NaN where there is none of either, or nothing moves within chunks.
    """
    sizes = np.concatenate([np.abs(np.diff(episode, axis=0)).sum(axis=1) for episode in episodes])
    ends = np.concatenate([np.arange(1, len(episode)) % length == 0 for episode in episodes])
    inside = np.median(sizes[~ends]) if (~ends).any() else 0.0
    return float(np.median(sizes[ends]) / inside) if ends.any() and inside > 0 else np.nan


def _mse_within(codec: Codec, tokens: Tokens, levels: Codes, third: int, test: HeldOut) -> float:
    """Of chunks of which one token of a third is wrong; NaN where no chunk has one there."""
    wrong = one_wrong(tokens, levels, np.random.default_rng(0), thirds(tokens) == third)
    changed = (flat(wrong) != flat(tokens)).any(axis=1)
    return _mse(codec.decode(wrong), test, changed) if changed.any() else np.nan


def _mse(decoded: Array, test: HeldOut, among: NDArray[np.bool_] | slice = slice(None)) -> float:
    error = ((decoded - test.chunks.actions) / test.normaliser.half_width)[among]
    return float((error[test.chunks.valid[among]] ** 2).mean())
