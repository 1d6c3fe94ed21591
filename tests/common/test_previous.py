"""A finished run outlives one with other settings that takes its place in the output folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from spoiling import without_rights

from workbook.common.errors import InputError
from workbook.common.paths import PARTS, OutputFolder
from workbook.common.previous import keep_finished_run
from workbook.common.stages import ROWS, STAGES, table_path, write_json, write_stage

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"data": "sample", "num_episodes": 0, "dataset_sha256": "ab"},
    "training": {"seeds": 5, "learning_rate": 1e-3, "naive_checkpoint": None},
}
OTHER_SEEDS = {"training": SETTINGS["training"] | {"seeds": 2}}


def finish(out: OutputFolder, written: str = "2030") -> None:
    """A finished run, with what else may lie beside it."""
    for part in (*PARTS, "replays", "unfinished"):
        (out.root / part / "below").mkdir(parents=True, exist_ok=True)
        (out.root / part / "below" / "file").write_text(part)
    (out.root / "my notes.txt").write_text("of the user")
    (out.root / ".lock").touch()
    for name in ROWS[:2]:
        table_path(out, name).write_text(name)
    data = {name: value for name, value in SETTINGS["data"].items() if name != "dataset_sha256"}
    parameters = {"data": data, "training": SETTINGS["training"], "policy": {"policy_steps": 400}}
    write_json(out.results, {"provenance": {"parameters": parameters, "dataset_sha256": "ab", "written": written}})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def previous(out: OutputFolder) -> list[str]:
    """What lies beside the output folder."""
    return sorted(path.name for path in out.root.parent.iterdir() if path != out.root)


@pytest.mark.parametrize(
    "stages",
    [
        OTHER_SEEDS,
        {"training": SETTINGS["training"] | {"naive_sha256": "cd"}},
        {"data": SETTINGS["data"] | {"dataset_sha256": "other recordings under the same name"}},
        {"data": SETTINGS["data"] | {"data": "mine"}},
        SETTINGS | {"policy": None},
    ],
    ids=["seeds", "checkpoint", "content", "name", "a stage fewer"],
)
def test_a_run_with_other_settings_is_kept_whole(out: OutputFolder, stages: dict[str, Any]) -> None:
    finish(out)
    before = content(out.root)
    kept = keep_finished_run(out, stages)
    assert kept == out.root.with_name("out.previous")
    of_user = {"my notes.txt", ".lock", "replays/below/file", "unfinished/below/file"}
    assert content(kept) == {name: of for name, of in before.items() if name not in of_user}
    assert content(out.root) == before


@pytest.mark.parametrize(
    "stages",
    [
        *({name: settings} for name, settings in SETTINGS.items()),
        {"replay": {"replay_seeds": 1}},
        SETTINGS | {"policy": {"policy_steps": 400}, "replay": None},
    ],
    ids=["data", "training", "a stage more", "all"],
)
def test_a_run_with_the_same_settings_goes_on_in_its_place(out: OutputFolder, stages: dict[str, Any]) -> None:
    finish(out)
    assert keep_finished_run(out, stages) is None
    assert previous(out) == []


def test_what_is_not_finished_is_not_kept(out: OutputFolder) -> None:
    write_stage(out, "data", {"num_episodes": 0}, {})
    assert keep_finished_run(out, {"data": {"num_episodes": 3}}) is None
    assert previous(out) == []


@pytest.mark.parametrize("spoilt", ["", "{}", '{"provenance": null}', "no JSON"])
def test_a_run_that_does_not_say_its_settings_is_kept(out: OutputFolder, spoilt: str) -> None:
    finish(out)
    out.results.write_text(spoilt)
    assert keep_finished_run(out, {"data": SETTINGS["data"]})


def test_pages_alone_are_kept(out: OutputFolder) -> None:
    out.reports.mkdir()
    (out.reports / "index.html").write_text("pages")
    assert keep_finished_run(out, {"data": SETTINGS["data"]})


def test_every_run_has_a_folder_of_its_own_and_none_has_two(out: OutputFolder) -> None:
    """So that a notebook that is cut off after the copy, or fails, makes no second one."""
    finish(out)
    first = keep_finished_run(out, OTHER_SEEDS)
    shutil.rmtree(out.stages)
    assert keep_finished_run(out, OTHER_SEEDS) == first
    finish(out, written="2031")
    assert keep_finished_run(out, OTHER_SEEDS) == out.root.with_name("out.previous-2")
    finish(out, written="2032")
    assert keep_finished_run(out, OTHER_SEEDS) == out.root.with_name("out.previous-3")
    assert previous(out) == ["out.previous", "out.previous-2", "out.previous-3"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_copy_that_is_cut_off_leaves_the_run_and_nothing_beside(
    out: OutputFolder, error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(out)
    before = content(out.root)

    def cut_off(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", cut_off)
        with pytest.raises((KeyboardInterrupt, InputError)):
            keep_finished_run(out, OTHER_SEEDS)
    assert content(out.root) == before
    assert previous(out) == []
    assert keep_finished_run(out, OTHER_SEEDS)


def test_a_folder_beside_which_nothing_can_be_written_is_named(open_folder: Path) -> None:
    out = OutputFolder.at(str(open_folder / "out"))
    finish(out)
    open_folder.chmod(0o555)
    with without_rights(), pytest.raises(InputError) as raised:
        keep_finished_run(out, OTHER_SEEDS)
    said = str(raised.value)
    assert said.startswith(
        f"{out.root}.previous: the finished run in {out.root} cannot be kept here (Permission denied)"
    )
    assert said.endswith("; name another folder with `out`")


def test_stages_that_can_be_asked_for_are_known() -> None:
    assert {*SETTINGS, "policy", "replay"} <= set(STAGES)
