"""What the documents say is what was measured, and what they show runs."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documented import blocks
from kernels import RECORDED
from scripts import load_script
from small_runs import make_dataset

from rfsq_robust import CONDITIONINGS, ActionRFSQAE, Checkpoint, Conditioning, save_checkpoint
from workbook import run
from workbook.codecs.klt_rfsq import KltRFSQ, fit_variable_length
from workbook.codecs.klt_rfsq_file import save_klt_rfsq
from workbook.common import targets
from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, REPOSITORY
from workbook.data.dataset import DataConfig, prepare_dataset
from workbook.evaluation.layers import discrepancies
from workbook.evaluation.metrics import STAND_IN
from workbook.export.tokens import export_tokens
from workbook.report import documents
from workbook.simulation.recorder import record
from workbook.training.baselines import fitting_chunks
from workbook.verdict import criteria, findings
from workbook.verdict.claims import HOLDS, SUCCESS_CLAIMS
from workbook.verdict.recommendation import options, recommend
from workbook.verdict.success import verdict_part

Scope = dict[str, Any]
CHECKPOINTS: dict[str, Conditioning] = {
    "rfsq_best.pt": "none",
    "rfsq_best_retrained_decoder.pt": "none",
    "rfsq_robust_best.pt": "layernorm",
    "rfsq_robust_scale_best.pt": "scale",
}
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
    assert discrepancies(comparison, results["models"]) == results["discrepancies"]


def test_committed_results_hold_enough_replays_of_all_that_is_compared() -> None:
    results = documents.load_results()
    replay = results["replay"]
    assert (replay["not_run"], replay["shortfalls"]) == ("", [])
    assert replay["exact"]["succeeded"] == results["test"]["episodes"]
    if replay.get("kernels", RECORDED) == RECORDED:  # the results of before they were told are of these
        assert replay["exact"]["final_state_equal"] == results["test"]["episodes"]
    assert all(
        len(entry["per_seed"]) in (1, len(results["provenance"]["seeds"])) for entry in replay["codecs"].values()
    )
    words = [row["word"] for row in results["guide_claims"] if "success" in row["claimed"]]
    contrasts = [replay["contrasts"][key][subject]["difference"] for subject, key, _ in SUCCESS_CLAIMS]
    assert words == [HOLDS[targets.GAINS_SUCCESS.judge(gain)] for gain in contrasts]


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
    """Those of commands in full are executed by test_commands.py; this holds those that are named alone."""
    text = re.sub(r"(?ms)^```.*?^```", "", TEXTS["README.md"])
    named = set(re.findall(r"`?(--[a-z][a-z-]+)", text)) - {"--help"}
    training = load_script("train_rfsq_robust").parse_arguments
    options = (
        vars(run.parse_arguments([]))
        | vars(record.parse_arguments(["--out", "anywhere"]))
        | vars(training([]))
        | vars(training([], in_cloud=True))
    )
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
    save_klt_rfsq(path, fit_variable_length(model, fitting_chunks(dataset), [60.0]))


INTEGRATION = "INTEGRATION_TO_PHASE2.md"
ELSEWHERE = {
    "LeRobot": "export/test_lerobot_adapter.py",
    "ONNX": "export/test_export_onnx.py",
}  # what executes these snippets


def fill(folder: Path) -> None:
    """What the snippets find in their folder: what a run leaves, and the exported tokens."""
    for name, conditioning in CHECKPOINTS.items():
        write_checkpoint(folder / name, conditioning)
    write_klt_rfsq(folder / "klt_rfsq.npz")
    shutil.copyfile(documents.RESULTS, folder / "results.json")
    export_tokens(folder / "rfsq_robust_scale_best.pt", folder / "tokens", "sample", DataConfig(num_episodes=8))


def check_labels(scope: Scope) -> None:
    assert scope["codes"].shape == (4, 8, 16, 8)
    assert scope["draft_labels"].shape == (4, 8, 16, 3)


def check_decoder(scope: Scope) -> None:
    assert torch.equal(scope["decoded"], scope["codec"](scope["normalised"])[0])
    assert scope["command"].abs().max() <= 1


def check_tokenizer(scope: Scope) -> None:
    codec, normalised, tokens = scope["codec"], scope["normalised"], torch.tensor(scope["tokens"])
    assert tokens.shape == (4, 384)
    assert (int(tokens.min()) >= 1000, int(tokens.max()) <= 1020) == (True, True)
    for found, layers in ((scope["command"], 3), (scope["coarse"], 1)):
        expected = codec.decode_from_indices(codec.encode(normalised)[..., :layers]).clamp(-1, 1)
        assert np.array_equal(found, expected.double().numpy())
    assert scope["allowed"] == range(1007, 1014)


def check_processor(scope: Scope) -> None:
    assert np.array_equal(scope["again"], scope["tokenizer"].decode(scope["tokenizer"](scope["actions"])))


def check_exported(scope: Scope) -> None:
    codec, checkpoint = scope["codec"], scope["checkpoint"]
    valid = scope["valid"]
    original = prepare_dataset("sample", DataConfig(num_episodes=8)).dataset.episodes[scope["episode"]].actions
    assert scope["part"] in ("train", "validation", "test")
    assert int(valid.sum()) == len(original) == len(scope["steps"])
    expected = checkpoint.denormalise(codec.decode_from_indices(scope["labels"])).clamp(-1, 1)[valid]
    assert torch.equal(scope["steps"], expected)
    assert torch.equal(scope["coarse_labels"], scope["labels"][..., :3])


def check_rows(scope: Scope) -> None:
    assert scope["rows"].shape[1:] == (8, 16, 8)
    assert (scope["ids"].min() >= 0, scope["ids"].max() < 56) == (True, True)
    assert np.array_equal(scope["ids"] // 7, np.broadcast_to(np.arange(8), scope["ids"].shape))


def check_klt_rfsq(scope: Scope) -> None:
    assert scope["command"].shape == (4, 8, 7)
    assert scope["tokens"].codes.shape == (4, 37)


def check_klt_tokenizer(scope: Scope) -> None:
    fixed, ids, tokenizer = scope["fixed"], np.array(scope["ids"]), scope["tokenizer"]
    grippers = len(fixed.model.grippers[0].trajectories)
    assert np.array_equal(scope["command"], fixed.decode(scope["tokens"]).clip(-1, 1))
    assert np.array_equal((ids[:, 1:] - 1000 - grippers) % 3, scope["tokens"].codes[:, 1:])
    assert scope["coarse"].shape == (4, 8, 7)
    assert (scope["allowed"].start, len(scope["allowed"])) == (1000 + grippers, 3)
    loaded = type(tokenizer).from_pretrained("klt_tokenizer")
    assert np.array_equal(loaded.decode(scope["ids"]), scope["command"])


def check_option_b(scope: Scope) -> None:
    assert scope["after"].shape == scope["before"].shape == (4, 8, 7)
    assert not torch.equal(scope["after"], scope["before"])


def check_option_c(scope: Scope) -> None:
    assert scope["decision"]["title"] == documents.load_results()["recommendation"]["title"]


def check_layernorm(scope: Scope) -> None:
    assert torch.equal(scope["decoded"], scope["layernorm"](scope["normalised"])[0])


CHECKS: dict[str, list[Callable[[Scope], None]]] = {
    "Encoder: labels for Phase 2": [check_labels],
    "Decoder: actions in Phase 3": [check_decoder],
    "The expected value instead of the most likely code": [lambda scope: None],  # below, with what is certain
    "A tokenizer for a language model": [check_tokenizer, check_processor],
    "Tokens of a whole data set": [check_exported, check_rows],
    "KLT-RFSQ": [check_klt_rfsq, check_klt_tokenizer],
    "The options in code": [check_option_b, check_option_c],
    "LayerNorm with its statistics": [check_layernorm],
}


def snippets_of(document: str) -> dict[str, list[str]]:
    """Heading -> its Python snippets."""
    found: dict[str, list[str]] = {}
    for place, snippet in blocks("python"):
        name, _, heading = place.partition(": ")
        if name == document:
            found.setdefault(heading, []).append(snippet)
    return found


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fill(tmp_path)
    return tmp_path


def test_the_snippets_for_phase_2_and_3_run(filled: Path) -> None:
    """One after the other, as they stand: later ones use what earlier ones made."""
    pytest.importorskip("transformers", reason="./run_tests.sh installs it")
    snippets = snippets_of(INTEGRATION)
    assert {heading: len(each) for heading, each in snippets.items() if heading not in ELSEWHERE} == {
        heading: len(checks) for heading, checks in CHECKS.items()
    }
    scope: Scope = {}
    for heading, each in snippets.items():
        if heading in ELSEWHERE:
            continue
        for snippet, check in zip(each, CHECKS[heading], strict=True):
            exec(snippet, scope)
            check(scope)
    assert (filled / "action_tokenizer" / "model.safetensors").is_file()


def test_the_expected_value_of_what_is_certain_is_its_decoding(filled: Path) -> None:
    snippets = snippets_of(INTEGRATION)
    first = ("Encoder: labels for Phase 2", "Decoder: actions in Phase 3")
    scope: Scope = {}
    for heading in first:
        exec(snippets[heading][0], scope)
    scope["certain"] = torch.nn.functional.one_hot(scope["codes"], 7) * 1e4
    (snippet,) = snippets["The expected value instead of the most likely code"]
    exec(snippet.replace("torch.randn(4, 8, 16, 8, 7)", "certain.float()"), scope)
    assert torch.allclose(scope["expected"], scope["decoded"], atol=1e-5)


@pytest.mark.parametrize(("heading", "file"), ELSEWHERE.items())
def test_other_snippets_are_executed_elsewhere(heading: str, file: str) -> None:
    assert heading in (REPOSITORY / "tests" / file).read_text(encoding="utf8")
    assert snippets_of(INTEGRATION)[heading]
