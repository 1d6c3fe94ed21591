"""What the documents say is what was measured, and what they show runs."""

import json
import re
from pathlib import Path

import pytest
import torch
from small_runs import make_dataset

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Checkpoint, Conditioning, save_checkpoint
from workbook import criteria, documents, findings, run
from workbook.claims import HOLDS, SUCCESS_CLAIMS
from workbook.codecs.klt_rfsq import KltRFSQ, fit_varying
from workbook.codecs.klt_rfsq_file import save_klt_rfsq
from workbook.errors import InputError
from workbook.evaluation import STAND_IN
from workbook.paths import NOTEBOOKS, REPOSITORY
from workbook.recommendation import options, recommend
from workbook.replay.findings import meets_claim, verdict_part
from workbook.residual_analysis import partings
from workbook.rivals import fitting_chunks
from workbook.simulation import record

TEXTS = {name: (REPOSITORY / name).read_text(encoding="utf8") for name in documents.DOCUMENTS}


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_figures_in_a_document_are_those_of_the_committed_results(name: str) -> None:
    assert documents.render(TEXTS[name], documents.load_results()) == TEXTS[name]


def test_a_changed_result_changes_the_documents() -> None:
    """The guard of the test above: it can fail."""
    results = documents.load_results()
    results["models"]["none"]["token_mse"]["mean"] *= 2
    assert documents.render(TEXTS["README.md"], results) != TEXTS["README.md"]


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_every_marker_is_closed_and_known(name: str) -> None:
    markers = re.findall(r"<!-- results: (\w+) -->", TEXTS[name])
    assert set(markers) <= set(documents.BLOCKS)
    assert len(markers) == TEXTS[name].count("<!-- end -->") == len(documents.BLOCK.findall(TEXTS[name]))


def test_every_block_is_used() -> None:
    used = set(re.findall(r"<!-- results: (\w+) -->", "".join(TEXTS.values())))
    assert used == set(documents.BLOCKS)


def test_committed_results_are_of_a_full_run_on_the_sample() -> None:
    results = documents.load_results()
    assert results["verdict"]["not_evidence"] == []
    assert results["provenance"]["parameters"]["data"]["data"] == "sample"
    assert set(results["models"]) == set(CONDITIONINGS)


def test_sentences_of_the_committed_results_follow_from_their_figures() -> None:
    """A change of wording or of a rule needs a new run, or the documents would quote what no code says."""
    results = documents.load_results()
    comparison = documents.comparison_of(results) | {"test_episodes": results["test"]["episodes"]}
    judged = criteria.evaluate(comparison)
    assert json.loads(json.dumps(criteria.as_json(judged))) == results["criteria"]
    rates = {"codecs": results["codecs"], "against_fast": results["against_fast"]}
    evidence = (results["option_b"], results["phase2_probe"])
    recommendation = recommend(comparison, rates, *evidence, [])
    assert recommendation == results["recommendation"]
    replayed = verdict_part(results["replay"], [])
    assert criteria.decide(judged, comparison, [], recommendation, replayed) == results["verdict"]
    assert findings.against(comparison, results["models"], results["replay"]) == results["against"]
    assert options(recommendation, *evidence) == results["options"]
    assert partings(comparison, results["models"]) == results["partings"]


def test_committed_results_hold_enough_replays_of_all_that_is_compared() -> None:
    results = documents.load_results()
    replay = results["replay"]
    assert (replay["not_run"], replay["shortfalls"]) == ("", [])
    assert replay["exact"]["succeeded"] == replay["exact"]["final_state_equal"] == results["test"]["episodes"]
    assert all(
        len(entry["per_seed"]) in (1, len(results["provenance"]["seeds"])) for entry in replay["codecs"].values()
    )
    words = [row["word"] for row in results["guide_claims"] if "success" in row["claimed"]]
    contrasts = [replay["contrasts"][key][subject]["difference"] for subject, key, _ in SUCCESS_CLAIMS]
    assert words == [HOLDS[criteria.judge(gain, meets_claim)] for gain in contrasts]


def test_nothing_is_shown_to_tell_failed_replays_better_than_what_stands_in_for_the_simulator() -> None:
    found = documents.load_results()["replay"]["predictors"]
    assert found["best"] == STAND_IN or found["less_than_best"][STAND_IN]["low"] <= 0


def test_committed_results_are_of_committed_code() -> None:
    assert not documents.load_results()["provenance"]["code"].endswith("-dirty")


def test_committed_results_name_no_path_of_a_machine() -> None:
    assert not re.search(r'"/[a-z]+/', documents.RESULTS.read_text(encoding="utf8"))


def test_the_address_stands_in_one_place() -> None:
    address = documents.repository_address()
    for path in NOTEBOOKS.glob("*.ipynb"):
        text = path.read_text(encoding="utf8")
        assert address in text
        assert documents.with_address(text) == text
    assert address.removeprefix("https://github.com/") in TEXTS["README.md"]


def test_relative_links_lead_somewhere() -> None:
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (REPOSITORY / name).parent.joinpath(target).exists(), (name, target)


def test_options_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"`?(--[a-z][a-z-]+)", TEXTS["README.md"])) - {"--help"}
    options = vars(run.parse_arguments([])) | vars(record.parse_arguments(["--out", "anywhere"]))
    of_tests = re.findall(r'= "(--[a-z-]+)"', (REPOSITORY / "run_tests.sh").read_text(encoding="utf8"))
    assert named <= {f"--{name.replace('_', '-')}" for name in options} | set(of_tests)


def test_a_rehearsal_cannot_become_the_documents_results(tmp_path: Path) -> None:
    results = documents.load_results()
    results["verdict"]["not_evidence"] = ["2 of at least 100 epochs"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match="this is none"):
        documents.take_over(str(tmp_path))


def write_checkpoint(path: Path, conditioning: Conditioning) -> None:
    bounds = {"min": -torch.ones(7), "max": torch.ones(7)}
    save_checkpoint(path, Checkpoint(ActionRFSQAE(conditioning=conditioning), 1, 0.1, bounds))


def write_klt_rfsq(path: Path) -> None:
    dataset = make_dataset()
    model = KltRFSQ.fit(fitting_chunks(dataset), dataset.layout, dataset.normaliser)
    save_klt_rfsq(path, fit_varying(model, fitting_chunks(dataset), [60.0]))


def test_the_snippets_for_phase_2_and_3_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "rfsq_robust_scale_best.pt", "scale")
    write_checkpoint(tmp_path / "rfsq_robust_best.pt", "layernorm")
    scope: dict[str, torch.Tensor] = {}
    snippets = re.findall(r"```python\n(.*?)```", TEXTS["INTEGRATION_TO_PHASE2.md"], flags=re.DOTALL)
    assert len(snippets) == 5
    for snippet in snippets[:2]:
        exec(snippet, scope)
    assert scope["codes"].shape == (4, 8, 16, 8)
    assert scope["draft_labels"].shape == (4, 8, 16, 3)
    assert torch.equal(scope["decoded"], scope["codec"](scope["normalised"])[0])
    assert scope["command"].abs().max() <= 1
    exec(snippets[2], scope)
    assert scope["expected"].shape == (4, 8, 7)
    certain = torch.nn.functional.one_hot(scope["codes"], 7) * 1e4
    told = scope | {"certain": certain.float()}
    exec(snippets[2].replace("torch.randn(4, 8, 16, 8, 7)", "certain"), told)
    assert torch.allclose(told["expected"], scope["decoded"], atol=1e-5)
    write_klt_rfsq(tmp_path / "klt_rfsq.npz")
    exec(snippets[3], scope)
    assert scope["command"].shape == (4, 8, 7)
    assert scope["tokens"].codes.shape == (4, 37)
    exec(snippets[4], scope)
    assert torch.equal(scope["decoded"], scope["layernorm"](scope["normalised"])[0])
