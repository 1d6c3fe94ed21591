"""Rate and distortion: what stands at equal bits, what the fewest bits are, and that only tokens are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evidence import Evidence, estimate
from small_runs import SMALL, assert_is_picture, ignore_progress, make_dataset, quickly, train_into

from rfsq_robust import CONDITIONINGS
from workbook.codecs.bins import UniformBins
from workbook.codecs.klt_rfsq import KltRFSQ, fit_variable_length
from workbook.codecs.protocol import Codec, Tokens
from workbook.codecs.rfsq import RFSQCodec
from workbook.common import targets
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.data.chunks import Normaliser
from workbook.data.dataset import Dataset
from workbook.data.episodes import Episode
from workbook.data.layout import ActionLayout
from workbook.data.split import Split
from workbook.evaluation import rate_distortion as rates
from workbook.evaluation.metrics import Metric
from workbook.evaluation.rate_distortion import ERRORS, Measured, gaussian_reference, measure_rates
from workbook.evaluation.score import HeldOut
from workbook.report.figures.rate_distortion import LOOKS, rate_distortion
from workbook.report.tables.decision import codecs_table, equal_bits_table
from workbook.training import baselines
from workbook.training.baselines import (
    BIN_COUNTS,
    CONDITIONINGS_SHOWN,
    FAMILIES,
    FAST_QUANTILE_SCALES,
    FAST_SCALES,
    FITTED_RATES,
    POLICY_RATES,
    SWEEP_LATENTS,
    SWEEP_LEVELS,
    RateConfig,
    Setting,
    codes_at,
    fit_closed_form,
    fitting_chunks,
    step_settings,
)

WEIGHTS = np.array([1.0, 3.0])
KEYS = {
    "family",
    "setting",
    "bits",
    "entropy",
    "tokens_per_chunk",
    "vocabulary",
    "fixed_length",
    "prefix",
    "errors",
}


def measured(family: str, bits: float, *mse: Sequence[float], high: float | None = None) -> Measured:
    """mse: of each episode, one sequence a seed."""
    per_seed = [{"mse": Metric(np.array(seed), WEIGHTS)} for seed in mse]
    mean = float(np.mean([np.dot(seed, WEIGHTS) / WEIGHTS.sum() for seed in mse]))
    entry = {"family": family, "bits": bits, "errors": {"mse": {"mean": mean, "low": None, "high": high}}}
    return Measured(family, bits, per_seed, entry)


class TestAtARate:
    def test_between_two_settings_it_is_interpolated(self) -> None:
        curve = [measured("fast", 50, [8.0, 4.0]), measured("fast", 10, [10.0, 20.0]), measured("fast", 90, [0.0, 0.0])]
        family, mse = rates._at_rate(curve, ["fast"], 20) or pytest.fail("none found")
        assert family == "fast"
        assert mse == pytest.approx(np.array([[9.5, 16.0]]))  # a quarter of the way from 10 to 50 bits

    def test_a_setting_worse_than_a_cheaper_one_is_passed_over(self) -> None:
        curve = [measured("fast", bits, [mse, mse]) for bits, mse in ((10, 4.0), (20, 9.0), (30, 2.0))]
        _, mse = rates._at_rate(curve, ["fast"], 20) or pytest.fail("none found")
        assert mse == pytest.approx(np.full((1, 2), 3.0))

    def test_seed_by_seed(self) -> None:
        curve = [measured("fast", 10, [4.0, 0.0], [8.0, 0.0]), measured("fast", 20, [2.0, 0.0], [0.0, 0.0])]
        _, mse = rates._at_rate(curve, ["fast"], 15) or pytest.fail("none found")
        assert mse == pytest.approx(np.array([[3.0, 0.0], [4.0, 0.0]]))

    @pytest.mark.parametrize(("rate", "expected"), [(10, 10.0), (50, 8.0), (90, 0.0)])
    def test_at_a_setting_it_is_that_settings(self, rate: float, expected: float) -> None:
        curve = [measured("fast", bits, [mse, mse]) for bits, mse in ((10, 10.0), (50, 8.0), (90, 0.0))]
        _, mse = rates._at_rate(curve, ["fast"], rate) or pytest.fail("none found")
        assert mse == pytest.approx(np.full((1, 2), expected))

    def test_nothing_is_said_below_the_cheapest_setting(self) -> None:
        curve = [measured("fast", 10, [1.0, 1.0]), measured("fast", 90, [0.5, 0.5])]
        assert rates._at_rate(curve, ["fast"], 9.9) is None
        assert rates._at_rate(curve, ["bins"], 50) is None

    def test_beyond_the_last_setting_more_bits_buy_nothing(self) -> None:
        curve = [measured("fast", 10, [1.0, 1.0]), measured("fast", 90, [0.5, 0.5]), measured("fast", 95, [0.6, 0.6])]
        _, mse = rates._at_rate(curve, ["fast"], 300) or pytest.fail("none found")
        assert mse == pytest.approx(np.full((1, 2), 0.5))

    def test_a_fixed_length_is_never_mixed(self) -> None:
        curve = [measured("klt_rfsq_fixed", 10, [1.0, 1.0]), measured("klt_rfsq_fixed", 90, [0.5, 0.5])]
        _, mse = rates._at_rate(curve, ["klt_rfsq_fixed"], 80) or pytest.fail("none found")
        assert mse == pytest.approx(np.full((1, 2), 1.0))

    def test_the_family_of_least_weighted_error_is_taken(self) -> None:
        some = [
            measured("fast", 40, [0.0, 4.0]),  # 3 in the mean
            measured("fast_quantile", 40, [9.0, 0.0]),  # 2.25
            measured("bins", 40, [0.0, 0.0]),
        ]
        found = rates._at_rate(some, ["fast", "fast_quantile"], 40) or pytest.fail("none found")
        assert found[0] == "fast_quantile"

    def test_a_family_that_does_not_reach_is_left_out(self) -> None:
        some = [measured("fast", 40, [4.0, 4.0]), measured("fast_quantile", 50, [0.0, 0.0])]
        found = rates._at_rate(some, ["fast", "fast_quantile"], 40) or pytest.fail("none found")
        assert found[0] == "fast"


class TestAgainstFast:
    def row(self, **mse: float) -> Evidence:
        some = [measured(family, 80, [value * 0.9, value * 1.1]) for family, value in mse.items()]
        return rates._against_fast(some, 80)

    def test_less_error_is_a_gain(self) -> None:
        row = self.row(fast=4.0, klt_rfsq=3.0)
        assert row["rate"] == 80
        assert row["rfsq"]["family"] == "klt_rfsq"
        assert row["rfsq"]["less_than_fast"]["mean"] == pytest.approx(0.25)
        assert row["fast"] == pytest.approx((3.6 + 3 * 4.4) / 4)
        assert row["rfsq"]["mse"] == pytest.approx((2.7 + 3 * 3.3) / 4)

    def test_more_error_is_a_loss(self) -> None:
        assert self.row(fast=4.0, klt_rfsq=6.0)["rfsq"]["less_than_fast"]["mean"] == pytest.approx(-0.5)

    def test_fast_is_at_the_better_of_its_two_normalisers(self) -> None:
        row = self.row(fast=4.0, fast_quantile=2.0, klt_rfsq=3.0)
        assert row["fast"] == pytest.approx((1.8 + 3 * 2.2) / 4)
        assert row["rfsq"]["less_than_fast"]["mean"] == pytest.approx(-0.5)

    def test_of_fixed_length_only_what_is(self) -> None:
        row = self.row(fast=4.0, klt_rfsq=1.0, klt_rfsq_fixed=3.0, chunk_scale=2.0)
        assert row["rfsq"]["family"] == "klt_rfsq"
        assert row["rfsq_fixed"]["family"] == "chunk_scale"
        assert row["rfsq_fixed"]["less_than_fast"]["mean"] == pytest.approx(0.5)

    def test_naive_is_not_rfsqs_best(self) -> None:
        assert self.row(fast=4.0, rfsq_none=0.1, chunk_none=0.1, klt_rfsq=3.0)["rfsq"]["family"] == "klt_rfsq"

    def test_where_either_is_out_of_reach_nothing_is_said(self) -> None:
        alone = self.row(klt_rfsq=3.0)
        assert alone["fast"] is None
        assert alone["rfsq"]["mse"] is not None
        assert alone["rfsq"]["less_than_fast"]["mean"] is None
        none = self.row(fast=4.0)
        assert none["fast"] is not None
        assert (none["rfsq"]["family"], none["rfsq"]["mse"]) == (None, None)
        assert none["rfsq_fixed"]["less_than_fast"]["mean"] is None

    def test_one_run_of_fast_is_held_against_every_seed(self) -> None:
        some = [measured("fast", 80, [4.0, 4.0]), measured("chunk_scale", 80, [1.0, 1.0], [3.0, 3.0])]
        gain = rates._against_fast(some, 80)["rfsq"]["less_than_fast"]
        assert gain["per_seed"] == pytest.approx([0.75, 0.25])
        assert gain["mean"] == pytest.approx(0.5)


class TestSmallest:
    def find(self, *some: Measured) -> Evidence:
        found = rates._smallest(some)
        return {key: entry and (entry["family"], entry["bits"]) for key, entry in found.items()}

    def one(self, family: str, bits: float, mse: float, high: float | None) -> Measured:
        return measured(family, bits, [mse, mse], high=high)

    def test_takes_the_fewest_bits_whose_whole_interval_meets_the_target(self) -> None:
        below, above = targets.MSE_BELOW * 0.99, targets.MSE_BELOW * 1.01
        found = self.find(
            self.one("rfsq_scale", 400, below / 2, below),
            self.one("rfsq_scale", 200, below / 2, below),
            self.one("rfsq_none", 100, below / 2, above),
            self.one("klt_rfsq", 50, below / 2, below),
            self.one("klt_rfsq_fixed", 25, below / 2, above),
        )
        assert found == {"guide": ("rfsq_scale", 200), "any": ("klt_rfsq", 50)}

    def test_the_target_itself_is_not_met(self) -> None:
        assert self.find(self.one("rfsq_scale", 10, 0.001, targets.MSE_BELOW)) == {"guide": None, "any": None}

    def test_without_an_interval_the_mean_counts(self) -> None:
        found = self.find(
            self.one("chunk_none", 30, targets.MSE_BELOW / 2, None), self.one("chunk_none", 20, 1.0, None)
        )
        assert found == {"guide": ("chunk_none", 30), "any": ("chunk_none", 30)}

    def test_others_than_rfsq_do_not_count(self) -> None:
        assert self.find(self.one("bins", 10, 0.0, 0.0), self.one("fast", 10, 0.0, 0.0)) == {"guide": None, "any": None}


def dataset_of(actions: Array, spec: str, length: int) -> Dataset:
    """One train episode, not normalised at all."""
    episode = Episode(actions, "put", "a.hdf5", "demo_0")
    unit = Normaliser(-np.ones(actions.shape[1]), np.ones(actions.shape[1]))
    return Dataset(ActionLayout.parse(spec), (episode,), Split((0,), (0,), (0,)), unit, length, length)


@pytest.fixture
def variances() -> Array:
    return np.array([1.0, 0.25])


class TestGaussianReference:
    def points(self, variances: Array, spec: str = "joint:2", length: int = 1) -> list[dict[str, float]]:
        """Independent Gaussians, whitened so that their sample covariance is exactly diagonal."""
        draws = np.random.default_rng(0).normal(size=(400, len(variances)))
        draws -= draws.mean(axis=0)
        white = draws @ np.linalg.inv(np.linalg.cholesky(np.cov(draws.T)).T)
        return gaussian_reference(dataset_of(white * np.sqrt(variances), spec, length))

    def test_of_two_independent_gaussians_by_hand(self, variances: Array) -> None:
        for point in self.points(variances):
            level = point["mse"] if point["mse"] <= 0.25 else 2 * point["mse"] - 0.25
            bits = 0.5 * np.log2(1 / level) + max(0.5 * np.log2(0.25 / level), 0)
            assert point["bits"] == pytest.approx(bits, abs=1e-9)

    def test_no_bits_leave_all_variance(self, variances: Array) -> None:
        last = self.points(variances)[-1]
        assert last["bits"] == pytest.approx(0.0, abs=1e-9)
        assert last["mse"] == pytest.approx(variances.sum() / 2)

    def test_more_bits_less_error(self, variances: Array) -> None:
        points = self.points(variances)
        assert len(points) == 60
        assert (np.diff([point["bits"] for point in points]) < 0).all()
        assert (np.diff([point["mse"] for point in points]) > 0).all()

    def test_a_gripper_is_left_out_but_shares_the_error(self) -> None:
        points = self.points(np.array([1.0, 0.25, 9.0]), "joint:2 gripper:1")
        assert points[-1]["mse"] == pytest.approx(1.25 / 3)

    def test_of_grippers_alone_there_is_nothing_to_say(self) -> None:
        points = gaussian_reference(dataset_of(np.sign(np.arange(40.0)[:, None] % 2 - 0.5), "gripper:1", 4))
        assert all((point["bits"], point["mse"]) == (0.0, 0.0) for point in points)

    def test_correlation_saves_bits(self) -> None:
        rng = np.random.default_rng(0)
        alone = rng.normal(size=(300, 2))
        shared = alone[:, :1] + 0.1 * alone[:, 1:]
        together = gaussian_reference(dataset_of(np.hstack([alone[:, :1], shared]), "joint:2", 1))
        apart = gaussian_reference(dataset_of(np.hstack([alone[:, :1], rng.permutation(shared)]), "joint:2", 1))
        bits = [
            float(np.interp(0.05, [p["mse"] for p in each], [p["bits"] for p in each])) for each in (together, apart)
        ]
        assert bits[0] < bits[1] - 1


class TestJobs:
    def jobs(self, seeds: int, config: RateConfig) -> list[baselines.RateJob]:
        return baselines._rate_jobs(make_dataset(), SMALL, seeds, config)

    def test_without_full_each_quantizer_and_conditioning_once_a_seed(self) -> None:
        jobs = self.jobs(3, RateConfig())
        assert sorted((job.quantizer, job.unit, job.seed) for job in jobs) == sorted(
            (name, unit, seed)
            for name, unit in (
                ("residual_vq", "step"),
                ("grouped_residual_fsq", "step"),
                ("none", "chunk"),
                ("scale", "chunk"),
            )
            for seed in range(3)
        )

    def test_full_adds_every_number_of_latents_and_levels(self) -> None:
        swept = 2 * len(CONDITIONINGS_SHOWN) * len(SWEEP_LATENTS) * len(SWEEP_LEVELS)
        jobs = self.jobs(2, RateConfig(full=True))
        assert len(jobs) == len(set(jobs)) == 2 * (4 + swept)
        sizes = {(job.config.hidden_dim, job.config.num_levels) for job in jobs if job.unit == "step"}
        assert sizes >= {(latents, levels) for latents in SWEEP_LATENTS for levels in SWEEP_LEVELS}

    def test_baselines_are_trained_for_so_many_batches(self) -> None:
        base, dataset = replace(SMALL, epochs=100), make_dataset()
        batches = -(-len(dataset.train_chunks().actions) // base.batch_size)
        short, long, full = (
            {job.unit: job.config.epochs for job in baselines._rate_jobs(dataset, base, 1, config)}
            for config in (RateConfig(10 * batches), RateConfig(10_000), RateConfig(10 * batches, full=True))
        )
        assert short == {"step": 10, "chunk": 20}
        assert long == full == {"step": 100, "chunk": 100}

    def test_there_is_at_least_one_epoch(self) -> None:
        assert min(job.config.epochs for job in self.jobs(1, RateConfig(baseline_steps=1))) == 1

    def test_no_steps_are_refused(self) -> None:
        with pytest.raises(InputError, match="baseline_steps is 0"):
            RateConfig(baseline_steps=0)


class TestClosedForm:
    def test_has_every_setting_and_no_seeds(self) -> None:
        dataset = make_dataset()
        train = fitting_chunks(dataset)
        model = KltRFSQ.fit(train, dataset.layout, dataset.normaliser)
        settings = fit_closed_form(dataset, fit_variable_length(model, train, (40, 80)))
        counts = {family: sum(s.family == family for s in settings) for family in {s.family for s in settings}}
        assert counts == {
            "bins": len(BIN_COUNTS),
            "klt": len(FITTED_RATES),
            "fast": len(FAST_SCALES),
            "fast_quantile": len(FAST_QUANTILE_SCALES),
            "klt_rfsq_fixed": len({codes_at(model, rate) for rate in FITTED_RATES}),
            "klt_rfsq": 2,
        }
        assert all(len(setting.codecs) == 1 for setting in settings)

    def test_is_fitted_to_train_chunks_alone(self) -> None:
        dataset = make_dataset()
        held_out = {*dataset.split.test, *dataset.split.validation}
        other = [replace(e, actions=e.actions * 0.5) if i in held_out else e for i, e in enumerate(dataset.episodes)]
        chunks, same = fitting_chunks(dataset), fitting_chunks(replace(dataset, episodes=tuple(other)))
        assert np.array_equal(chunks, same)
        assert chunks.shape[1:] == (8, 7)


@dataclass(frozen=True, eq=False)
class Spy:
    """Bins whose decoder remembers what it got."""

    inner: UniformBins
    given: list[tuple[Any, ...]]

    @property
    def name(self) -> str:
        return "spy"

    @property
    def vocabulary(self) -> int:
        return self.inner.vocabulary

    def encode(self, chunks: Array) -> Tokens:
        return self.inner.encode(chunks)

    def decode(self, *given: Any) -> Array:
        self.given.append(given)
        return self.inner.decode(*given)

    def bits(self, tokens: Tokens) -> float:
        return self.inner.bits(tokens)


class TestMeasure:
    def test_a_decoder_gets_the_tokens_and_nothing_else(self) -> None:
        test = HeldOut.of(make_dataset())
        spy = Spy(UniformBins(8, test.normaliser), [])
        found = rates._measure(Setting("bins", "8 bins", [spy]), test)
        (given,) = spy.given
        (tokens,) = given
        assert np.array_equal(tokens.codes, spy.encode(test.chunks.actions).codes)
        assert tokens.side is None
        expected = test.measure(spy.inner.decode(tokens))["mse"].values
        assert np.array_equal(found.mse, expected[None])

    def test_what_a_codec_remembers_of_the_chunks_cannot_be_the_score(self) -> None:
        """A codec that sends nothing, and would know better, is measured by what its tokens decode to."""
        test = HeldOut.of(make_dataset())

        class Silent(Spy):
            def encode(self, chunks: Array) -> Tokens:
                return Tokens(np.zeros(chunks.shape, dtype=np.int64))

        found = rates._measure(Setting("bins", "", [Silent(UniformBins(8, test.normaliser), [])]), test)
        lowest = UniformBins(8, test.normaliser).decode(Tokens(np.zeros(test.chunks.actions.shape, dtype=np.int64)))
        assert np.array_equal(found.mse[0], test.measure(lowest)["mse"].values)
        assert found.entry["entropy"] == 0.0
        assert found.entry["errors"]["mse"]["mean"] > 0.1

    def test_bits_and_errors_are_means_over_seeds(self) -> None:
        test = HeldOut.of(make_dataset())
        codecs: list[Codec] = [UniformBins(4, test.normaliser), UniformBins(16, test.normaliser)]
        found = rates._measure(Setting("bins", "two", codecs), test)
        assert found.bits == found.entry["bits"] == pytest.approx(8 * 7 * 3)
        assert found.entry["seeds"] == 2
        assert found.mse.shape == (2, len(test.episodes))
        alone = [rates._measure(Setting("bins", "", [codec]), test).entry for codec in codecs]
        for key in ("entropy", "tokens_per_chunk"):
            assert found.entry[key] == pytest.approx(np.mean([entry[key] for entry in alone]))
        means = [entry["errors"]["mse"]["mean"] for entry in alone]
        assert found.entry["errors"]["mse"]["per_seed"] == pytest.approx(means)

    def test_first_layers_are_settings_of_their_own(self) -> None:
        dataset = make_dataset()
        test = HeldOut.of(dataset)
        torch.manual_seed(0)
        model = baselines.ActionRFSQAE(7, 6, 3, 5, conditioning="scale").eval()
        settings = step_settings([RFSQCodec("scale", model, dataset.normaliser)])
        found = [rates._measure(setting, test).entry for setting in settings]
        assert [entry["bits"] for entry in found] == pytest.approx([8 * 6 * k * np.log2(5) for k in (1, 2, 3)])
        assert [entry["tokens_per_chunk"] for entry in found] == [48, 96, 144]
        assert {entry["family"] for entry in found} == {"rfsq_scale"}
        assert [entry["setting"].rsplit(", ", 1)[1] for entry in found] == ["1 layer", "2 layers", "3 layers"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder: Path = tmp_path_factory.mktemp("rates")
    training = train_into(folder, replace(SMALL, num_layers=2), seeds=1)
    assert set(training["conditionings"]) == set(CONDITIONINGS)
    with quickly():
        return measure_rates(
            OutputFolder.at(str(folder)), make_dataset(), training, RateConfig(baseline_steps=1), ignore_progress
        )


class TestStage:
    def test_entries_hold_what_results_promise(self, found: Evidence) -> None:
        for entry in found["codecs"]:
            assert entry.keys() >= KEYS
            assert set(entry["errors"]) == set(ERRORS)
            assert entry["entropy"] >= 0
            assert entry["bits"] > 0
            assert entry["vocabulary"] > 1
            assert entry["fixed_length"] == FAMILIES[entry["family"]].fixed_length
            assert entry["prefix"] == FAMILIES[entry["family"]].prefix

    def test_every_family_is_there(self, found: Evidence) -> None:
        assert {entry["family"] for entry in found["codecs"]} == set(FAMILIES)

    def test_entropy_of_a_fixed_length_is_no_more_than_its_bits(self, found: Evidence) -> None:
        fixed = [entry for entry in found["codecs"] if entry["fixed_length"]]
        assert all(entry["entropy"] <= entry["bits"] + 1e-9 for entry in fixed)

    def test_every_rate_of_policies_is_compared(self, found: Evidence) -> None:
        assert [row["rate"] for row in found["against_fast"]] == list(POLICY_RATES)

    def test_what_meets_the_target_does(self, found: Evidence) -> None:
        for entry in found["smallest"].values():
            assert entry is None or entry["errors"]["mse"]["mean"] < targets.MSE_BELOW

    def test_goes_into_tables_and_a_picture(self, found: Evidence) -> None:
        assert len(codecs_table(found["codecs"]).rows) == len(found["codecs"])
        assert len(equal_bits_table(found).rows) == len(POLICY_RATES)
        assert_is_picture(rate_distortion(found))


class TestFigure:
    def rates(self, *gains: float | None) -> Evidence:
        codecs = [
            {"family": family, "bits": 10.0 * (i + 1), "errors": {"mse": estimate(0.1)}}
            for i, family in enumerate(FAMILIES)
        ]
        against = [
            {"rate": rate, "rfsq": {"family": "klt_rfsq", "less_than_fast": {"mean": gain}}}
            for rate, gain in zip(POLICY_RATES, gains, strict=False)
        ]
        return {"codecs": codecs, "against_fast": against, "gaussian": []}

    def test_every_family_has_a_look_and_none_looks_like_another(self) -> None:
        assert set(LOOKS) == set(FAMILIES)
        assert len(set(LOOKS.values())) == len(LOOKS)

    def test_its_title_says_how_much_less(self) -> None:
        alt = rate_distortion(self.rates(0.1, 0.25)).alt
        assert alt.startswith("KLT-RFSQ of variable length has 10% to 25% less error")

    def test_its_title_says_where_it_is_more(self) -> None:
        alt = rate_distortion(self.rates(0.1, -0.25, None, -0.1)).alt
        worse = f"{POLICY_RATES[1]}, {POLICY_RATES[3]} bits"
        assert alt.startswith("KLT-RFSQ of variable length has more error than FAST-style tokens at " + worse)

    def test_its_title_says_if_there_is_nothing_to_compare(self) -> None:
        assert rate_distortion(self.rates(None, None)).alt.startswith("No RFSQ and FAST-style tokens")


class TestEqualBitsTable:
    def test_shows_gains_with_their_interval_and_dashes(self) -> None:
        def side(family: str | None, mse: float | None, mean: float | None) -> Evidence:
            gain = {"mean": mean, "low": mean and mean - 0.05, "high": mean and mean + 0.05}
            return {"family": family, "mse": mse, "less_than_fast": gain}

        row = {"rate": 80, "fast": 0.02, "rfsq": side("klt_rfsq", 0.01, 0.5), "rfsq_fixed": side(None, None, None)}
        cells = list(equal_bits_table({"against_fast": [row]}).rows[0])
        assert cells[:4] == ["80", "0.02", FAMILIES["klt_rfsq"].title, "0.01"]
        assert cells[4] == "50.0% less (95 % interval 45.0% to 55.0% less)"
        assert cells[5:] == ["-", "-", "-"]
