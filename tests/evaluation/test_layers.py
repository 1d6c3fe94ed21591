"""What each RFSQ layer gets, says and is worth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from made_codecs import LAYERS, make_model, rfsq_codecs
from made_rows import layer_rows as made_layer_rows, rows
from small_runs import make_dataset

from workbook.codecs.protocol import Tokens, code_entropy
from workbook.codecs.rfsq import RFSQCodec
from workbook.evaluation.layers import Layers, layer_rows, majority_share, of_codec
from workbook.evaluation.score import HeldOut, Scores

TEST = HeldOut.of(make_dataset())
VALID = TEST.chunks.valid
NO_SCORES = Scores(pd.DataFrame())


class TestMajorityShare:
    def test_by_hand(self) -> None:
        codes = np.zeros((4, 2, 2), dtype=np.int64)
        codes[:, 0, 1] = [1, 1, 1, 2]
        codes[:, 1, 1] = [0, 1, 2, 3]
        assert majority_share(codes) == pytest.approx([1.0, (0.75 + 0.25) / 2])

    def test_the_most_common_code_is_taken_place_by_place(self) -> None:
        codes = np.zeros((4, 2, 1), dtype=np.int64)
        codes[:, 1] = 5
        assert majority_share(codes) == pytest.approx([1.0])


class TestRows:
    def test_of_one_model_by_hand(self) -> None:
        codec = RFSQCodec("scale", make_model("scale"), TEST.normaliser)
        found = of_codec(codec, TEST)
        assert found.layer.tolist() == list(range(LAYERS + 1))
        x = torch.from_numpy(codec.normaliser.normalise(TEST.chunks.actions[VALID])).float()
        assert found.residual_std.to_numpy() == pytest.approx(codec.model.residual_std(x).double().numpy())
        codes = codec.encode(TEST.chunks.actions).codes
        entropy = code_entropy(Tokens(codes), VALID).mean(axis=0)
        assert found.entropy_bits[:LAYERS].to_numpy() == pytest.approx(entropy)
        assert found.majority_share[:LAYERS].to_numpy() == pytest.approx(majority_share(codes[VALID]))
        assert found.loc[LAYERS, ["entropy_bits", "majority_share"]].isna().all()  # of what the last layer leaves

    def test_are_of_every_codec_and_seed(self) -> None:
        rfsq = rfsq_codecs(seeds=2)
        rfsq["none"] = rfsq["none"][:1]  # one of the user's own
        found = layer_rows(rfsq, [3, 7], TEST)
        assert len(found) == (1 + 4 * 2) * (LAYERS + 1)
        seeds = {codec: of.seed.unique().tolist() for codec, of in found.groupby("codec", sort=False)}
        assert list(seeds) == ["naive", "layernorm", "running_statistics", "learned_scale", "fixed_scale"]
        assert list(seeds.values()) == [[0], *[[3, 7]] * 4]
        layers = Layers(found, NO_SCORES)
        assert layers.per_seed("fixed_scale", "residual_std").shape == (2, LAYERS + 1)
        assert layers.per_seed("naive", "entropy_bits").shape == (1, LAYERS)
        second = of_codec(rfsq["scale"][1], TEST).residual_std
        assert np.array_equal(layers.per_seed("fixed_scale", "residual_std")[1], second)


def prefixes(codec: str, *mse: float) -> Scores:
    return Scores(pd.concat([rows(codec, value, f"layers={k}") for k, value in enumerate(mse, start=1)]))


class TestLayers:
    def test_counts_layers_and_not_what_is_left_over(self) -> None:
        layers = Layers(made_layer_rows(layers=5), NO_SCORES)
        assert layers.count == 5
        assert layers.mean("naive", "residual_std") == pytest.approx(0.3 / 3.0 ** np.arange(6))
        assert layers.mean("naive", "entropy_bits") == pytest.approx(np.full(5, 2.0))

    def test_dead_are_those_that_always_send_the_same(self) -> None:
        layers = Layers(made_layer_rows({"naive": [1, 3]}), NO_SCORES)
        assert layers.dead("naive") == [1, 3]
        assert layers.dead("fixed_scale") == []

    def test_a_layer_that_speaks_in_one_seed_is_not_dead(self) -> None:
        found = made_layer_rows({"naive": [1, 2]})
        found.loc[(found.codec == "naive") & (found.seed == 4) & (found.layer == 2), "entropy_bits"] = 0.02
        assert Layers(found, NO_SCORES).dead("naive") == [1]

    def test_errors_of_prefixes_are_in_the_order_of_layers(self) -> None:
        scores = prefixes("fixed_scale", *(1.0 / k for k in range(1, 12)))
        layers = Layers(made_layer_rows(layers=11), scores)
        assert [each.mean for each in layers.prefix_mse("fixed_scale")] == pytest.approx(1 / np.arange(1, 12))

    def test_layernorms_are_of_the_statistics_sent(self) -> None:
        """Without them no prefix of its tokens would mean anything."""
        scores = Scores(
            pd.concat([prefixes("layernorm", *[9.0] * 4).rows, prefixes("layernorm_sent", 4, 3, 2, 1).rows])
        )
        layers = Layers(made_layer_rows(), scores)
        assert [each.mean for each in layers.prefix_mse("layernorm")] == pytest.approx([4, 3, 2, 1])

    @pytest.mark.parametrize(("mse", "enough"), [((1.0, 0.5, 0.104, 0.1), 3), ((1.0, 0.5, 0.106, 0.1), 4)])
    def test_enough_are_those_within_a_twentieth_of_all(self, mse: tuple[float, ...], enough: int) -> None:
        assert Layers(made_layer_rows(), prefixes("fixed_scale", *mse)).enough("fixed_scale") == enough
