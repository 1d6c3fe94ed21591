"""A tokenizer that is brought, from the option to the rows, the tables and what is played."""

from __future__ import annotations

import pickle
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from documented import blocks
from small_runs import SMALL, compare_in, ignore_progress, make_dataset, quickly, train_into

from workbook import run
from workbook.codecs import catalogue as catalogue_module
from workbook.codecs.brought import BroughtCodec, fit_brought
from workbook.codecs.catalogue import (
    BROUGHT,
    ENTRIES,
    Fitting,
    brought_entry,
    catalogue,
    entries,
    fitting_chunks,
    not_predicted,
)
from workbook.common.paths import OutputFolder, whole_path
from workbook.common.stages import write_stage
from workbook.data.dataset import save_dataset
from workbook.evaluation.evidence import Evidence
from workbook.evaluation.policy.evidence import RETRAINED
from workbook.evaluation.policy.network import TOKEN_RULES
from workbook.evaluation.policy.probe import ProbeConfig, _malformed, predicted_codecs, probe
from workbook.evaluation.policy.trial import Trial
from workbook.evaluation.replay.codecs import played_codecs
from workbook.report.figures import policy as policy_figures
from workbook.report.tables import rate_distortion as tables
from workbook.report.tables.comparison import bits_table, physical_table
from workbook.report.tables.policy import accuracy_table, network_table, policy_table, summary_table
from workbook.report.tables.token_costs import phase3_table, token_costs_table
from workbook.training.baselines import BaselineConfig
from workbook.training.runs import load_fitting

FAILING = "\n        if any(sequence[0] > 40 for sequence in tokens):\n            raise ValueError('not this one')\n"
HEAD = "    def decode(self, tokens):"


def compared_with(folder: Path, tokenizer: str) -> Evidence:
    """03_compare with a tokenizer that is brought."""
    out = OutputFolder.at(str(folder))
    save_dataset(make_dataset(), out)
    write_stage(out, "data", {}, {})
    training = write_stage(out, "training", {}, train_into(folder, SMALL, 2))
    config = BaselineConfig(1, codecs=tokenizer)
    found = compare_in(folder, training, config)
    parameters = {"baseline_steps": 1, "full": False, "codecs": config.codecs, "trust_remote_code": False}
    write_stage(out, "comparison", parameters, found.values, {"scores": found.scores, **found.tables})
    return Evidence(folder)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """With the tokenizer that the documents show, which here fails on some sequences."""
    folder = tmp_path_factory.mktemp("brought")
    ((_, snippet),) = [(at, code) for at, code in blocks("python") if at.startswith("docs/codecs.md")]
    head = next(line for line in snippet.splitlines() if line.startswith(HEAD))
    path = folder / "my_tokenizer.py"
    path.write_text(snippet.replace(head, head + FAILING), encoding="utf8")
    return compared_with(folder, f"{path}:MyTokenizer")


NAME = f"{BROUGHT}MyTokenizer"


def test_it_has_rows_like_any_other(compared: Evidence) -> None:
    assert (NAME, "") in compared.scores.listed("measured")
    assert (NAME, "") in compared.scores.listed("compared")
    assert compared.scores.cost(NAME)["bits"] == 8 * 7 * 6
    of_bins = compared.scores.estimate("mse", "bins", "bins=64").mean
    mine = compared.scores.estimate("mse", NAME).mean
    assert mine is not None
    assert of_bins is not None
    assert mine > of_bins  # what it does not decode is far off


def test_its_faults_are_counted_and_shown(compared: Evidence) -> None:
    faults = compared.brought["MyTokenizer"]
    assert 0 < faults["raised"] < faults["chunks"] == len(make_dataset().held_out_chunks("test").actions)
    assert tables.brought_table(compared).rows == [
        ["MyTokenizer", str(faults["chunks"]), "0", str(faults["raised"]), "0", "0", "0"]
    ]
    assert any(row[0] == "MyTokenizer" for row in tables.codecs_table(compared).rows)


def test_what_its_tokens_cost_is_told_with_its_faults(compared: Evidence) -> None:
    costs = compared.table("token_costs").set_index("codec").loc[NAME]
    assert 0 < costs.decodes < 1  # of 64 first values 41 decode
    assert abs(costs.decodes - 41 / 64) < 0.15
    assert (costs[["encode_ms", "decode_ms", "mse_first", "mse_middle", "mse_last"]] > 0).all()
    assert any(row[0] == "MyTokenizer" for row in token_costs_table(compared).rows)


@pytest.mark.slow
def test_a_network_of_a_third_party_stands_in_every_table(tmp_path: Path) -> None:
    """OAT's of pat-vla, in a file as a user would write it."""
    try:
        version("pat-vla")
    except PackageNotFoundError:
        pytest.skip("pat-vla is not installed; pip install --no-deps pat-vla==0.1.3 to bring its network")
    run, name = compared_with(tmp_path, f"{Path(__file__).parents[1] / 'pat_oat.py'}:OatTokenizer"), "OatTokenizer"
    faults, costs = run.brought[name], run.table("token_costs").set_index("codec").loc[BROUGHT + name]
    assert faults == dict.fromkeys(faults, 0) | {"chunks": faults["chunks"]}
    assert (costs.tokens, costs.decodes) == (8, 1)
    assert costs.bits == pytest.approx(8 * np.log2(1000))
    assert costs.mse_first > costs.mse
    for table in (tables.codecs_table, tables.brought_table, token_costs_table, bits_table, physical_table):
        shown = table(run)
        assert name in [*shown.header, *(row[0] for row in shown.rows)], table.__name__


@pytest.fixture(scope="module")
def probed(compared: Evidence) -> Evidence:
    """The same after 04_residual_analysis, of few codecs of the catalogue."""
    fitting = load_fitting(compared.out, compared.training, make_dataset())
    with pytest.MonkeyPatch.context() as patch, quickly():
        few = tuple(each for each in ENTRIES if each.name in ("naive", "fixed_scale", RETRAINED, "klt_rfsq_fixed"))
        patch.setattr(catalogue_module, "ENTRIES", few)
        found = probe(fitting, ProbeConfig(3), ignore_progress)
    write_stage(compared.out, "policy", {}, found.values, {"probe": found.rows, **found.tables})
    return Evidence(compared.out.root)


class TestPolicies:
    def test_predict_its_tokens_beside_the_others(self, probed: Evidence) -> None:
        policy, mine = probed.policy, probed.policy.of(NAME)
        assert policy.codecs[-1] == mine
        assert (policy.layers(mine), policy.tokens_per_chunk(mine)) == (1, 8 * 7)
        assert (policy.rules(mine), policy.told_rules(mine)) == (list(TOKEN_RULES), ["parallel_argmax"])
        assert policy.codec_mse(mine).mean == pytest.approx(probed.scores.estimate("mse", NAME).mean)
        assert policy.new_codec != mine
        assert policy.not_predicted == {}

    def test_count_what_they_say_that_does_not_decode_as_the_middle(self, probed: Evidence) -> None:
        """A failing chunk is one whose first token is too large; see `FAILING`."""
        policy, fitting = probed.policy, load_fitting(probed.out, probed.training, make_dataset())
        space = pickle.loads(pickle.dumps(predicted_codecs(fitting)[policy.of(NAME)])).space(0)  # as workers get it
        said = np.full((2, 1, 56), 40)
        said[1, 0, 0] = 41
        decoded = fitting.normaliser.normalise(space.decode([said]))
        assert decoded[0].ravel() == pytest.approx(np.full(56, 40 / 63 * 2 - 1))
        assert decoded[1].ravel() == pytest.approx(np.zeros(56))
        trial = cast(Trial, SimpleNamespace(space=space))
        assert _malformed(trial, {"parallel_argmax": [said], "autoregressive": []}) == 0.5

    def test_stand_in_every_table_and_figure_of_policies(self, probed: Evidence) -> None:
        for table in (summary_table, policy_table, network_table, accuracy_table, phase3_table):
            assert "MyTokenizer" in {cell for row in table(probed).rows for cell in row}, table.__name__
        assert "MyTokenizer" in policy_figures.policies(probed).alt


FIXED, LONGER = "test_brought:Rounder", "test_brought:Shorter"  # in tests/codecs


@pytest.mark.parametrize(
    ("spec", "full", "most", "why"),
    [
        (FIXED, False, 56 * 201, ""),
        (FIXED, True, 56 * 201 - 1, "too_many_values"),
        (LONGER, False, 10**6, "varies"),
        (LONGER, True, 56 * 202, ""),
        (LONGER, True, 56 * 202 - 1, "too_many_values"),
    ],
)
def test_what_no_policy_predicts_says_why(
    spec: str, full: bool, most: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "codecs")
    monkeypatch.setattr(catalogue_module, "MOST_LOGITS", most)
    dataset = make_dataset()
    train = fitting_chunks(Fitting(dataset))
    train[:3, 2:] = dataset.normaliser.denormalise(np.zeros(7))
    codec = fit_brought(spec, train, dataset.normaliser)
    fitting = Fitting(dataset, brought=[codec], full=full)
    (name,) = [each.name for each in entries(fitting) if each.name.startswith(BROUGHT)]
    assert not_predicted(fitting) == ({name: why} if why else {})
    assert len(brought_entry(name).predicted(fitting)) == (not why)


def test_one_that_no_process_can_be_given_is_not_predicted() -> None:
    codec = BroughtCodec("made", lambda chunks: [], make_dataset().normaliser, (8, 7), lengths=(1, 1))
    codec.tokenizer.__dict__["vocab_size"] = 2
    assert not_predicted(Fitting(make_dataset(), brought=[codec])) == {f"{BROUGHT}made": "cannot_be_sent"}
    silent = replace(codec, lengths=(0, 0))
    assert not_predicted(Fitting(make_dataset(), brought=[silent])) == {f"{BROUGHT}made": "no_tokens"}


def test_it_is_made_again_for_what_is_played(compared: Evidence) -> None:
    fitting = load_fitting(compared.out, compared.training, make_dataset())
    (played,) = [each for each in played_codecs(fitting, compared.training) if each.name == NAME]
    chunks = make_dataset().held_out_chunks("test").actions
    assert played.codecs[0].decode(played.codecs[0].encode(chunks)).shape == chunks.shape


def test_only_names_that_were_brought_have_an_entry_without_the_catalogue() -> None:
    assert catalogue()[NAME].title == brought_entry(NAME).title == "MyTokenizer"
    assert NAME not in catalogue()
    with pytest.raises(KeyError):
        catalogue()["MyTokenizer"]


def test_one_that_is_not_there_is_one_sentence_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run.main(["--smoke", "--codec", "nowhere.py:Class", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no such file" in said


def test_a_path_is_understood_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").touch()
    assert whole_path("mine.py:Class") == f"{tmp_path}/mine.py:Class"
    assert whole_path("mine.py") == f"{tmp_path}/mine.py"
    assert whole_path("package.module:Class") == "package.module:Class"
