"""What the documents say is what was measured, and what they show runs."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from documented import blocks
from kernels import RECORDED
from scripts import load_script
from small_runs import make_dataset

from benchmarks import __main__ as benchmarks
from rfsq_robust import ActionRFSQAE, Checkpoint, Conditioning, save_checkpoint
from workbook.codecs.catalogue import CONDITIONED, Fitting, fitting_chunks
from workbook.codecs.klt_rfsq import KltRFSQ, fit_variable_length
from workbook.codecs.klt_rfsq_file import save_klt_rfsq
from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, REPOSITORY
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.evaluation.evidence import SCHEMA, Evidence
from workbook.evaluation.metrics import STAND_IN
from workbook.evaluation.score import Scores
from workbook.export.tokens import export_tokens
from workbook.options import parse_arguments
from workbook.report import budgets, documents, pages
from workbook.simulation.recorder import record
from workbook.verdict.claims import guide_claims
from workbook.verdict.criteria import evaluate
from workbook.verdict.recommendation import recommend

Scope = dict[str, Any]
CHECKPOINTS: dict[str, Conditioning] = {
    "rfsq_best.pt": "none",
    "rfsq_best_retrained_decoder.pt": "none",
    "rfsq_robust_best.pt": "layernorm",
    "rfsq_robust_scale_best.pt": "scale",
}
TEXTS = {name: (REPOSITORY / name).read_text(encoding="utf8") for name in documents.DOCUMENTS}


@pytest.fixture(scope="module")
def quoted() -> Evidence:
    """The run that the documents quote."""
    return Evidence(documents.SAMPLE_RUN)


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_figures_in_a_document_are_those_of_the_committed_run(quoted: Evidence, name: str) -> None:
    assert documents.render(name, TEXTS[name], quoted) == TEXTS[name]


def test_other_rows_change_the_documents(quoted: Evidence) -> None:
    """The guard of the test above: it can fail."""
    changed = Evidence(documents.SAMPLE_RUN)
    rows = quoted.scores.rows
    vars(changed)["scores"] = Scores(rows.assign(mse=rows.mse.where(rows.codec != "naive", 2 * rows.mse)))
    assert documents.render("docs/results.md", TEXTS["docs/results.md"], changed) != TEXTS["docs/results.md"]


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_every_marker_is_closed_and_known(name: str) -> None:
    markers = re.findall(r"<!-- results: (\w+) -->", TEXTS[name])
    assert set(markers) <= documents.KNOWN
    assert len(markers) == TEXTS[name].count("<!-- end -->") == len(documents.BLOCK.findall(TEXTS[name]))


def test_every_block_is_shown_somewhere() -> None:
    used = set(re.findall(r"<!-- results: (\w+) -->", "".join(TEXTS.values())))
    used |= {
        name for path in pages.TEMPLATES.glob("*.j2") for name in re.findall(r'block\("(\w+)"\)', path.read_text())
    }
    for path in NOTEBOOKS.glob("*.ipynb"):
        used |= set(re.findall(r'show\(run, \\"(\w+)\\"\)', path.read_text(encoding="utf8")))
    assert used == documents.KNOWN


def test_the_committed_run_may_be_quoted(quoted: Evidence) -> None:
    documents._check(quoted)
    assert set(CONDITIONED.values()) <= set(quoted.scores.rows.codec)
    assert quoted.results["schema"] == SCHEMA


def test_what_the_committed_run_decided_follows_from_its_rows(quoted: Evidence) -> None:
    """A change of a rule needs a new run, or the documents would quote what no code says."""
    results = quoted.results
    found = {
        "criteria": [criterion.as_json() for criterion in evaluate(quoted)],
        "recommendation": recommend(quoted, []).as_json(),
        "claims": [claim.as_json() for claim in guide_claims(quoted)],
    }
    for name, decided in found.items():
        assert alike(json.loads(json.dumps(decided)), results[name]), name


def alike(one: Any, other: Any) -> bool:
    """Whether values of results are equal; figures may differ in the last bits, which differ between processors."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def test_values_that_differ_are_told_apart() -> None:
    """The guard of the test above: it can fail."""
    one = {"key": "mse", "interval": [0.1, 0.2], "n": 38, "status": "met"}
    assert alike(one, one | {"interval": [0.1, 0.2 * (1 + 1e-12)]})
    for other in ({"interval": [0.1, 0.2001]}, {"interval": [0.1]}, {"n": 37}, {"status": "unmet"}, {"more": None}):
        assert not alike(one, one | other)


def test_the_committed_run_holds_enough_replays_of_all_that_is_compared(quoted: Evidence) -> None:
    assert documents.enough_replays_of_one_run(quoted)
    replays = quoted.replays
    assert replays.episodes == quoted.comparison["test_episodes"]
    if replays.kernels == RECORDED:
        assert replays.values["final_states"] == dict.fromkeys(("recorded", "equal"), replays.episodes)
    seeds = len(quoted.results["provenance"]["seeds"])
    assert all(len(of.per_seed) in (1, seeds) for of in replays.codecs)


def test_nothing_is_shown_to_tell_failed_replays_better_than_what_stands_in_for_the_simulator(quoted: Evidence) -> None:
    found = quoted.replays.predictors
    assert found.best == STAND_IN or STAND_IN in found.not_shown_worse


def test_the_committed_run_is_small_and_names_no_path_of_a_machine() -> None:
    files = [path for path in documents.SAMPLE_RUN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= documents.LARGEST
    assert documents.SAMPLE_RUN.joinpath("results.json").stat().st_size < 60_000
    for path in files:
        if path.suffix == ".json":
            assert not re.search(r'"/[a-z]+/', path.read_text(encoding="utf8")), path


def test_the_address_stands_in_one_place() -> None:
    address = documents.repository_address()
    for path in NOTEBOOKS.glob("*.ipynb"):
        text = path.read_text(encoding="utf8")
        assert address in text
        assert documents.with_address(text) == text
    assert address.removeprefix("https://github.com/") in TEXTS["docs/running.md"]


def test_relative_links_lead_somewhere() -> None:
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (REPOSITORY / name).parent.joinpath(target).exists(), (name, target)


SHORT = [name for name in documents.DOCUMENTS if name.startswith(("README", "COMPARISON", "docs/"))]
MOST_WORDS = 25  # of a sentence
IN_CHINESE = [name for name in documents.DOCUMENTS if name.endswith(".zh-CN.md")]
MOST_CHARACTERS = 60  # of a Chinese sentence
SPOKEN = ("answer", "verdict", "timing")  # blocks of results that are read as text


def test_the_readme_is_short_and_its_commands_stand_at_the_top() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 120
    for name in ("README.md", *IN_CHINESE):
        first = TEXTS[name].splitlines()[:15]
        assert {"./run_all.sh", "./run_tests.sh"} <= {line.partition(" ")[0] for line in first}


@pytest.mark.parametrize("name", [name for name in SHORT if name not in IN_CHINESE])
def test_sentences_are_short(name: str) -> None:
    """Those written by hand, and those of the answer and the verdict."""
    long = [sentence for sentence in sentences(TEXTS[name]) if len(sentence.split()) > MOST_WORDS]
    assert not long, long


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_sentences_of_notebooks_are_short(path: Path) -> None:
    texts = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]
    told = [sentence for text in texts for sentence in sentences(text)]
    assert [sentence for sentence in told if len(sentence.split()) > MOST_WORDS] == []
    assert len(told) > 10


@pytest.mark.parametrize("name", IN_CHINESE)
def test_chinese_sentences_are_short(name: str) -> None:
    told = [part for sentence in sentences(TEXTS[name]) for part in re.split("(?<=[\u3002\uff01\uff1f])", sentence)]
    assert [part for part in told if len(part) > MOST_CHARACTERS] == []
    assert len(told) > 10


def test_the_readme_in_english_and_in_chinese_link_to_each_other() -> None:
    pair = {"README.md": "README.zh-CN.md", "README.zh-CN.md": "README.md"}
    for name, other in pair.items():
        assert f"]({other})" in "".join(TEXTS[name].splitlines()[:4])


def sentences(text: str) -> list[str]:
    """Of paragraphs and lists, without tables, code and blocks of results."""
    text = documents.BLOCK.sub(
        lambda found: found[0] if found[1] in SPOKEN else "", re.sub(r"(?ms)^```.*?^```", "", text)
    )
    text = re.sub(r"<!--.*?-->|\*\*", "", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)  # where a link leads is not read
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:-|\d+\.) )|(?m:^#.*$|^\|.*$)", text)
    return [s.strip() for p in paragraphs for s in re.split(r"(?<=[.?!]) +", " ".join(p.split())) if s.strip()]


def test_sentences_are_told_apart() -> None:
    """The guard of the test above: it can fail."""
    long = " ".join(26 * ["word"]) + "."
    text = f"# Title\n\nOne is short. {long}\n\n| {long} |\n\n- an item\n- [another](of/a/link with words): more\n"
    assert sentences(text) == ["One is short.", long, "- an item", "- [another]: more"]


def test_options_that_the_documents_name_exist() -> None:
    """Those of commands in full are executed by test_commands.py; this holds those that are named alone."""
    text = re.sub(r"(?ms)^```.*?^```", "", "".join(TEXTS[name] for name in SHORT))
    named = set(re.findall(r"`?(--[a-z][a-z-]+)", text)) - {"--help"}
    training = load_script("train_rfsq_robust").parse_arguments
    options = (
        vars(parse_arguments([]))
        | vars(record.parse_arguments(["--out", "anywhere"]))
        | vars(budgets.parse_arguments(["OUT", "--to", "anywhere"]))
        | vars(benchmarks.parse_arguments([]))
        | vars(training([]))
        | vars(training([], in_cloud=True))
    )
    of_tests = re.findall(r'= "(--[a-z-]+)"', (REPOSITORY / "run_tests.sh").read_text(encoding="utf8"))
    assert named <= {f"--{name.replace('_', '-')}" for name in options} | set(of_tests)


def of_a_rehearsal(results: Scope) -> None:
    results["verdict"]["shortfalls"] = [{"key": "epochs", "have": 2, "least": 100}]


def of_other_data(results: Scope) -> None:
    results["provenance"]["parameters"]["data"]["data"] = "elsewhere"


def of_code_that_is_not_committed(results: Scope) -> None:
    results["provenance"]["code"] += "-dirty"


@pytest.mark.parametrize(
    ("change", "why"),
    [(of_a_rehearsal, "this is none"), (of_other_data, "this is none"), (of_code_that_is_not_committed, "commit them")],
)
def test_what_the_documents_cannot_quote_is_not_taken_over(
    tmp_path: Path, change: Callable[[Scope], None], why: str
) -> None:
    out, target = tmp_path / "out", tmp_path / "sample"
    shutil.copytree(documents.SAMPLE_RUN, out)
    results = json.loads((out / "results.json").read_text(encoding="utf8"))
    change(results)
    (out / "results.json").write_text(json.dumps(results), encoding="utf8")
    with pytest.raises(InputError, match=why):
        documents.take_over(str(out), target)
    assert not target.exists()


def test_taking_over_copies_what_evidence_reads_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, target = tmp_path / "out", tmp_path / "sample"
    shutil.copytree(documents.SAMPLE_RUN, out)
    (out / "stages" / "dataset.h5").write_bytes(b"large")
    (out / "checkpoints").mkdir()
    target.mkdir()
    (target / "older.parquet").write_bytes(b"older")
    documents.take_over(str(out), target)
    files = {path.relative_to(target) for path in target.rglob("*")}
    assert files == {path.relative_to(documents.SAMPLE_RUN) for path in documents.SAMPLE_RUN.rglob("*")}
    monkeypatch.setattr(documents, "LARGEST", 1000)
    with pytest.raises(InputError, match="at most 1,000"):
        documents.take_over(str(out), tmp_path / "other")


def write_checkpoint(path: Path, conditioning: Conditioning) -> None:
    bounds = {"min": -torch.ones(7), "max": torch.ones(7)}
    save_checkpoint(path, Checkpoint(ActionRFSQAE(conditioning=conditioning), 1, 0.1, bounds))


def write_klt_rfsq(path: Path) -> None:
    dataset = make_dataset()
    chunks = fitting_chunks(Fitting(dataset))
    model = KltRFSQ.fit(chunks, dataset.layout, dataset.normaliser)
    save_klt_rfsq(path, fit_variable_length(model, chunks, [60.0]))


INTEGRATION = "INTEGRATION_TO_PHASE2.md"
ELSEWHERE = {
    "LeRobot": "export/test_lerobot_adapter.py",
    "ONNX": "export/test_export_onnx.py",
    "Your own predictions, judged": "evaluation/test_predictions_file.py",
}  # what executes these snippets


def fill(folder: Path) -> None:
    """What the snippets find in their folder: what a run leaves, and the exported tokens."""
    for name, conditioning in CHECKPOINTS.items():
        write_checkpoint(folder / name, conditioning)
    write_klt_rfsq(folder / "klt_rfsq.npz")
    shutil.copyfile(documents.SAMPLE_RUN / "results.json", folder / "results.json")
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
    assert scope["decision"] == Evidence(documents.SAMPLE_RUN).results["recommendation"]


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
