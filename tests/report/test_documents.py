"""What the documents say is what was measured, and what they show runs."""

import json
import math
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

from benchmarks import __main__ as benchmarks
from rfsq_robust import ActionRFSQAE, Checkpoint, Conditioning, load_checkpoint, save_checkpoint
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
from workbook.export import tokens
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
GUIDE, INTEGRATION = "COMPARISON_GUIDE.md", "INTEGRATION_TO_PHASE2.md"
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
    assert documents.render(GUIDE, TEXTS[GUIDE], changed) != TEXTS[GUIDE]


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


LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


def anchors(text: str) -> set[str]:
    """Those of a document's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_links_and_anchors_lead_somewhere(name: str) -> None:
    for target, anchor in LINK.findall(TEXTS[name]):
        if target.startswith("http"):
            continue
        path = (REPOSITORY / name).parent.joinpath(target).resolve() if target else REPOSITORY / name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf8")), (target, anchor)


def test_anchors_are_those_of_github() -> None:
    """The guard of the test above: it can fail."""
    assert anchors("# The guide's A, b\n```\n# code\n```\n## `x.y`-Z (1)\n") == {"the-guides-a-b", "xy-z-1"}


def test_every_document_is_found_from_the_readme() -> None:
    seen, next_ones = set(), ["README.md"]
    while next_ones:
        name = next_ones.pop()
        if name in seen or name not in TEXTS:
            continue
        seen.add(name)
        folder = (REPOSITORY / name).parent
        targets = [folder.joinpath(target).resolve() for target, _ in LINK.findall(TEXTS[name]) if target]
        next_ones += [str(path.relative_to(REPOSITORY)) for path in targets if path.is_relative_to(REPOSITORY)]
    assert seen == set(TEXTS)


def test_the_readme_is_short_and_its_commands_stand_at_the_top() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 120
    for name in ("README.md", "README.zh-CN.md"):
        first = TEXTS[name].splitlines()[:15]
        assert {"./run_all.sh", "./run_tests.sh"} <= {line.partition(" ")[0] for line in first}


def test_the_guides_are_read_in_minutes() -> None:
    for name in (GUIDE, INTEGRATION):
        assert len(TEXTS[name].splitlines()) <= 220
        assert all(rows <= 14 for rows in rows_of_tables(TEXTS[name]))  # of which 2 are header and rule


def rows_of_tables(text: str) -> list[int]:
    return [len(table.splitlines()) for table in re.findall(r"(?m)(?:^\|.*\n)+", text)]


def test_rows_of_tables_are_counted() -> None:
    """The guard of the test above: it can fail."""
    assert rows_of_tables("a\n| b |\n| - |\n| c |\n\n| d |\nend\n") == [3, 1]


def test_the_readme_in_english_and_in_chinese_link_to_each_other() -> None:
    pair = {"README.md": "README.zh-CN.md", "README.zh-CN.md": "README.md"}
    for name, other in pair.items():
        assert f"]({other})" in "".join(TEXTS[name].splitlines()[:4])


def test_options_that_the_documents_name_exist() -> None:
    """Those of commands in full are executed by test_commands.py; this holds those that are named alone."""
    text = re.sub(r"(?ms)^```.*?^```", "", "".join(TEXTS.values()))
    named = set(re.findall(r"`?(--[a-z][a-z-]+)", text)) - {"--help"}
    training = load_script("train_rfsq_robust").parse_arguments
    options = (
        vars(parse_arguments([]))
        | vars(record.parse_arguments(["--out", "anywhere"]))
        | vars(budgets.parse_arguments(["OUT", "--to", "anywhere"]))
        | vars(benchmarks.parse_arguments([]))
        | vars(tokens.parse_arguments(["--checkpoint", "any.pt"]))
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


EXPECTED_VALUE = "The expected value instead of the most likely code"
ELSEWHERE = {
    "docs/lerobot.md: The steps": ("export/test_lerobot_adapter.py", "docs/lerobot.md"),
    "docs/exports.md: ONNX": ("export/test_export_onnx.py", "docs/exports.md: ONNX"),
    f"{INTEGRATION}: Your own predictions, judged": (
        "evaluation/test_predictions_file.py",
        "Your own predictions, judged",
    ),
    "docs/codecs.md: A tokenizer of your own": ("evaluation/test_brought_codec.py", "docs/codecs.md"),
}  # what executes these snippets, and how it names them


def fill(folder: Path) -> None:
    """What the snippets find in their folder: what a run leaves, and the exported tokens."""
    for name, conditioning in CHECKPOINTS.items():
        write_checkpoint(folder / name, conditioning)
    write_klt_rfsq(folder / "klt_rfsq.npz")
    shutil.copyfile(documents.SAMPLE_RUN / "results.json", folder / "results.json")
    tokens.export_tokens(folder / "rfsq_robust_scale_best.pt", folder / "tokens", "sample", DataConfig(num_episodes=8))


def check_labels(scope: Scope) -> None:
    assert scope["codes"].shape == (4, 8, 16, 8)
    assert scope["draft_labels"].shape == (4, 8, 16, 3)


def check_decoder(scope: Scope) -> None:
    assert torch.equal(scope["decoded"], scope["codec"](scope["normalised"])[0])
    assert scope["command"].abs().max() <= 1


def check_tokenizer(scope: Scope) -> None:
    checkpoint, ids = load_checkpoint("rfsq_robust_scale_best.pt"), torch.tensor(scope["tokens"])
    codec, normalised = checkpoint.model, checkpoint.normalise(scope["actions"])
    assert ids.shape == (4, 384)
    assert (int(ids.min()) >= 1000, int(ids.max()) <= 1020) == (True, True)
    for found, layers in ((scope["command"], 3), (scope["coarse"], 1)):
        expected = codec.decode_from_indices(codec.encode(normalised)[..., :layers]).clamp(-1, 1)
        assert np.array_equal(found, expected.double().numpy())
    assert scope["allowed"] == range(1007, 1014)


def check_processor(scope: Scope) -> None:
    assert np.array_equal(scope["again"], scope["tokenizer"].decode(scope["tokenizer"](scope["actions"])))


def check_exported(scope: Scope) -> None:
    checkpoint, valid = load_checkpoint("rfsq_robust_scale_best.pt"), scope["valid"]
    codec = checkpoint.model
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
    f"{INTEGRATION}: Labels for Phase 2": [check_labels],
    f"{INTEGRATION}: Actions in Phase 3": [check_decoder],
    f"{INTEGRATION}: {EXPECTED_VALUE}": [lambda scope: None],  # below, with what is certain
    f"{INTEGRATION}: The options in code": [check_option_b, check_option_c],
    "docs/tokenizers.md: RFSQ": [check_tokenizer],
    "docs/tokenizers.md: A saved folder": [check_processor],
    "docs/tokenizers.md: KLT-RFSQ": [check_klt_rfsq],
    "docs/tokenizers.md: The tokenizer of KLT-RFSQ": [check_klt_tokenizer],
    "docs/exports.md: Read an episode": [check_exported],
    "docs/exports.md: Read rows": [check_rows],
    "docs/method.md: LayerNorm with its statistics": [check_layernorm],
}


def snippets() -> dict[str, list[str]]:
    """Document and heading -> the Python snippets there."""
    found: dict[str, list[str]] = {}
    for place, snippet in blocks("python"):
        found.setdefault(place, []).append(snippet)
    return found


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fill(tmp_path)
    return tmp_path


def test_the_snippets_for_phase_2_and_3_run(filled: Path) -> None:
    """A document's one after the other, as they stand: later ones use what earlier ones made."""
    pytest.importorskip("transformers", reason="./run_tests.sh installs it")
    found = snippets()
    counts = {place: len(each) for place, each in found.items() if place not in ELSEWHERE}
    assert counts == {place: len(checks) for place, checks in CHECKS.items()}
    scopes: dict[str, Scope] = {}
    for place, checks in CHECKS.items():
        scope = scopes.setdefault(place.partition(": ")[0], {})
        for snippet, check in zip(found[place], checks, strict=True):
            exec(snippet, scope)
            check(scope)
    assert (filled / "action_tokenizer" / "model.safetensors").is_file()


def test_the_expected_value_of_what_is_certain_is_its_decoding(filled: Path) -> None:
    found = snippets()
    scope: Scope = {}
    for heading in ("Labels for Phase 2", "Actions in Phase 3"):
        exec(found[f"{INTEGRATION}: {heading}"][0], scope)
    scope["certain"] = torch.nn.functional.one_hot(scope["codes"], 7) * 1e4
    (snippet,) = found[f"{INTEGRATION}: {EXPECTED_VALUE}"]
    exec(snippet.replace("torch.randn(4, 8, 16, 8, 7)", "certain.float()"), scope)
    assert torch.allclose(scope["expected"], scope["decoded"], atol=1e-5)


@pytest.mark.parametrize(("place", "where"), ELSEWHERE.items())
def test_other_snippets_are_executed_elsewhere(place: str, where: tuple[str, str]) -> None:
    file, named = where
    assert named in (REPOSITORY / "tests" / file).read_text(encoding="utf8")
    assert snippets()[place]
