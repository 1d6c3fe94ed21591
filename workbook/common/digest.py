"""A hash of whatever can be pickled that is the same in every process."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any


def digest(value: object) -> str:
    """sha256 of the pickle, in which a tensor stands as what it holds: torch's names where it lies in memory, too."""
    import torch  # which takes seconds, and whoever starts jobs may need none

    class ByContent(pickle.Pickler):
        def reducer_override(self, each: object) -> Any:
            if not isinstance(each, torch.Tensor):
                return NotImplemented
            held = each.detach().cpu().contiguous()
            raw = held.reshape(-1).view(torch.uint8).numpy().tobytes()
            return bytes, (
                f"{type(each).__name__} {each.dtype} {tuple(each.shape)} {each.requires_grad}".encode() + raw,
            )

    hashed = _Hashed()
    ByContent(hashed, protocol=4).dump(value)
    return hashed.sha256.hexdigest()


class _Hashed:
    """A file of which only the hash is kept."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return len(data)
