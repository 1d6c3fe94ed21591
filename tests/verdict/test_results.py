"""results.json: what was decided, from the files of one run; values, no rows and no words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_rows import (
    EPISODES,
    NOTHING_ODD,
    SEEDS,
    MadePolicy,
    MadeReplays,
    curve_rows,
    layer_rows,
    model_rows,
    passing_scores,
    training_values,
)

from workbook.common.errors import InputError
from workbook.common.note import note
from workbook.common.paths import OutputFolder
from workbook.common.stages import OPTIONAL, STAGES, stage_path, table_path, write_stage
from workbook.evaluation.evidence import Evidence
from workbook.verdict import results
from workbook.verdict.claims import guide_claims
from workbook.verdict.criteria import JUDGED, Shortfall, evaluate

SCORES = passing_scores()
REPLAY = OPTIONAL[0]


class MadeRecommendation:
    def as_json(self) -> dict[str, Any]:
        return {"option": "keep naive", "words": {"A": "FAIL", "B": "NOT SHOWN"}, "measured": float("nan")}


CODES = pd.DataFrame({"codec": ["naive"], "layer": [0], "latent": [0], "code": [3]})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[list[Shortfall]]:
    """What the recommendation and the word on success were told to be short of; both have tests of their own."""
    found: list[list[Shortfall]] = []

    def recommend(run: Evidence, missing: list[Shortfall]) -> MadeRecommendation:
        found.append(missing)
        return MadeRecommendation()

    def success_word(replays: object, missing: list[Shortfall]) -> str:
        found.append(missing)
        return "NOT RUN"

    monkeypatch.setattr(results, "recommend", recommend)
    monkeypatch.setattr(results, "success_word", success_word)
    return found


def write_run(
    out: OutputFolder, epochs: int = 100, baseline_steps: int = 1000, policy_steps: int = 1600, full: bool = False
) -> Evidence:
    """The stages of a finished run without a replay, in order."""
    data = {"origin": {"name": "walks", "kind": "random walks"}, "dataset_sha256": "abc", **NOTHING_ODD}
    write_stage(out, "data", {"data": "walks"}, data)
    curves = {"training": curve_rows()}
    write_stage(out, "training", {"seeds": SEEDS}, training_values(epochs), curves)
    write_stage(
        out, "comparison", {"baseline_steps": baseline_steps, "full": full},
        {"test_episodes": EPISODES, "test_steps": 5000, "layout": "joint:7"},
        {"scores": SCORES.rows, "models": model_rows(), "layers": layer_rows(), "codes": CODES},
    )  # fmt: skip
    write_stage(out, "policy", {"policy_steps": policy_steps}, {"config": {"steps": policy_steps}})
    return read_run(out)


def read_run(out: OutputFolder) -> Evidence:
    """The files as they are now; of policies and replays, what is made up."""
    run = Evidence(out.root)
    vars(run).update(policy=MadePolicy(), replays=MadeReplays())
    return run


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


def written(run: Evidence) -> dict[str, Any]:
    results.assemble(run)
    return json.loads(run.out.results.read_text(encoding="utf8"), parse_constant=refuse_constant)


@pytest.mark.usefixtures("told")
class TestFile:
    def test_holds_what_was_decided(self, out: OutputFolder) -> None:
        run = write_run(out)
        found = written(run)
        assert found["schema"] == 5
        assert found["verdict"]["word"] == "FAIL"
        assert found["verdict"]["parts"] == [
            {"key": "layernorm", "word": "FAIL"},
            {"key": "fixed_scale", "word": "PASS"},
            {"key": "retraining", "word": "FAIL"},
            {"key": "success", "word": "NOT RUN"},
        ]
        assert found["verdict"]["shortfalls"] == []
        assert found["criteria"] == json.loads(json.dumps([criterion.as_json() for criterion in evaluate(run)]))
        assert found["claims"] == json.loads(json.dumps([claim.as_json() for claim in guide_claims(run)]))
        assert found["recommendation"]["option"] == "keep naive"

    def test_holds_what_in_the_data_keeps_it_from_being_evidence(
        self, out: OutputFolder, told: list[list[object]]
    ) -> None:
        run, doubt = write_run(out), note("white_noise", largest=0.1, even=True)
        run.data.update(doubts=[doubt])
        verdict = written(run)["verdict"]
        assert (verdict["shortfalls"], verdict["data_doubts"]) == ([], [doubt])
        assert {part["word"] for part in verdict["parts"][:2]} == {"NOT SHOWN"}
        assert told == [[doubt], [doubt]]
        run.data.update(doubts_accepted=True)
        verdict = written(run)["verdict"]
        assert (verdict["word"], verdict["data_doubts"]) == ("FAIL", [])
        assert told[2:] == [[], []]

    def test_is_what_is_read_from_the_folder(self, out: OutputFolder) -> None:
        found = written(write_run(out))
        assert read_run(out).decided
        assert read_run(out).results == found

    def test_says_where_the_figures_come_from(self, out: OutputFolder) -> None:
        provenance = written(write_run(out))["provenance"]
        assert (provenance["data"], provenance["dataset_sha256"]) == ("walks (random walks)", "abc")
        assert (provenance["seeds"], provenance["device"]) == (list(range(SEEDS)), "cpu")
        assert provenance["parameters"]["training"] == {"seeds": SEEDS}
        assert list(provenance["parameters"]) == [name for name in STAGES if name not in OPTIONAL]
        assert provenance["run_seconds"] >= 0
        assert {"code", "rfsq_robust_sha256", "python", "packages", "command", "written"} <= provenance.keys()

    def test_is_small_and_holds_neither_sentences_nor_rows(self, out: OutputFolder) -> None:
        found = written(write_run(out))
        assert out.results.stat().st_size < 60_000
        provenance = found.pop("provenance")
        words = [value for value in leaves(found) if isinstance(value, str)]
        assert words
        assert [text for text in words if len(text.split()) > 5] == []
        assert "per_seed" not in json.dumps(found)
        assert len(list(leaves(found))) < 1000
        assert not {"scores", "models", "layers", "tables"} & (found.keys() | provenance.keys())

    def test_holds_no_nan(self, out: OutputFolder) -> None:
        assert written(write_run(out))["recommendation"]["measured"] is None

    def test_lists_the_parameters_of_a_replay(self, out: OutputFolder) -> None:
        write_run(out)
        write_stage(out, REPLAY, {"workers": 2}, {})
        assert written(read_run(out))["provenance"]["parameters"][REPLAY] == {"workers": 2}

    @pytest.mark.parametrize("spoil", ["older", "damaged"])
    def test_does_without_a_replay_that_does_not_fit(self, out: OutputFolder, spoil: str) -> None:
        write_run(out)
        write_stage(out, REPLAY, {"workers": 2}, {})
        if spoil == "older":
            write_stage(out, "policy", {}, {"config": {"steps": 401}})
        else:
            stage_path(out, REPLAY).write_text("{", encoding="utf8")
        assert REPLAY not in written(read_run(out))["provenance"]["parameters"]


class TestRehearsal:
    def test_shows_nothing_and_says_what_is_missing(self, out: OutputFolder, told: list[list[Shortfall]]) -> None:
        verdict = written(write_run(out, epochs=2, baseline_steps=3, policy_steps=4))["verdict"]
        assert verdict["word"] == "NOT SHOWN"
        assert [part["word"] for part in verdict["parts"] if part["key"] in JUDGED] == ["NOT SHOWN"] * 2
        assert verdict["shortfalls"] == [
            {"key": "epochs", "have": 2, "least": 100},
            {"key": "policy_steps", "have": 4, "least": 1600},
            {"key": "baseline_steps", "have": 3, "least": 1000},
        ]
        assert [[shortfall.key for shortfall in missing] for missing in told] == [
            ["epochs", "policy_steps", "baseline_steps"]
        ] * 2

    def test_of_full_size_trains_its_baselines_by_epochs(self, out: OutputFolder, told: list[list[Shortfall]]) -> None:
        written(write_run(out, baseline_steps=3, full=True))
        assert told == [[], []]


@pytest.mark.usefixtures("told")
class TestRefusals:
    @pytest.mark.parametrize("name", [name for name in STAGES if name not in OPTIONAL])
    def test_every_stage_is_needed(self, out: OutputFolder, name: str) -> None:
        write_run(out)
        stage_path(out, name).unlink()
        with pytest.raises(InputError, match=STAGES[name]):
            results.assemble(read_run(out))
        assert not out.results.exists()

    @pytest.mark.parametrize(("again", "older"), [("data", "training"), ("training", "comparison")])
    def test_a_stage_older_than_the_one_before_is_refused(self, out: OutputFolder, again: str, older: str) -> None:
        run = write_run(out)
        content = {"data": run.data, "training": run.training}[again]
        write_stage(out, again, {"again": True}, content)
        with pytest.raises(InputError, match=f"run {STAGES[older]} again"):
            results.assemble(read_run(out))
        assert not out.results.exists()

    def test_tables_of_another_run_are_refused(self, out: OutputFolder) -> None:
        write_run(out)
        path = table_path(out, "models")
        pd.read_parquet(path).assign(decode_error=0.0).to_parquet(path)
        with pytest.raises(InputError, match="03_compare"):
            results.assemble(read_run(out))


def test_a_folder_without_results_says_what_to_run(tmp_path: Path) -> None:
    run = Evidence(tmp_path)
    assert not run.decided
    with pytest.raises(InputError, match=r"\./run_all\.sh"):
        _ = run.results


@pytest.mark.parametrize("old", [{"verdict": {"word": "PASS"}}, {"schema": 1}])
def test_results_of_another_version_are_refused(tmp_path: Path, old: dict[str, Any]) -> None:
    run = Evidence(tmp_path)
    run.out.results.write_text(json.dumps(old), encoding="utf8")
    with pytest.raises(InputError, match=r"another version wrote it; run \./run_all\.sh"):
        _ = run.results
