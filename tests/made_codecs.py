"""What codecs are made from, of models that nobody has trained."""

from __future__ import annotations

import torch
from small_runs import make_dataset
from torch import nn

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Conditioning
from workbook.codecs.catalogue import Fitting, Network, catalogue
from workbook.codecs.chunk_transformers import MANNERS, ChunkTransformer
from workbook.codecs.learned import QUANTIZERS, LearnedAE
from workbook.codecs.other_decoder import ChunkDecoder
from workbook.codecs.rfsq import RFSQCodec
from workbook.data.dataset import Dataset

LATENTS, LAYERS, LEVELS = 6, 4, 5
ONLY_IN_FULL = {"oat", "quest"}  # entries that have no settings otherwise
LISTED = [name for name in catalogue() if name not in ONLY_IN_FULL]


def make_model(conditioning: Conditioning, seed: int = 0, width: int = 7, latents: int = LATENTS) -> ActionRFSQAE:
    torch.manual_seed(seed)
    return ActionRFSQAE(width, latents, LAYERS, LEVELS, conditioning=conditioning).eval()


def rfsq_codecs(dataset: Dataset | None = None, seeds: int = 1) -> dict[Conditioning, list[RFSQCodec]]:
    normaliser = (dataset or make_dataset()).normaliser
    width = len(normaliser.low)
    return {
        name: [RFSQCodec(name, make_model(name, seed, width), normaliser) for seed in range(seeds)]
        for name in CONDITIONINGS
    }


def make_fitting(dataset: Dataset | None = None, seeds: int = 1, full: bool = False) -> Fitting:
    """All that the catalogue needs."""
    dataset = dataset or make_dataset()
    rfsq = rfsq_codecs(dataset, seeds)
    networks = {
        network: [_network(network, dataset, seed) for seed in range(seeds)]
        for entry in catalogue().values()
        for network in entry.networks(full)
    }
    steps = dataset.chunk_len
    decoders: dict[str, list[nn.Module]] = {
        "step": [codec.model for codec in rfsq["none"]],
        "chunk": [ChunkDecoder(codec.model, steps) for codec in rfsq["none"]],
    }
    return Fitting(dataset, rfsq, networks, decoders, full=full)


def _network(network: Network, dataset: Dataset, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    width = dataset.layout.dim * (dataset.chunk_len if network.unit == "chunk" else 1)
    for quantizer in QUANTIZERS:
        if network.quantizer == quantizer:
            return LearnedAE(quantizer, width, LATENTS).eval()
    for manner in MANNERS:
        if network.quantizer == manner:
            steps, dim = dataset.chunk_len, dataset.layout.dim
            return ChunkTransformer(manner, steps, dim, network.steps_a_token).eval()
    conditioning = next(name for name in CONDITIONINGS if name == network.quantizer)
    sizes = network.hidden_dim or LATENTS, LAYERS, network.num_levels or LEVELS
    return ActionRFSQAE(width, *sizes, conditioning=conditioning).eval()
