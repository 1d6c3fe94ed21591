"""Small policies end to end on a few walks, and the choices and differences that are made from what they predict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from evidence import Evidence as Content, estimate
from small_runs import SMALL, assert_is_picture, ignore_progress, make_dataset, quickly, train_into

from workbook.codecs.token_spaces import Codes
from workbook.common.array import Array
from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder
from workbook.evaluation.decoders import measure_option_b
from workbook.evaluation.metrics import Metric
from workbook.evaluation.policy import probe as phase2
from workbook.evaluation.policy.evidence import SAME_WITHIN, Evidence, Job, Predicted, Subject
from workbook.evaluation.policy.network import RULES
from workbook.evaluation.policy.probe import CHUNK_CODES, COARSE_LAYERS, ERRORS, MOST_LAYERS, ProbeConfig, probe
from workbook.evaluation.rate_distortion import fit_klt_rfsq
from workbook.evaluation.score import HeldOut
from workbook.report.figures import policy as figures
from workbook.report.tables.decision import accuracy_table, draft_table, policy_table
from workbook.training.runs import BEST_FILES

SEEDS, FEW = 2, 3
TOKEN_RULES = ("independent", "by_layer")
SUBJECTS = ["naive", "scale", "klt_rfsq", "bins64"]
CONTRASTS = {
    "episodes",
    "scale_for_naive",
    "klt_rfsq_for_naive",
    "new_for_naive",
    "new_rule",
    "retrained_decoder",
    "naive_rule",
    "codec_share",
    "regression_for_naive",
    "scale_by_layer",
    "scale_expected",
    *(f"scale_for_naive_{rule}" for rule in RULES),
}
LIVELY = replace(SMALL, num_levels=4)  # with an even number of levels no layer of the naive model is dead


def probed(folder: Path, naive: str = "", steps: int = 3) -> Content:
    """All that comes before the probe, and the probe, with two amounts of training data."""
    training = train_into(folder, LIVELY, SEEDS, naive)
    out, dataset = OutputFolder.at(str(folder)), make_dataset()
    with quickly(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(phase2, "FEW_EPISODES", FEW)
        option_b = measure_option_b(out, dataset, training, 2, ignore_progress)
        fit_klt_rfsq(out, dataset)
        return probe(out, dataset, training, option_b, ProbeConfig(steps), ignore_progress)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def found(folder: Path) -> Content:
    return probed(folder)


@pytest.fixture(scope="module")
def given(found: Content, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """With a single naive model of the user's own."""
    return probed(tmp_path_factory.mktemp("given"), str(folder / "checkpoints" / BEST_FILES["none"]))


class TestProbe:
    def test_has_every_part(self, found: Content) -> None:
        assert set(found) == {
            "config",
            "amounts",
            "tasks",
            "seeds",
            "regression",
            "subjects",
            "draft",
            "new_codec",
            "contrasts",
        }
        assert found["amounts"] == [FEW, 6]
        assert (found["seeds"], found["tasks"], found["config"]["steps"]) == (SEEDS, 2, 3)
        assert list(found["subjects"]) == SUBJECTS
        assert set(found["regression"]) == {"3", "6"}
        assert set(found["contrasts"]) == CONTRASTS

    def test_can_be_written_without_losing_a_number(self, found: Content) -> None:
        assert json.loads(json.dumps(found, allow_nan=False)) == found

    @pytest.mark.parametrize("key", SUBJECTS)
    def test_a_subject_has_figures_of_every_layer(self, found: Content, key: str) -> None:
        subject = found["subjects"][key]
        layers = subject["layers"]
        assert len(subject["majority"]) == len(subject["entropy"]) == layers
        assert set(subject["by_layers"]) == set(RULES)
        assert all(len(prefixes) == layers for prefixes in subject["by_layers"].values())
        for entry in subject["by_amount"].values():
            for rule in TOKEN_RULES:
                assert np.shape(entry[rule]["accuracy_per_seed"]) == (SEEDS, layers)
                assert np.shape(entry[rule]["bits_per_layer"]) == (layers,)
                assert len(entry[rule]["bits_per_chunk"]) == SEEDS
            assert "accuracy" not in entry["expected"]

    @pytest.mark.parametrize("key", SUBJECTS)
    def test_shares_are_shares(self, found: Content, key: str) -> None:
        subject = found["subjects"][key]
        shares = [subject["majority"]]
        shares += [entry[rule]["accuracy"] for entry in subject["by_amount"].values() for rule in TOKEN_RULES]
        assert all(0 <= share <= 1 for row in shares for share in row)
        assert all(share > 0 for share in subject["majority"])

    @pytest.mark.parametrize("key", SUBJECTS)
    def test_bits_of_a_chunk_are_the_sum_of_its_layers(self, found: Content, key: str) -> None:
        for entry in found["subjects"][key]["by_amount"].values():
            for rule in TOKEN_RULES:
                assert np.mean(entry[rule]["bits_per_chunk"]) == pytest.approx(sum(entry[rule]["bits_per_layer"]))
                assert min(entry[rule]["bits_per_layer"]) > 0

    @pytest.mark.parametrize("key", SUBJECTS)
    def test_the_first_layer_is_the_same_to_both_rules(self, found: Content, key: str) -> None:
        for entry in found["subjects"][key]["by_amount"].values():
            one, other = (entry[rule] for rule in TOKEN_RULES)
            assert one["accuracy"][0] == other["accuracy"][0]
            assert one["bits_per_layer"][0] == pytest.approx(other["bits_per_layer"][0])
        by_layers = found["subjects"][key]["by_layers"]
        if found["subjects"][key]["layers"] > 1:
            assert by_layers["independent"][0] == by_layers["by_layer"][0]

    @pytest.mark.parametrize("key", SUBJECTS)
    def test_all_layers_are_those_of_the_rule(self, found: Content, key: str) -> None:
        subject = found["subjects"][key]
        for rule in RULES:
            assert subject["by_layers"][rule][-1] == subject["by_amount"]["6"][rule]["errors"]["mse"]

    @pytest.mark.parametrize("key", SUBJECTS)
    def test_choices_are_made_by_the_validation_error(self, found: Content, key: str) -> None:
        subject = found["subjects"][key]
        errors = {rule: subject["by_amount"]["6"][rule]["validation_mse"] for rule in RULES}
        assert errors[subject["best_rule"]] == min(errors.values())
        assert 1 <= subject["layers_to_keep"] <= subject["layers"]

    def test_subjects_have_the_tokens_that_their_titles_say(self, found: Content) -> None:
        subjects = found["subjects"]
        assert [subjects[key]["layers"] for key in ("naive", "bins64")] == [MOST_LAYERS, 1]
        assert subjects["naive"]["tokens_per_chunk"] == 8 * 6 * MOST_LAYERS
        assert subjects["scale"]["tokens_per_chunk"] == 8 * 6 * subjects["scale"]["layers"]
        assert subjects["klt_rfsq"]["tokens_per_chunk"] == 1 + CHUNK_CODES
        assert subjects["bins64"]["tokens_per_chunk"] == 8 * 7

    def test_only_naive_has_another_decoder(self, found: Content) -> None:
        for key, subject in found["subjects"].items():
            others = {f"{rule}, retrained" for rule in RULES} if key == "naive" else set()
            for entry in subject["by_amount"].values():
                assert set(entry) == {*RULES, *others}

    @pytest.mark.parametrize("rule", RULES)
    def test_which_reads_the_same_tokens_differently(self, found: Content, rule: str) -> None:
        for entry in found["subjects"]["naive"]["by_amount"].values():
            own, other = (entry[name]["errors"]["mse"]["per_seed"] for name in (rule, f"{rule}, retrained"))
            assert all(a != b for a, b in zip(own, other, strict=True))

    def test_errors_are_those_of_results(self, found: Content) -> None:
        entries = [found["regression"]["6"]]
        entries += [entry for s in found["subjects"].values() for entry in s["by_amount"]["3"].values()]
        for entry in entries:
            assert set(entry["errors"]) == set(ERRORS)
            assert entry["errors"]["joint_length"]["mean"] is None
            assert len(entry["errors"]["mse"]["per_seed"]) == SEEDS
            assert entry["validation_mse"] > 0

    def test_drafts_agree_in_the_coarse_layers(self, found: Content) -> None:
        assert set(found["draft"]) == {"naive", "scale"}
        for key, by_rule in found["draft"].items():
            assert set(by_rule) == set(TOKEN_RULES)
            layers = min(COARSE_LAYERS, found["subjects"][key]["layers"])
            for shares in by_rule.values():
                assert np.shape(shares["per_seed"]) == (SEEDS, layers)
                assert shares["mean"] == pytest.approx(np.mean(shares["per_seed"], axis=0))
                assert all(0 <= share <= 1 for share in shares["mean"])

    def test_contrasts_are_those_of_the_errors(self, found: Content) -> None:
        naive, scale, klt = (found["subjects"][key] for key in ("naive", "scale", "klt_rfsq"))

        def mse(subject: Content, rule: str) -> float:
            return subject["by_amount"]["6"][rule]["errors"]["mse"]["mean"]

        best = mse(naive, naive["best_rule"])
        expected = {
            "scale_for_naive": (best, mse(scale, scale["best_rule"])),
            "klt_rfsq_for_naive": (best, mse(klt, klt["best_rule"])),
            "retrained_decoder": (best, mse(naive, f"{naive['best_rule']}, retrained")),
            "naive_rule": (mse(naive, "independent"), best),
            "regression_for_naive": (best, found["regression"]["6"]["errors"]["mse"]["mean"]),
            "scale_by_layer": (mse(scale, "independent"), mse(scale, "by_layer")),
            "scale_expected": (mse(scale, "independent"), mse(scale, "expected")),
        }
        expected |= {f"scale_for_naive_{rule}": (mse(naive, rule), mse(scale, rule)) for rule in RULES}
        for name, (baseline, candidate) in expected.items():
            assert found["contrasts"][name]["mean"] == pytest.approx(1 - candidate / baseline), name

    def test_goes_into_tables_and_pictures(self, found: Content) -> None:
        one_layer = sum(s["layers"] == 1 for s in found["subjects"].values())  # for which by_layer tells nothing new
        assert len(policy_table(found).rows) == 2 * (1 + 4 * 3 + 3 - one_layer)
        assert len(accuracy_table(found).rows) == sum(s["layers"] for s in found["subjects"].values())
        assert draft_table(found).rows
        for plot in (figures.policies(found), figures.accuracies(found)):
            assert_is_picture(plot)

    def test_the_title_of_the_picture_turns_with_the_gain(self, found: Content) -> None:
        for gain, words in ((0.25, "25.0% less error"), (-0.25, "25.0% more error")):
            contrasts = found["contrasts"] | {"scale_for_naive": estimate(gain)}
            assert words in figures.policies(found | {"contrasts": contrasts}).alt


class TestSingleNaiveModel:
    def test_is_predicted_with_every_seed(self, given: Content) -> None:
        naive = given["subjects"]["naive"]
        assert len(naive["codec_mse"]["per_seed"]) == 1
        for entry in naive["by_amount"]["6"].values():
            assert len(entry["errors"]["mse"]["per_seed"]) == SEEDS
        assert len(given["subjects"]["scale"]["codec_mse"]["per_seed"]) == SEEDS

    def test_its_policies_differ_by_their_seed(self, given: Content) -> None:
        first, second = given["subjects"]["naive"]["by_amount"]["6"]["expected"]["errors"]["mse"]["per_seed"]
        assert first != second

    def test_contrasts_are_paired_with_it(self, given: Content) -> None:
        assert set(given["contrasts"]) == CONTRASTS
        assert len(given["contrasts"]["scale_for_naive"]["per_seed"]) == SEEDS
        assert 0 <= given["contrasts"]["codec_share"]["mean"] <= 1


class TestConfig:
    def test_full_trains_four_times_as_long(self) -> None:
        assert ProbeConfig(50).policy.steps == 50
        assert ProbeConfig(50, full=True).policy.steps == 200

    def test_no_steps_are_refused(self) -> None:
        with pytest.raises(InputError, match="policy_steps is 0"):
            ProbeConfig(0)

    @pytest.mark.parametrize(
        ("episodes", "full", "amounts"),
        [
            (84, False, (20, 84)),
            (20, False, (20,)),
            (6, False, (6,)),
            (84, True, (10, 20, 40, 84)),
            (30, True, (10, 20, 30)),
        ],
    )
    def test_amounts_are_fewer_than_there_are(self, episodes: int, full: bool, amounts: tuple[int, ...]) -> None:
        assert phase2._amounts(episodes, ProbeConfig(full=full)) == amounts


@dataclass(frozen=True)
class Offset:
    """A space that decodes to the chunks themselves and a constant."""

    chunks: Array
    offset: float
    sizes: tuple[tuple[int, int], ...] = ((1, 2),)
    groups: int = 1

    def tokens(self, chunks: Array) -> list[Codes]:
        return [np.zeros((len(chunks), 1, places), dtype=np.int64) for places, _ in self.sizes]

    def decode(self, tokens: Sequence[Codes]) -> Array:
        return self.chunks + self.offset

    def expected(self, probabilities: Sequence[Array]) -> Array:
        return self.chunks


WEIGHTS = np.array([1.0, 3.0])


def scored(validation: Mapping[tuple[str, int], float], test: Mapping[tuple[str, int], float]) -> Predicted:
    """(rule, layers shown) -> MSE of both episodes."""
    scores = {
        (part, *key): {"mse": Metric(np.full(2, mse), WEIGHTS)}
        for part, errors in (("validation", validation), ("test", test))
        for key, mse in errors.items()
    }
    return Predicted(scores, {}, {})


def by_hand(validation: Sequence[Mapping[tuple[str, int], float]], layers: int = 1) -> Evidence:
    """One subject, 'naive', with these validation errors of each seed."""
    test = HeldOut.of(make_dataset())
    space = Offset(test.chunks.actions, 0.0, ((1, 2),) * layers)
    found = {Job("naive", 6, seed): scored(errors, {}) for seed, errors in enumerate(validation)}
    return Evidence(test, {"naive": Subject("naive", [space], {})}, found, [6], len(validation))


def all_layers(**errors: float) -> dict[tuple[str, int], float]:
    return {(rule, 0): mse for rule, mse in errors.items()}


class TestBestRule:
    @pytest.mark.parametrize("best", RULES)
    def test_has_the_least_validation_error(self, best: str) -> None:
        assert (
            by_hand([all_layers(**{rule: 1.0 if rule == best else 2.0 for rule in RULES})]).best_rule("naive") == best
        )

    def test_of_equal_ones_it_is_the_simplest(self) -> None:
        assert by_hand([all_layers(independent=1.0, by_layer=1.0, expected=1.0)]).best_rule("naive") == "independent"
        assert by_hand([all_layers(independent=2.0, by_layer=1.0, expected=1.0)]).best_rule("naive") == "by_layer"

    def test_is_that_of_the_mean_over_seeds(self) -> None:
        first = all_layers(independent=1.0, by_layer=3.0, expected=2.0)
        second = all_layers(independent=9.0, by_layer=3.0, expected=5.0)
        assert by_hand([first]).best_rule("naive") == "independent"
        assert by_hand([first, second]).best_rule("naive") == "by_layer"

    def test_test_errors_do_not_matter(self) -> None:
        found = by_hand([all_layers(independent=1.0, by_layer=2.0, expected=3.0)])
        job = Job("naive", 6, 0)
        worst = scored(
            all_layers(independent=1.0, by_layer=2.0, expected=3.0),
            all_layers(independent=9.0, by_layer=1.0, expected=0.0),
        )
        assert replace(found, found={job: worst}).best_rule("naive") == "independent"


class TestLayersToKeep:
    def keep(self, *errors: float) -> int:
        """errors: of 1, 2, ... and at last of all layers."""
        shown = [*range(1, len(errors)), 0]
        found = by_hand([{("expected", count): mse for count, mse in zip(shown, errors, strict=True)}], len(errors))
        return found.layers_to_keep("naive", "expected")

    @pytest.mark.parametrize(
        ("errors", "count"),
        [
            ((1.0,), 1),
            ((1.0, 0.5, 0.1), 3),
            ((1.0, 0.1, 0.1), 2),
            ((0.1, 0.2, 0.3), 1),
            ((0.5, 0.1, 0.3), 2),
            ((0.3, 0.1, 0.3), 2),
            ((1.0, 0.1 * (1 + SAME_WITHIN) - 1e-9, 0.1), 2),
            ((1.0, 0.1 * (1 + SAME_WITHIN) + 1e-9, 0.1), 3),
        ],
    )
    def test_are_the_fewest_that_are_as_good(self, errors: tuple[float, ...], count: int) -> None:
        assert self.keep(*errors) == count

    def test_are_those_of_the_rule(self) -> None:
        errors = {("expected", 1): 1.0, ("expected", 0): 1.0, ("by_layer", 1): 1.0, ("by_layer", 0): 0.5}
        found = by_hand([errors], layers=2)
        assert (found.layers_to_keep("naive", "expected"), found.layers_to_keep("naive", "by_layer")) == (1, 2)


class TestContrasts:
    @pytest.fixture
    def contrasts(self) -> Content:
        """Test errors by hand; the best rule of naive is by_layer, of scale expected, of KLT-RFSQ independent."""
        test = HeldOut.of(make_dataset())
        spaces = {key: [Offset(test.chunks.actions, 0.0)] for key in ("naive", "scale", "klt_rfsq")}
        errors = {
            "": {("regression", 0): 1.0},
            "naive": all_layers(independent=5.0, by_layer=4.0, expected=4.5)
            | {(f"{rule}, retrained", 0): 3.0 for rule in RULES},
            "scale": all_layers(independent=4.0, by_layer=5.0, expected=2.0),
            "klt_rfsq": all_layers(independent=6.0, by_layer=7.0, expected=8.0),
        }
        found = {Job(key, 6, seed): scored(each, each) for key, each in errors.items() for seed in range(2)}
        subjects = {key: Subject(key, each, {}) for key, each in spaces.items()}
        return Evidence(test, subjects, found, [3, 6], 2).contrasts()

    @pytest.mark.parametrize(
        ("name", "gain"),
        [
            ("scale_for_naive", 1 - 2 / 4),
            ("klt_rfsq_for_naive", 1 - 6 / 4),
            ("retrained_decoder", 1 - 3 / 4),
            ("naive_rule", 1 - 4 / 5),
            ("codec_share", 0.0),  # of a codec without error
            ("regression_for_naive", 1 - 1 / 4),
            ("scale_by_layer", 1 - 5 / 4),
            ("scale_expected", 1 - 2 / 4),
            ("scale_for_naive_independent", 1 - 4 / 5),
            ("scale_for_naive_by_layer", 1 - 5 / 4),
            ("scale_for_naive_expected", 1 - 2 / 4.5),
        ],
    )
    def test_less_error_is_a_gain(self, contrasts: Content, name: str, gain: float) -> None:
        assert contrasts[name]["mean"] == pytest.approx(gain)
        assert contrasts[name]["low"] == pytest.approx(gain)
        assert contrasts[name]["high"] == pytest.approx(gain)
        assert contrasts[name]["per_seed"] == pytest.approx([gain] * 2)

    def test_are_those_of_all_episodes(self, contrasts: Content) -> None:
        assert contrasts["episodes"] == 6

    @pytest.mark.parametrize("half", [0.5, 50.0])
    def test_the_share_of_the_codec_is_its_error_over_that_of_the_policy(self, half: float) -> None:
        test = HeldOut.of(make_dataset())
        spaces = [Offset(test.chunks.actions, half)]
        codec = test.measure(test.chunks.actions + half)["mse"].values
        policy = 10.0
        assert len(codec) == 2
        same = all_layers(independent=policy, by_layer=policy, expected=policy)
        same |= {(f"{rule}, retrained", 0): policy for rule in RULES} | {("regression", 0): policy}
        keys = ("", "naive", "scale", "klt_rfsq")
        found = {Job(key, 6, 0): scored(same, same) for key in keys}
        subjects = {key: Subject(key, spaces, {}) for key in keys[1:]}
        measured = Evidence(test, subjects, found, [6], 1).contrasts()["codec_share"]["mean"]
        assert measured == pytest.approx(float(codec @ WEIGHTS / WEIGHTS.sum() / policy))
