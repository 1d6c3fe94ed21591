"""The runner and the pages it writes, on a rehearsal of a real run; and what interruption and failure leave behind."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import h5py
import nbformat
import numpy as np
import papermill
import pytest
from made_predictions import content, made_checkpoint, made_tokens, save, spoiled

from workbook import run
from workbook.common.errors import InputError
from workbook.common.paths import NOTEBOOKS, REPOSITORY, SAMPLE, OutputFolder, locked
from workbook.common.stages import STAGES
from workbook.data.layout import LIBERO_SPEC
from workbook.data.sources import DATA_KINDS
from workbook.evaluation.evidence import Evidence
from workbook.options import notebook_parameters, parse_arguments
from workbook.report.pages import PAGES
from workbook.report.text import speaking, words
from workbook.simulation.scene import missing_packages

COMMAND = [sys.executable, "-m", "workbook.run"]
SOURCES = sorted(NOTEBOOKS.glob("*.ipynb"))
STEMS = sorted(set(STAGES.values()))  # 00_look_inside is no part of a run
REHEARSED = ["--num-episodes", "12", "--layout", LIBERO_SPEC, "--gripper-open", "low", "--drop-noops"]
Rehearsal = tuple[Path, subprocess.CompletedProcess[str]]
LongRun = tuple[Path, subprocess.Popen[str]]


def run_workbook(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """A rehearsal from another folder, into a path with a space that is given relative to it."""
    cwd = tmp_path_factory.mktemp("elsewhere")
    tokens = made_tokens(60)
    predicted = content(made_checkpoint(cwd / "codec.pt"), tokens, spoiled(tokens, 0.2), spoiled(tokens[..., :3], 0.3))
    save(cwd / "predictions.npz", predicted | {"checkpoint": "codec.pt"})
    given = ("--predictions", "predictions.npz")
    done = run_workbook("--smoke", "--with-replay", *REHEARSED, *given, "--out", "my results", cwd=cwd)
    return cwd / "my results", done


def read_page(out: Path, name: str) -> str:
    return (out / "reports" / name).read_text(encoding="utf8")


def test_a_rehearsal_ends_with_the_verdict_and_where_things_are(
    rehearsal: Rehearsal,
) -> None:
    out, done = rehearsal
    assert done.returncode == 0, done.stderr
    assert "NOT EVIDENCE" in done.stdout
    assert str(out / "reports" / "index.html") in done.stdout
    assert all(f"/5 {stem}" in done.stdout for stem in STEMS)
    assert "Traceback" not in done.stderr


def test_a_run_leaves_only_what_the_readme_names(rehearsal: Rehearsal) -> None:
    out, _ = rehearsal
    visible = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    folders, rows = {"reports", "checkpoints", "notebooks", "stages", "tables"}, {"scores.parquet", "probe.parquet"}
    assert visible == folders | rows | {"results.json"}
    assert not list(out.glob(".run-*"))
    for name in ("rfsq_best.pt", "rfsq_robust_best.pt", "rfsq_robust_scale_best.pt"):
        assert (out / "checkpoints" / name).is_file()


def test_what_the_users_own_phase_2_predicts_is_judged(rehearsal: Rehearsal) -> None:
    """In results and tables, in its notebook and on the first page."""
    out, _ = rehearsal
    results = json.loads((out / "results.json").read_text())
    decided = results["predictions"]["decided"]
    assert (decided["codec_share"]["word"], decided["codec_share"]["estimate"]["mean"]) == ("NO", 0)
    assert results["provenance"]["parameters"]["predictions"]["predictions"] == "predictions.npz"
    assert results["predictions"]["mse"] == Evidence(out).predictions.as_json()["mse"]
    said = words("predictions").rules["phase2_soft"]
    assert all(said in read_page(out, page) for page in ("index.html", "04_residual_analysis.html"))


def test_results_hold_what_a_reader_of_them_needs(rehearsal: Rehearsal) -> None:
    results = json.loads((rehearsal[0] / "results.json").read_text())
    assert {"verdict", "criteria", "recommendation", "claims", "provenance"} <= set(results)
    assert results["verdict"]["word"] == "NOT SHOWN"
    assert {"key", "threshold", "measured", "interval", "n", "status"} <= set(results["criteria"][0])
    scored = Evidence(rehearsal[0]).scores.rows
    assert {"naive", "layernorm", "running_statistics", "learned_scale", "fixed_scale"} <= set(scored.codec)
    provenance = results["provenance"]
    assert "--num-episodes 12" in provenance["command"]
    assert provenance["parameters"]["data"]["num_episodes"] == 12
    assert scored[scored.codec == "fixed_scale"].seed.nunique() == 2


def test_every_override_reached_its_notebook(rehearsal: Rehearsal) -> None:
    stages = rehearsal[0] / "stages"
    training = json.loads((stages / "training.json").read_text())
    assert training["content"]["config"]["epochs"] == 2
    assert training["parameters"]["seeds"] == 2
    data = json.loads((stages / "data.json").read_text())
    assert data["content"]["episodes"] == 12
    assert data["content"]["noops_dropped"] > 0
    assert data["parameters"] == {
        "data": "sample",
        "num_episodes": 12,
        "chunk_len": 8,
        "stride": 8,
        "split_seed": 0,
        "folds": 0,
        "fold": 0,
        "layout": LIBERO_SPEC,
        "gripper_open": "low",
        "drop_noops": True,
        "action_column": "",
        "only_successful": False,
        "outliers": "keep",
        "max_left_out": 0.1,
        "accept_data": False,
    }


def test_a_replay_that_cannot_be_says_so_at_once_and_in_the_end(rehearsal: Rehearsal) -> None:
    """Steps were dropped here, so nothing can be played; without the simulator that is said instead."""
    out, done = rehearsal
    reason = missing_packages() or words("replay").reason("no_states")
    assert f"replay: will not be run, for {reason}" in done.stdout
    assert done.stdout.index("replay: will not") < done.stdout.index("/5 01_data")
    assert Evidence(out).replays.not_run == (missing_packages() or "no_states")
    assert "NOT RUN" in read_page(out, "05_policy_in_the_loop.html")


def test_where_nothing_is_fetched_no_line_says_so(rehearsal: Rehearsal) -> None:
    notebook = nbformat.read(rehearsal[0] / "notebooks" / "01_data.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert "Fetching actions" not in json.dumps(outputs)


class PageReader(HTMLParser):
    """Collects images and everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.loaded: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.images += [values] if tag == "img" else []
        self.scripts += tag == "script"
        if tag in ("img", "iframe", "source") or (tag == "script" and "src" in values):
            self.loaded.append(values.get("src") or "")
        if tag == "link":
            self.loaded.append(values.get("href") or "")


FIGURES = {
    "index": 5,
    "index.zh": 5,
    "01_data": 4,
    "02_train_robust": 2,
    "03_compare": 5,
    "04_residual_analysis": 5,
    "05_policy_in_the_loop": 0,
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_stands_alone_and_says_that_it_is_no_evidence(rehearsal: Rehearsal, name: str) -> None:
    text = read_page(rehearsal[0], name)
    page = PageReader()
    page.feed(text)
    assert len(page.images) == FIGURES[Path(name).stem]
    assert all((image.get("alt") or "").strip() for image in page.images)
    assert all(source.startswith("data:") for source in page.loaded)
    assert page.scripts <= 1  # that of long tables, which are whole without it
    assert "@import" not in text
    assert "url(" not in text
    assert "NOT EVIDENCE" in text
    with speaking("zh" if name == "index.zh.html" else "en"):
        assert words("pages").provenance in text
    assert not re.search(r"\$[^$\s][^$]*\\[a-z]+[^$]*\$", text), "raw LaTeX"


def test_pages_link_to_each_other_only(rehearsal: Rehearsal) -> None:
    names = set(PAGES)
    for name in names:
        links = set(re.findall(r'<a [^>]*href="([^"#]+)"', read_page(rehearsal[0], name)))
        assert links <= names


def test_no_code_stands_open_before_the_verdict(rehearsal: Rehearsal) -> None:
    page = read_page(rehearsal[0], "03_compare.html")
    before = page[: page.index('class="verdict"')]
    assert before.count("<pre>") == before.count('<details class="code">')
    assert "parameters" not in re.sub(r"<style>.*?</style>", "", before, flags=re.DOTALL)


def test_bad_input_leaves_the_results_of_the_run_before(rehearsal: Rehearsal, tmp_path: Path) -> None:
    out, _ = rehearsal
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    bad = tmp_path / "bad.hdf5"
    with h5py.File(bad, "w") as file:
        for demo in range(5):
            actions = np.zeros((20, 7))
            actions[3, 5] = np.nan if demo == 4 else 0
            file[f"data/demo_{demo}/actions"] = actions
    done = run_workbook("--data", str(bad), "--out", str(out), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ("error: bad.hdf5, demo_4, step 3, yaw: the action is nan; fix or remove this episode\n")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], "no such file or directory"),
        (["--epochs", "0"], "epochs is 0"),
        (["--seeds", "0"], "seeds is 0"),
        (["--num-episodes", "-1"], "num_episodes is -1; give a positive number, or 0 for all"),
        (["--chunk-len", "0"], "chunk length 0"),
        (["--drop-noops", "--layout", "joint:7"], "leave out --drop-noops"),
        (["--stride", "9"], "stride 9"),
        (["--layout", "wheels:4"], "'wheels:4'"),
        (["--layout", "joint:6"], "expected (steps, 6) for the layout 'joint:6'"),
        (["--gripper-open", "wide"], "gripper_open is 'wide'"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--folds", "2"], "folds is 2; give 3 to 10"),
        (["--folds", "5", "--with-replay"], "--folds trains and tests every model anew; leave out the simulator"),
        (["--folds", "5", "--naive-checkpoint", "a.pt"], "leave out the simulator and --naive-checkpoint"),
        (["--naive-checkpoint", "nowhere.pt"], "nowhere.pt: no such checkpoint file"),
        (["--replay-episodes", "-1"], "replay_episodes is -1"),
        (["--replay-seeds", "-1"], "replay_seeds is -1"),
        (["--out", "file/below"], "cannot write results here"),
    ],
)
def test_bad_arguments_get_one_sentence_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    out = [] if "--out" in arguments else ["--out", "out"]
    assert run.main([*arguments, *out]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.main(["--epoch-count", "3"])
    assert "--epoch-count" in capsys.readouterr().err


Break = Callable[[str], None]


@pytest.fixture
def break_first_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Let the runner take copies of the notebooks, the first with a cell of code after its parameters."""

    def insert(code: str) -> None:
        copies = tmp_path / "notebooks"
        shutil.copytree(NOTEBOOKS, copies)
        notebook = nbformat.read(copies / "01_data.ipynb", as_version=4)
        notebook.cells.insert(3, nbformat.v4.new_code_cell(code))
        nbformat.write(notebook, copies / "01_data.ipynb")
        monkeypatch.setattr(run, "NOTEBOOKS", copies)

    return insert


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", ["error: 01_data failed: ZeroDivisionError: division by zero"]),
        (
            'import os\nos.write(2, b"out of luck")\nos._exit(1)',
            ["out of luck", "error: 01_data failed: its kernel died"],
        ),
    ],
    ids=["a cell fails", "the kernel dies"],
)
def test_a_failing_notebook_leaves_nothing_that_looks_like_a_result(
    code: str, words: list[str], break_first_notebook: Break, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    break_first_notebook(code)
    out = tmp_path / "out"
    assert run.main(["--smoke", "--out", str(out)]) == 1
    said = capfd.readouterr().err
    assert all(word in said for word in words)
    assert not [path for path in out.rglob("*") if path.name != ".lock"]


def test_a_finished_run_with_other_settings_is_kept_and_said(
    rehearsal: Rehearsal, break_first_notebook: Break, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the beginning on, whatever comes of the run; one with the same settings keeps nothing."""
    break_first_notebook("1 / 0")
    out, kept = tmp_path / "out", tmp_path / "out.previous"
    shutil.copytree(rehearsal[0], out)
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    given = ["--predictions", str(rehearsal[0].parent / "predictions.npz")]
    same = ["--smoke", "--with-replay", *REHEARSED, *given, "--out", str(out)]
    assert run.main(same) == 1
    assert "other settings" not in capfd.readouterr().out
    assert not kept.exists()
    assert run.main([*same, "--seeds", "3"]) == 1
    assert f"{out}: holds a finished run with other settings, which is kept in {kept}\n" in capfd.readouterr().out
    copied = {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    assert copied == {path: content for path, content in before.items() if path.name != ".lock"}
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_notebook_without_a_parameter_that_it_is_given_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"01_data\.ipynb has no parameter named typo"):
        run._execute("01_data", tmp_path / "executed.ipynb", {"typo": 1})


def test_a_second_run_into_the_same_folder_waits_its_turn(tmp_path: Path) -> None:
    target = OutputFolder.at(str(tmp_path))
    with locked(target.root / ".lock"), pytest.raises(InputError, match="another run"), locked(target.root / ".lock"):
        pass


def children_of(pid: int) -> list[int]:
    """Every process that descends from `pid`, read from /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, seen = [pid], []
    while found:
        parent = found.pop()
        below = [child for child, its_parent in parents.items() if its_parent == parent]
        seen += below
        found += below
    return seen


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


STOPS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def long_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[signal.Signals, LongRun]]:
    """One to be stopped with each signal, begun at the same time, for their beginning takes long."""
    begun = {}
    for stop in STOPS:
        out = tmp_path_factory.mktemp("long") / "out"
        command = [*COMMAND, "--out", str(out), "--num-episodes", "20", "--epochs", "1000"]
        begun[stop] = (out, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    yield begun
    for _, process in begun.values():
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("stop", STOPS)
def test_stopping_a_run_in_the_middle_of_training_cleans_up(
    stop: signal.Signals, long_runs: dict[signal.Signals, LongRun]
) -> None:
    out, process = long_runs[stop]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not training_has_begun(out):
        time.sleep(0.2)
    assert training_has_begun(out)
    children = children_of(process.pid)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "interrupted; the results in the output folder are as they were"
    left = {path.relative_to(out).parts[0] for path in out.rglob("*")} - {".lock", "unfinished"}
    assert not left
    assert all(path.suffix == ".resume" for path in out.glob("unfinished/*"))
    time.sleep(1)
    assert not [pid for pid in children if is_running(pid)]


def training_has_begun(out: Path) -> bool:
    for path in out.glob(".run-*/progress.json"):
        try:
            return json.loads(path.read_text())["label"] == "Training"
        except (OSError, ValueError):
            return False
    return False


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_a_notebook_is_committed_bare(source: Path) -> None:
    notebook = nbformat.read(source, as_version=4)
    nbformat.validate(notebook)
    assert len({cell["id"] for cell in notebook.cells}) == len(notebook.cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert "remove_cell" in code[0].metadata["tags"]
    assert 'if "google.colab" in sys.modules' in code[0].source
    assert max(len(cell.source.splitlines()) for cell in code) <= 25
    assert "class " not in "".join(cell.source for cell in code)


def test_production_values_stand_in_the_notebooks() -> None:
    """The parameters cells hold the values of a full run, the same that the command line has."""
    options = parse_arguments(["--with-simulator"])
    out = OutputFolder(Path("/nowhere"))
    given = notebook_parameters(options, options.data, out, out)
    assert list(given) == STEMS
    for stem, parameters in given.items():
        written = papermill.inspect_notebook(str(NOTEBOOKS / f"{stem}.ipynb"))
        for name, value in parameters.items():
            if name not in ("out", "replays", "loop", "unfinished"):
                assert ast.literal_eval(written[name]["default"]) == value, (stem, name)


def test_each_fold_has_its_seed_and_the_settings_of_the_first() -> None:
    options = parse_arguments(["--folds", "3", "--seeds", "4", "--predictions", "/own.npz"])
    out = OutputFolder(Path("/nowhere"))
    first, second = (notebook_parameters(options, "sample", out, out, *of) for of in ((0,), (1, "naive=2")))
    for fold, given in enumerate((first, second)):
        assert (given["01_data"]["folds"], given["01_data"]["fold"]) == (3, fold)
        assert (given["02_train_robust"]["seeds"], given["02_train_robust"]["first_seed"]) == (1, fold)
    assert [given["03_compare"]["decided"] for given in (first, second)] == ["", "naive=2"]
    assert [given["04_residual_analysis"]["predictions"] for given in (first, second)] == ["/own.npz", ""]


def test_help_needs_nothing_installed() -> None:
    """With a bare interpreter: no package of the environment can be imported."""
    command = [sys.executable, "-S", "-m", "workbook.run", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = ["--data", "--out", "--epochs", "--seeds", "--num-episodes", "--smoke", "--help"]
    for option in [*options, "--layout", "--gripper-open", "--drop-noops", "--with-replay"]:
        assert option in done.stdout
    assert " ".join(DATA_KINDS.split()) in " ".join(done.stdout.split())


def test_the_shell_passes_paths_with_spaces_and_the_exit_code_on(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    environment = os.environ | {"WORKBOOK_VENV": sys.prefix}
    command = [str(REPOSITORY / "run_all.sh"), "--data", str(data), "--out", str(tmp_path / "my out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert f"error: {data}: holds no .hdf5 file and no meta/info.json" in done.stderr


@pytest.mark.slow
def test_a_full_run_on_the_sample_decides(tmp_path: Path) -> None:
    done = run_workbook("--data", str(SAMPLE), "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verdict = json.loads((tmp_path / "out" / "results.json").read_text())["verdict"]
    said = {part["key"]: part["word"] for part in verdict["parts"]}
    assert (said["layernorm"], said["fixed_scale"], said["success"]) == ("FAIL", "PASS", "NOT RUN")


@pytest.mark.slow
def test_folds_test_every_episode_once_and_say_so(tmp_path: Path) -> None:
    done = run_workbook("--smoke", "--folds", "3", "--num-episodes", "9", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = Evidence(tmp_path / "out")
    naive = found.scores.of("naive")
    assert len(naive) == naive.episode.nunique() == found.comparison["test_episodes"] == 9
    assert found.results["provenance"]["seeds"] == [0, 1, 2]
    assert "9 test episodes in 3 folds" in read_page(tmp_path / "out", "index.html")
    assert {path.name for path in (tmp_path / "out" / "checkpoints" / "seeds").glob("none_seed?.pt")} == {
        "none_seed0.pt"
    }


@pytest.mark.slow
def test_a_full_run_on_human_teleoperation_ends(tmp_path: Path, human_teleop: Path) -> None:
    done = run_workbook("--data", str(human_teleop), "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = Evidence(tmp_path / "out")
    assert found.results["verdict"]["shortfalls"] == []
    assert found.data["clipped"]["steps"] == 1059
