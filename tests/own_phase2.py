"""A file of predictions made by this project's own Phase 2: a draft and a main model, trained on what the probe sees.

    python tests/own_phase2.py rfsq_robust_scale_best.pt predictions.pt 2000

trains them for 2,000 batches each on the sample's train episodes, without a simulator, and writes what they predict of
the test episodes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbook.codecs.rfsq import load_codec
from workbook.codecs.token_spaces import StepRFSQ
from workbook.common.targets import COARSE_LAYERS
from workbook.data.config import DataConfig
from workbook.data.dataset import Dataset, prepare_dataset
from workbook.evaluation.loop.phase2 import ParallelHeads
from workbook.evaluation.loop.play import LoopConfig
from workbook.evaluation.loop.train import MAIN_SEEDS
from workbook.evaluation.policy.network import Observations, PolicyConfig, Standardiser, train_policy
from workbook.evaluation.predictions.judge import another_moment


@torch.no_grad()
def predictions_of(
    dataset: Dataset, checkpoint: Path, config: PolicyConfig, seed: int = 0, stride: int = 2
) -> dict[str, Any]:
    """As the file holds it: of moments of the test episodes, every `stride` steps."""
    length, normaliser = dataset.chunk_len, dataset.normaliser
    codec = load_codec(checkpoint, normaliser)
    space = StepRFSQ(codec, length, codec.model.rfsq.num_layers)
    tasks = sorted({episode.task for episode in dataset.episodes})
    train = Observations.of(dataset.part("train"), tasks, normaliser, length, min(2, length))
    standardise = Standardiser.fit(train.inputs)
    seen = standardise.apply(train.inputs)
    labels = [torch.from_numpy(layer) for layer in space.tokens(train.chunks)]
    torch.manual_seed(seed)
    sizes = seen.shape[1], space.groups
    draft = ParallelHeads(*sizes, space.sizes[:COARSE_LAYERS], config, given=False)
    main = ParallelHeads(*sizes, space.sizes, config, given=True)
    with torch.enable_grad():
        train_policy(draft, seen, labels[:COARSE_LAYERS], config, seed, lambda step: None)
        train_policy(main, seen, labels, config, seed + MAIN_SEEDS, lambda step: None)
    held_out = [Observations.of([episode], tasks, normaliser, length, stride) for episode in dataset.part("test")]
    inputs = torch.cat([standardise.apply(each.inputs) for each in held_out])
    actions = np.concatenate([each.chunks for each in held_out])
    counts = [len(each.inputs) for each in held_out]
    said = draft(inputs)
    coarse = [layer.argmax(-1) for layer in said]
    episode = np.repeat(np.arange(len(counts)), counts)
    done = [dataset.part("test")[number].task for number in episode]
    other = another_moment(np.unique(done, return_inverse=True)[1])
    return {
        "draft_logits": _flat(said),
        "main_logits": _flat(main(inputs, coarse)),
        "other_main_logits": _flat(main(inputs, [layer[other] for layer in coarse])[:COARSE_LAYERS]),
        "other": torch.from_numpy(other),
        "tokens": torch.from_numpy(np.stack(space.tokens(actions), axis=-1)),
        "actions": torch.from_numpy(actions),
        "episode": torch.from_numpy(episode),
        "task": done,
        "checkpoint": str(checkpoint.absolute()),
    }  # fmt: skip


def _flat(layers: list[Tensor]) -> Tensor:
    """(N, C, H, L) a layer -> (N, layers, C * H, L)"""
    return torch.stack(layers, dim=1).flatten(2, 3)


if __name__ == "__main__":
    made_from, written, batches = sys.argv[1:]
    policy = LoopConfig(loop_steps=int(batches)).policy
    torch.save(predictions_of(prepare_dataset("sample", DataConfig()).dataset, Path(made_from), policy), written)
