"""The small models that 00_look_inside plays with; `python -m workbook.training.look_inside` makes them anew."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rfsq_robust import ActionRFSQAE, Checkpoint, Conditioning, save_checkpoint
from workbook.common.paths import NOTEBOOKS, replacing
from workbook.common.terminal import tell
from workbook.data.dataset import Dataset, prepare_dataset
from workbook.training.data import TrainData
from workbook.training.trainer import Job, TrainConfig, train

FOLDER = NOTEBOOKS / "look_inside"
CODECS: dict[str, Conditioning] = {"naive": "none", "fixed_scale": "scale", "layernorm": "layernorm"}
POLICY = "policy.pt"
CONFIG = TrainConfig(epochs=60)
POLICY_STEPS, POLICY_BATCH = 1_500, 64
HIDDEN = 48


class SmallPolicy(nn.Module):
    """First layer's codes of the next chunk, from the chunk before: (N, C, A) -> logits (N, C, H, levels)."""

    def __init__(self, chunk_len: int = 8, action_dim: int = 7, latents: int = 16, levels: int = 7) -> None:
        super().__init__()
        self.shape = (chunk_len, latents, levels)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(chunk_len * action_dim, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, chunk_len * latents * levels),
        )

    def forward(self, before: Tensor) -> Tensor:
        return self.layers(before).unflatten(-1, self.shape)


def load_policy() -> SmallPolicy:
    policy = SmallPolicy()
    policy.load_state_dict(torch.load(FOLDER / POLICY, weights_only=True))
    return policy.eval()


def pairs(dataset: Dataset, part: str) -> tuple[Tensor, Tensor]:
    """(N, C, A) normalised chunks, and those that follow them in the same episode."""
    length, before, after = dataset.chunk_len, [], []
    for episode in dataset.part(part):
        actions = torch.from_numpy(dataset.normaliser.normalise(episode.actions)).float()
        chunks = actions[: len(actions) // length * length].unflatten(0, (-1, length))
        before.append(chunks[:-1])
        after.append(chunks[1:])
    return torch.cat(before), torch.cat(after)


def make() -> str:
    """Train and write three codecs, and a policy of the naive one's tokens."""
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    dataset = prepare_dataset("sample").dataset
    data = TrainData.of(dataset)
    bounds = {"min": torch.from_numpy(dataset.normaliser.low), "max": torch.from_numpy(dataset.normaliser.high)}
    for name, conditioning in CODECS.items():
        trained = train(CONFIG, Job(conditioning, 0), data)
        save_checkpoint(
            FOLDER / f"{name}.pt", Checkpoint(trained.model, trained.epoch, trained.mse, bounds, {"seed": 0})
        )
        if name == "naive":
            policy = _train_policy(dataset, trained.model)
    with replacing(FOLDER / POLICY) as temporary:
        torch.save(policy.state_dict(), temporary)
    return f"written: {FOLDER}"


def _train_policy(dataset: Dataset, codec: ActionRFSQAE) -> SmallPolicy:
    before, after = pairs(dataset, "train")
    codes = codec.encode(after)[..., 0]
    torch.manual_seed(0)
    policy, generator = SmallPolicy(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(POLICY_STEPS):
        batch = torch.randint(len(before), (POLICY_BATCH,), generator=generator)
        loss = cross_entropy(policy(before[batch]).flatten(0, -2), codes[batch].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy.eval()


if __name__ == "__main__":
    sys.exit(tell(make, str(FOLDER)))
