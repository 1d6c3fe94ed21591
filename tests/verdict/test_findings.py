"""What the findings say follows from the numbers: for and against, discrepancies, layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from evidence import estimate, passing_comparison, residual_entry, says, some_residuals

from workbook.evaluation.layers import discrepancies, layers_enough, majority_share
from workbook.verdict.findings import against


class TestAgainst:
    def test_a_rounding_that_is_better(self) -> None:
        comparison = passing_comparison()
        assert not says(against(comparison), "equal bins has less error than the fixed-scale")
        comparison["baselines"]["bins256"]["token_mse"] = estimate(1e-6)
        assert says(against(comparison), "256 equal bins has less error than the fixed-scale")

    def test_a_target_that_naive_meets_too(self) -> None:
        comparison = passing_comparison()
        assert not says(against(comparison), "tells nothing apart")
        comparison["models"]["none"]["token_mse"] = estimate(0.004)
        assert says(against(comparison), "tells nothing apart", "0.004")

    def test_statistics_that_would_have_to_be_sent(self) -> None:
        comparison = passing_comparison()
        assert not says(against(comparison), "float16")
        comparison["models"]["layernorm"]["decode_error"] = 0.4
        assert says(against(comparison), "float16", "2,048 bits")

    def test_dead_layers_only_if_there_are_some(self) -> None:
        comparison = passing_comparison()
        assert not says(against(comparison, some_residuals()), "always send the same code")
        assert says(against(comparison, some_residuals(dead=[1, 2, 3])), "3 of 4 naive layers always send the same")
        assert not says(against(comparison), "always send the same code")

    def test_layers_to_spare_only_if_there_are_some(self) -> None:
        comparison, residuals = passing_comparison(), some_residuals()
        assert not says(against(comparison, residuals), "harder to predict")
        residuals["scale"] = residual_entry(enough=1)
        assert says(against(comparison, residuals), "first 1 of 4 layers", "719 bits", "other 3")

    def test_zeros_that_are_not_kept(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["scale"]["token_errors"]["zeros_kept"] = estimate(0.123)
        assert says(against(comparison), "exactly zero", "12.3%")
        comparison["models"]["scale"]["token_errors"]["zeros_kept"]["mean"] = None
        assert not says(against(comparison), "exactly zero")

    def test_always_says_what_was_not_measured(self) -> None:
        assert says(against(passing_comparison()), "success itself was not measured")


class TestDiscrepancies:
    def naive_ranges(self, std: Sequence[float]) -> list[str]:
        sentences = discrepancies(passing_comparison(), some_residuals(std=std))
        return [sentence for sentence in sentences if "naive residual" in sentence]

    def test_as_measured_inside_the_guides_range(self) -> None:
        coarse, fine = self.naive_ranges([0.4, 0.3, 0.2, 0.005, 0.004, 0.003])
        assert ": as measured" in coarse
        assert ": as measured" in fine

    def test_not_as_measured_outside(self) -> None:
        coarse, fine = self.naive_ranges([0.9, 0.8, 0.7, 0.1, 0.09, 0.08])
        assert ": not as measured" in coarse
        assert "0.700 to 0.900" in coarse
        assert ": not as measured" in fine

    def test_in_part(self) -> None:
        coarse, _ = self.naive_ranges([0.4, 0.3, 0.05, 0.005, 0.004])
        assert ": in part as measured" in coarse

    def test_what_the_last_layer_leaves_enters_none(self) -> None:
        _, fine = self.naive_ranges([0.4, 0.3, 0.2, 0.005, 9.0])
        assert ": as measured" in fine

    def test_layers_that_the_model_does_not_have(self) -> None:
        _, fine = self.naive_ranges([0.4, 0.3, 0.2, 0.005])
        assert "no such layers" in fine

    def test_the_stop_of_naive_only_if_it_stops(self) -> None:
        comparison = passing_comparison()
        assert not says(discrepancies(comparison, some_residuals()), "it stops")
        found = discrepancies(comparison, some_residuals(dead=[1, 2, 3]))
        assert says(found, "it stops", "3 of 4 layers (L1-L3)")
        assert says(found, "82.5% token accuracy", "30.0%")

    def test_layers_that_are_not_in_a_row_are_listed(self) -> None:
        assert says(discrepancies(passing_comparison(), some_residuals(dead=[1, 3])), "(L1, L3)")

    def test_the_guides_mse_stands_beside_the_measured_one(self) -> None:
        comparison = passing_comparison()
        comparison["models"]["layernorm"]["token_mse"] = estimate(0.77)
        sentence = discrepancies(comparison, some_residuals())[0]
        for figure in ("0.0182", "0.0101", "0.02 and 1.0e-4", "90.0% less", "0.77"):
            assert figure in sentence


class TestLayers:
    @pytest.mark.parametrize(
        ("prefix_mse", "enough"),
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
    def test_enough(self, prefix_mse: list[float], enough: int) -> None:
        assert layers_enough(prefix_mse) == enough

    def test_majority_share_by_hand(self) -> None:
        codes = np.zeros((4, 2, 2), dtype=np.int64)
        codes[:, 0, 1] = [1, 1, 1, 2]
        codes[:, 1, 1] = [0, 1, 2, 3]
        assert majority_share(codes) == pytest.approx([1.0, (0.75 + 0.25) / 2])

    def test_the_most_common_code_is_taken_place_by_place(self) -> None:
        codes = np.zeros((4, 2, 1), dtype=np.int64)
        codes[:, 1] = 5
        assert majority_share(codes) == pytest.approx([1.0])
