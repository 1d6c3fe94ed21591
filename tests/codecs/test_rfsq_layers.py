"""How many RFSQ layers say something, and how many are enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_codecs import LAYERS, make_model
from small_runs import make_dataset

from rfsq_robust import Conditioning
from workbook.codecs.rfsq import RFSQCodec, dead_layers, enough, layers_enough, live_layers

HELD_OUT = make_dataset().held_out_chunks("validation")
CHUNKS, VALID = HELD_OUT.actions, HELD_OUT.valid
NORMALISER = make_dataset().normaliser


def silenced(*layers: int, seed: int = 0) -> RFSQCodec:
    """To these layers all that they get is next to nothing, and they always code it as 0."""
    model = make_model("scale", seed)
    for layer in layers:
        model.rfsq.quantizers[layer].geometric_scale = 1e6
    return RFSQCodec("scale", model, NORMALISER)


class TestEnough:
    @pytest.mark.parametrize(
        ("prefix_mse", "wanted"),
        [
            ([1.0, 0.5, 0.1], 3),
            ([1.0, 0.104, 0.1], 2),
            ([1.0, 0.106, 0.1], 3),
            ([0.1, 0.1, 0.1], 1),
            ([0.05, 0.5, 0.1], 1),
            ([0.3], 1),
            ([0.5, 0.0, 0.0], 2),
        ],
    )
    def test_by_hand(self, prefix_mse: list[float], wanted: int) -> None:
        assert enough(prefix_mse) == wanted

    @given(st.lists(st.floats(0, 10), min_size=1, max_size=8))
    def test_is_the_first_that_is_good_enough(self, prefix_mse: list[float]) -> None:
        count = enough(prefix_mse)
        assert prefix_mse[count - 1] <= 1.05 * prefix_mse[-1]
        assert all(mse > 1.05 * prefix_mse[-1] for mse in prefix_mse[: count - 1])


class TestOfCodecs:
    @pytest.mark.parametrize(
        ("silent", "live"), [((), 4), ((1,), 4), ((1, 3), 3), ((2, 3), 2), ((1, 2, 3), 1), ((0, 1, 2, 3), 1)]
    )
    def test_dead_ones_say_nothing_and_the_last_other_one_is_counted_to(
        self, silent: tuple[int, ...], live: int
    ) -> None:
        codec = silenced(*silent)
        assert dead_layers([codec], CHUNKS, VALID) == list(silent)
        assert live_layers([codec], CHUNKS, VALID) == live

    def test_a_layer_that_speaks_in_one_seed_is_not_dead(self) -> None:
        codecs = [silenced(2, 3), silenced(1, 2, seed=1)]
        assert dead_layers(codecs, CHUNKS, VALID) == [2]
        assert live_layers(codecs, CHUNKS, VALID) == LAYERS

    @pytest.mark.parametrize("conditioning", ["none", "scale", "layernorm"])
    def test_enough_is_by_the_mean_error_over_seeds_with_statistics_sent(self, conditioning: Conditioning) -> None:
        codecs = [RFSQCodec(conditioning, make_model(conditioning, seed), NORMALISER) for seed in (0, 1)]
        errors = []
        for count in range(1, LAYERS + 1):
            first = [replace(codec, layers=count, statistics="sent") for codec in codecs]
            decoded = [NORMALISER.normalise(codec.decode(codec.encode(CHUNKS))[VALID]) for codec in first]
            errors.append(float(np.mean([(each - NORMALISER.normalise(CHUNKS[VALID])) ** 2 for each in decoded])))
        assert layers_enough(codecs, CHUNKS, VALID) == enough(errors)
