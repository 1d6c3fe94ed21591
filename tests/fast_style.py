"""A FAST-style tokenizer with the interface that Physical Intelligence published, around the workbook's `FastCodec`.

As in their `processing_action_tokenizer.py`: calling it gives a list of lists of ids, `decode` takes the shape as
keywords, `fit` is a class method that is also called on an instance, and a folder is saved and loaded. Unlike theirs
it takes raw actions: the normaliser is inside.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from made_up import Array
from tokenizers import Tokenizer

from workbook.codecs.fast import FastCodec
from workbook.codecs.protocol import NOT_SENT, Tokens
from workbook.data.chunks import Normaliser

CONFIG = "processor_config.json"
BPE = "tokenizer.json"


class FastStyleTokenizer:
    def __init__(self, codec: FastCodec) -> None:
        self.codec = codec
        self.time_horizon, self.action_dim = codec.shape

    @property
    def vocab_size(self) -> int:
        return self.codec.vocabulary

    @classmethod
    def fit(cls, action_data: Array | list[Array], scale: float = 10) -> FastStyleTokenizer:
        """(N, T, D) chunks, or a list of N (T, D)."""
        chunks = np.stack(list(action_data))
        return cls(FastCodec.fit(chunks, Normaliser.fit(chunks.reshape(-1, chunks.shape[-1])), scale))

    def __call__(self, action_chunk: Array) -> list[list[int]]:
        assert action_chunk.ndim <= 3, "Only 3 dimensions supported: [batch, timesteps, action_dim]"
        tokens = self.codec.encode(action_chunk.reshape(-1, *action_chunk.shape[-2:]))
        return [codes[sent].tolist() for codes, sent in zip(tokens.codes, tokens.sent, strict=True)]

    def decode(
        self, tokens: list[list[int]], *, time_horizon: int | None = None, action_dim: int | None = None
    ) -> Array:
        """What does not decode to a whole chunk becomes zeros; another shape than that of `fit` is not known here."""
        assert time_horizon in (None, self.time_horizon)
        assert action_dim in (None, self.action_dim)
        codes = np.full((len(tokens), max(map(len, tokens))), NOT_SENT, dtype=np.int64)
        for row, ids in zip(codes, tokens, strict=True):
            row[: len(ids)] = ids
        return self.codec.decode(Tokens(codes, shared_alphabet=True))

    def save_pretrained(self, save_directory: str | Path) -> None:
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        codec = self.codec
        config = {
            "scale": codec.scale,
            "shape": codec.shape,
            "range": [codec.low, codec.high],
            "clips": codec.clips,
            "normaliser": [codec.normaliser.low.tolist(), codec.normaliser.high.tolist()],
        }
        (folder / BPE).write_text(codec.tokenizer.to_str(), encoding="utf8")
        (folder / CONFIG).write_text(json.dumps(config), encoding="utf8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_: Any) -> FastStyleTokenizer:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf8"))
        normaliser = Normaliser(*map(np.array, config["normaliser"]))
        steps, dimensions = config["shape"]
        bpe = Tokenizer.from_str((Path(folder) / BPE).read_text(encoding="utf8"))
        return cls(FastCodec(normaliser, config["scale"], (steps, dimensions), *config["range"], bpe, config["clips"]))
