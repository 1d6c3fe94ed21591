"""An OAT network of pat-vla, a third party's, behind FAST's interface and trained briefly: as a stranger brings it.

Importing the package whole fails on Python 3.11, for a mutable default of a dataclass; its networks import by
themselves, once the packages around them are there without running their own code.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from types import ModuleType
from typing import Any

import numpy as np
import torch

LEVELS, REGISTERS = [8, 5, 5, 5], 8
WIDTH, HEAD_WIDTH, DEPTH = 64, 32, 2
BATCHES, BATCH = 300, 128


def _bare_packages() -> None:
    root = distribution("pat-vla").locate_file("pat")
    for name in ("pat", "pat.models", "pat.models.oat"):
        bare = ModuleType(name)
        bare.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules.setdefault(name, bare)


_bare_packages()
from pat.models.oat.decoder import SinglePassDecoder  # noqa: E402
from pat.models.oat.encoder import RegisterEncoder  # noqa: E402
from pat.models.oat.fsq import FSQ  # noqa: E402


class OatTokenizer:
    vocab_size = int(np.prod(LEVELS))

    def fit(self, chunks: Any) -> OatTokenizer:
        torch.manual_seed(0)
        data = torch.from_numpy(np.asarray(chunks)).float()
        count, steps, width = data.shape
        self.fsq = FSQ(LEVELS)
        self.encoder = RegisterEncoder(width, steps, WIDTH, HEAD_WIDTH, DEPTH, 0.0, len(LEVELS), REGISTERS)
        self.decoder = SinglePassDecoder(
            width, steps, WIDTH, HEAD_WIDTH, DEPTH, 0.0, "uniform", False, len(LEVELS), REGISTERS
        )
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        for _ in range(BATCHES):
            batch = data[torch.randint(count, (BATCH,))]
            loss = ((self.decoder(self.fsq(self.encoder(batch))[0]) - batch) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for part in (self.encoder, self.decoder, self.fsq):
            part.eval()
        return self

    @torch.no_grad()
    def __call__(self, chunks: Any) -> list[list[int]]:
        return self.fsq(self.encoder(torch.from_numpy(np.asarray(chunks)).float()))[1].tolist()

    @torch.no_grad()
    def decode(self, tokens: list[list[int]]) -> Any:
        return self.decoder(self.fsq.indices_to_embedding(torch.tensor(tokens))).numpy()
