"""The one list of codecs: what its entries name can be made, and is told apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from made_codecs import LAYERS, ONLY_IN_FULL, make_fitting, rfsq_codecs
from small_runs import make_dataset

from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.catalogue import (
    CONDITIONED,
    ENTRIES,
    FITTED_RATES,
    PLAYED_RATES,
    POLICY_CODES,
    SHOWN_RATE,
    SWEEP_LATENTS,
    SWEEP_LEVELS,
    Entry,
    Fitting,
    Network,
    Setting,
    at_steps,
    catalogue,
    fitting_chunks,
    klt_rfsq_of,
    quoted_rate,
)
from workbook.codecs.fast import FastCodec
from workbook.codecs.klt_rfsq import BRANCHES, FixedLength, KltRFSQ, codes_at, fit_variable_length
from workbook.codecs.protocol import Codec
from workbook.codecs.rfsq import RFSQCodec

FITTING, FULL = make_fitting(seeds=2), make_fitting(full=True)
TRAIN = fitting_chunks(FITTING)
HELD_OUT = make_dataset().held_out_chunks("test").actions
USES = ("measured", "compared", "analysed", "played", "predicted")
NAMES = [entry.name for entry in ENTRIES]
CLOSED_FORM = {"beast", "bins", "klt", "fast", "fast_quantile", "klt_rfsq_fixed", "klt_rfsq_variable"}


def settings_of(entry: Entry, fitting: Fitting) -> list[Setting]:
    return list(dict.fromkeys(setting for use in USES for setting in getattr(entry, use)(fitting)))


def made(name: str, setting: Setting) -> Codec:
    (codec,) = catalogue()[name].codecs(FITTING, setting)
    return codec


class TestSetting:
    VALUES = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: float(f"{value:g}"))
    PAIRS = st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), VALUES, min_size=1, max_size=3)

    @given(PAIRS)
    def test_its_text_says_all_of_it(self, values: dict[str, float]) -> None:
        setting = Setting.of(**values)
        assert Setting.parse(str(setting)) == setting
        assert hash(Setting.parse(str(setting))) == hash(setting)
        for name, value in values.items():
            assert setting[name] == setting.get(name) == value

    def test_is_written_short(self) -> None:
        assert str(Setting.of(latents=8, levels=7.0, layers=3)) == "latents=8 levels=7 layers=3"
        assert str(Setting.of(scale=0.5)) == "scale=0.5"
        assert Setting.of(layers=3).get("codes") is None


class TestEntries:
    def test_names_and_titles_are_unique(self) -> None:
        for values in (NAMES, [entry.title for entry in ENTRIES]):
            assert not [value for value, count in Counter(values).items() if count > 1]
        assert set(CONDITIONED.values()) <= set(NAMES)

    @pytest.mark.parametrize("use", ["measured", "analysed"])
    def test_no_two_look_alike_in_a_figure(self, use: str) -> None:
        drawn = [entry for entry in ENTRIES if getattr(entry, use)(FITTING)]
        for one, other in combinations(drawn, 2):
            assert (one.colour, one.line) != (other.colour, other.line), f"{one.name} and {other.name}"

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("full", [False, True])
    def test_no_setting_is_listed_twice(self, name: str, full: bool) -> None:
        fitting = FULL if full else FITTING
        entry = catalogue()[name]
        for use in USES:
            settings = list(getattr(entry, use)(fitting))
            assert len(settings) == len(set(settings))
        scored = entry.settings(fitting)
        assert len(scored) == len(set(scored))
        assert bool(scored) == (full or name not in ONLY_IN_FULL)
        assert {*entry.measured(fitting), *entry.analysed(fitting), *entry.compared(fitting)} == set(scored)

    @pytest.mark.parametrize("name", NAMES)
    def test_its_codecs_can_be_made_at_every_setting(self, name: str) -> None:
        entry = catalogue()[name]
        for setting in settings_of(entry, FITTING):
            codecs = entry.codecs(FITTING, setting)
            assert len(codecs) == (1 if name in CLOSED_FORM else 2)
            for codec in codecs:
                tokens = codec.encode(HELD_OUT[:2])
                assert codec.decode(tokens).shape == HELD_OUT[:2].shape
                assert 0 <= tokens.codes[tokens.sent].min() <= tokens.codes.max() < codec.vocabulary

    @pytest.mark.parametrize("name", sorted(ONLY_IN_FULL))
    def test_under_full_transformers_of_chunks_can_be_made_of_every_size(self, name: str) -> None:
        entry = catalogue()[name]
        tokens = {}
        for setting in entry.settings(FULL):
            (codec,) = entry.codecs(FULL, setting)
            encoded = codec.encode(HELD_OUT[:2])
            assert codec.decode(encoded).shape == HELD_OUT[:2].shape
            assert codec.bits(encoded) == pytest.approx(encoded.codes.shape[1] * np.log2(1000))
            tokens[str(setting)] = encoded.codes.shape[1]
        sizes = {f"registers={count}": count for count in range(1, 9)}
        assert tokens == (sizes if name == "oat" else {f"steps_a_token={steps}": 8 // steps for steps in (1, 2, 4)})

    @pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if entry.networks(True)])
    def test_under_full_those_of_the_sweep_can_be_made_too(self, name: str) -> None:
        entry = catalogue()[name]
        swept = [setting for setting in entry.settings(FULL) if setting.get("latents") is not None]
        if not any(network.swept for network in entry.networks(True)):
            assert not swept
            return
        assert len(swept) == len(SWEEP_LATENTS) * len(SWEEP_LEVELS) * LAYERS
        for setting in swept:
            (codec,) = entry.codecs(FULL, setting)
            assert codec.vocabulary == setting.count("levels")
            tokens = codec.encode(HELD_OUT[:1])
            per_step = tokens.codes.size if tokens.of_whole_chunks else tokens.codes[0, 0].size
            assert per_step == setting.count("latents") * setting.count("layers")
        assert not [setting for setting in entry.settings(FITTING) if setting.get("latents") is not None]

    @pytest.mark.parametrize("name", [name for name in NAMES if name not in {"naive_refitted", "layernorm_refitted"}])
    def test_of_fixed_length_are_those_that_say_so(self, name: str) -> None:
        entry, fitting = catalogue()[name], FULL if name in ONLY_IN_FULL else FITTING
        codec = entry.codecs(fitting, entry.settings(fitting)[-1])[0]
        lengths = codec.encode(HELD_OUT).lengths
        assert (len(set(lengths.tolist())) == 1) == entry.fixed_length

    @pytest.mark.parametrize("name", NAMES)
    def test_what_is_predicted_has_a_space_to_predict_it_in(self, name: str) -> None:
        entry, fitting = catalogue()[name], FULL if name in ONLY_IN_FULL else FITTING
        assert name not in ONLY_IN_FULL or entry.predicted(fitting)
        for setting in entry.predicted(fitting):
            assert entry.space is not None
            codec = entry.codecs(fitting, setting)[0]
            space = entry.space(codec, HELD_OUT.shape[1])
            decoded = codec.decode(codec.encode(HELD_OUT))
            assert space.decode(space.tokens(HELD_OUT)) == pytest.approx(decoded, abs=1e-6)

    @pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if entry.reads])
    def test_what_reads_anothers_tokens_reads_just_these(self, name: str) -> None:
        entry = catalogue()[name]
        setting = Setting.of(layers=LAYERS)
        for own, read in zip(
            entry.codecs(FITTING, setting), catalogue()[entry.reads].codecs(FITTING, setting), strict=True
        ):
            assert np.array_equal(own.encode(HELD_OUT).codes, read.encode(HELD_OUT).codes)

    @pytest.mark.parametrize("name", sorted(CLOSED_FORM))
    def test_closed_forms_need_no_model(self, name: str) -> None:
        alone = Fitting(make_dataset())
        (codec,) = catalogue()[name].codecs(alone, catalogue()[name].measured(alone)[0])
        assert codec.encode(HELD_OUT)

    def test_a_network_is_named_by_one_entry(self) -> None:
        networks = [network for entry in ENTRIES for network in entry.networks(True)]
        assert len(networks) == len(set(networks))
        assert all(isinstance(network, Network) for network in networks)

    def test_one_is_added_by_its_entry_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = replace(catalogue()["bins"], name="made_up")
        monkeypatch.setattr(catalogue_module, "ENTRIES", (*ENTRIES, entry))
        assert list(catalogue()) == [*NAMES, "made_up"]


class TestFirstLayers:
    @pytest.mark.parametrize("name", list(CONDITIONED.values()))
    def test_are_those_of_all_layers(self, name: str) -> None:
        entry = catalogue()[name]
        whole, first = (entry.codecs(FITTING, Setting.of(layers=count))[1] for count in (LAYERS, 2))
        assert isinstance(first, RFSQCodec)
        assert np.array_equal(first.encode(HELD_OUT).codes, whole.encode(HELD_OUT).codes[..., :2])
        assert first.bits(first.encode(HELD_OUT)) == pytest.approx(whole.bits(whole.encode(HELD_OUT)) * 2 / LAYERS)

    @pytest.mark.parametrize("name", ["naive", "fixed_scale"])
    def test_a_policy_predicts_three_at_most_without_full(self, name: str) -> None:
        dataset = make_dataset()
        some, more = (
            catalogue()[name].predicted(Fitting(dataset, rfsq_codecs(dataset), full=full)) for full in (False, True)
        )
        assert some[0].count("layers") == min(more[0].count("layers"), 3)


class TestChunksOfOtherLengths:
    def test_of_eight_steps_rates_and_codes_are_those_of_the_lists(self) -> None:
        for number in (*FITTED_RATES, *PLAYED_RATES, POLICY_CODES):
            assert at_steps(number, 8) == number

    @given(st.floats(1, 500), st.integers(1, 64))
    def test_they_are_as_many_a_step(self, number: float, steps: int) -> None:
        assert at_steps(number, steps) == max(1, round(number * steps / 8))

    def test_of_four_times_as_many_steps_all_are_four_times_as_many(self) -> None:
        long = Fitting(replace(make_dataset(), chunk_len=32, stride=32))
        for name, rates in (("klt", FITTED_RATES), ("klt_rfsq_variable", FITTED_RATES), ("fast", PLAYED_RATES)):
            entry = catalogue()[name]
            settings = entry.played(long) if name == "fast" else entry.measured(long)
            found = [setting["rate"] for setting in settings if setting.get("rate")]
            assert found == [4 * rate for rate in rates]
        assert [setting["codes"] for setting in catalogue()["klt_rfsq_fixed"].predicted(long)] == [4 * POLICY_CODES]
        assert [codec.rate for codec in klt_rfsq_of(long)] == [4 * rate for rate in FITTED_RATES]

    @pytest.mark.parametrize("steps", [1, 3, 8, 32])
    def test_the_rate_that_is_quoted_is_the_shown_one(self, steps: int) -> None:
        fitting = Fitting(replace(make_dataset(), chunk_len=steps, stride=steps))
        for name in ("fast", "klt_rfsq_fixed", "klt_rfsq_variable"):
            played = [str(setting) for setting in catalogue()[name].played(fitting)]
            assert quoted_rate(reversed(played)) == f"rate={at_steps(SHOWN_RATE, steps)}"

    def test_none_is_quoted_where_none_was_played(self) -> None:
        assert quoted_rate(["scale=10", "layers=3"]) == ""
        assert quoted_rate(["rate=80", "scale=10"]) == "rate=80"


class TestClosedForm:
    def test_is_fitted_to_train_chunks_alone(self) -> None:
        dataset = make_dataset()
        held_out = {*dataset.split.test, *dataset.split.validation}
        other = [replace(e, actions=e.actions * 0.5) if i in held_out else e for i, e in enumerate(dataset.episodes)]
        same = fitting_chunks(Fitting(replace(dataset, episodes=tuple(other))))
        assert np.array_equal(TRAIN, same)
        assert TRAIN.shape[1:] == (8, 7)

    def test_klt_rfsq_is_fitted_once_and_not_again_where_it_was_before(self) -> None:
        dataset = make_dataset()
        model = KltRFSQ.fit(TRAIN, dataset.layout, dataset.normaliser)
        before = fit_variable_length(model, TRAIN, (40, 80))
        assert klt_rfsq_of(Fitting(dataset, klt_rfsq=before)) is before
        assert klt_rfsq_of(FITTING) is klt_rfsq_of(FITTING)
        assert [codec.rate for codec in klt_rfsq_of(FITTING)] == list(FITTED_RATES)
        fixed, variable = (made(name, Setting.of(rate=80)) for name in ("klt_rfsq_fixed", "klt_rfsq_variable"))
        assert isinstance(fixed, FixedLength)
        assert fixed.model is klt_rfsq_of(FITTING)[0].model
        assert variable is next(codec for codec in klt_rfsq_of(FITTING) if codec.rate == 80)

    @pytest.mark.parametrize("rate", FITTED_RATES)
    def test_codes_of_a_fixed_length_fit_into_the_rate_and_one_more_would_not(self, rate: int) -> None:
        model = klt_rfsq_of(FITTING)[0].model
        count = codes_at(model, rate)
        spent = FixedLength(model, count).bits(FixedLength(model, count).encode(HELD_OUT))
        assert spent == pytest.approx(model.gripper_bits + count * np.log2(BRANCHES))
        assert spent <= rate
        assert count == len(model.residual_codes) or spent + np.log2(BRANCHES) > rate

    def test_codes_at_no_rate_and_at_any_are_none_and_all(self) -> None:
        model = klt_rfsq_of(FITTING)[0].model
        assert codes_at(model, 0) == 0
        assert codes_at(model, 1e6) == len(model.residual_codes)

    @pytest.mark.parametrize("rate", [40, 80])
    def test_fast_at_a_rate_costs_a_validation_chunk_about_what_klt_rfsq_does(self, rate: int) -> None:
        validation = FITTING.dataset.held_out_chunks("validation").actions
        spent = [
            codec.bits(codec.encode(validation))
            for codec in (made(name, Setting.of(rate=rate)) for name in ("fast", "klt_rfsq_variable"))
        ]
        assert spent[0] == pytest.approx(spent[1], rel=0.1)

    def test_fast_at_a_scale_is_at_that_scale(self) -> None:
        codec = made("fast", Setting.of(scale=10))
        assert isinstance(codec, FastCodec)
        assert codec.scale == 10
