"""Episodes that cannot be used: left out up to a share, named, counted, and refused beyond it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from made_up import Array, episode, walks
from reading import about, card_of, refused, said
from writers import write_libero

from workbook import run
from workbook.common.errors import InputError
from workbook.data import dataset as module
from workbook.data.config import DataConfig
from workbook.data.dataset import prepare_dataset
from workbook.data.episodes import LeftOut, Origin, Recordings, Why
from workbook.data.layout import LIBERO
from workbook.data.left_out import check_left_out, leave_out_unusable
from workbook.report.tables.data import left_out_table
from workbook.report.text import words

HYPOTHESIS = settings(deadline=None, max_examples=60)


def with_one(value: float, step: int, dimension: int) -> Array:
    actions = walks(7)["demo_0"].copy()
    actions[step, dimension] = value
    return actions


# Why it cannot be used -> the actions, and what refuses them.
BAD: dict[Why, tuple[Array, str]] = {
    "not_finite": (
        with_one(np.nan, 5, 5),
        "a.hdf5, demo_bad, step 5, yaw: the action is nan; fix or remove this episode",
    ),
    "wrong_width": (
        walks(7)["demo_1"][:20, :6],
        "a.hdf5, demo_bad: actions have shape (20, 6), expected (steps, 7) for the layout "
        "'position:3 rotation:3 gripper:1'; leave this file out, or say what its actions are, "
        "for example --layout joint:6",
    ),
    "too_short": (
        walks(7)["demo_2"][:7],
        "a.hdf5, demo_bad: 7 steps are fewer than one chunk of 8; remove this episode or choose a shorter chunk",
    ),
}


def write(folder: Path, good: int, **bad: Array) -> Path:
    return write_libero(folder / "a.hdf5", walks(0, count=good) | bad)


@pytest.mark.parametrize("why", BAD)
def test_one_bad_episode_beside_sixty_is_left_out_and_named(tmp_path: Path, why: Why) -> None:
    actions, sentence = BAD[why]
    path = write(tmp_path, 60, demo_bad=actions)
    prepared = prepare_dataset(path)
    assert prepared.changes.left_out == (LeftOut("a.hdf5, demo_bad", why, sentence),)
    assert (len(prepared.dataset.episodes), prepared.episodes_read) == (60, 61)
    for read, written in zip(prepared.dataset.episodes, walks(0, count=60).values(), strict=True):
        assert read.actions.tobytes() == written.tobytes()
    [remark] = about("Left out", said(path))
    assert remark == f"Left out: 1 {words('data').why[why]}. The first: {sentence}."
    assert left_out_table(card_of(prepared)).rows == [["a.hdf5, demo_bad", words("data").why[why]]]


def test_all_reasons_are_counted_and_the_table_names_every_episode(tmp_path: Path) -> None:
    bad = {f"demo_{why}_{number}": BAD[why][0][number:] for why in BAD for number in range(2)}
    prepared = prepare_dataset(write(tmp_path, 60, **bad))
    found = [one.why for one in prepared.changes.left_out]
    assert {why: found.count(why) for why in BAD} == {"not_finite": 2, "wrong_width": 2, "too_short": 2}
    [remark] = about("Left out", said(tmp_path / "a.hdf5"))
    for why in BAD:
        assert f"2 {words('data').why[why]}" in remark
    places = [row[0] for row in left_out_table(card_of(prepared)).rows]
    assert sorted(places) == sorted(f"a.hdf5, {key}" for key in bad)


def one_of_every_kind(folder: Path, short_ones: int = 1) -> Path:
    """60 good demos in two files, and beside them one of everything that is left out; of short ones so many."""
    good = list(walks(0, count=60).values())
    for number, name in enumerate(("a.hdf5", "b.hdf5")):
        write_libero(folder / name, {f"demo_{n}": good[30 * number + n] for n in range(30)})
    (folder / "c.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n cut short")
    with h5py.File(folder / "a.hdf5", "r+") as file:
        data = file["data"]
        for why, (actions, _) in BAD.items():
            data[f"{why}/actions"] = actions
        for number in range(1, short_ones):
            data[f"too_short_{number}/actions"] = walks(8, count=9)[f"demo_{number}"][:7]
        data["no_motion/actions"] = np.tile([0, 0, 0, 0, 0, 0, -1.0], (40, 1))
        data["failed/actions"] = walks(9)["demo_0"]
        data["failed"].attrs["success"] = False
        data["copy/actions"] = good[40]
        data.create_group("unreadable")
    return folder


def test_one_of_every_kind_beside_sixty_is_left_out_and_listed(tmp_path: Path) -> None:
    prepared = prepare_dataset(one_of_every_kind(tmp_path), DataConfig(drop_noops=True, only_successful=True))
    assert (len(prepared.dataset.episodes), prepared.episodes_read) == (60, 68)
    kinds = ["failed", "no_motion", "not_finite", "too_short", "unreadable", "wrong_width"]
    listed = {f"a.hdf5, {why}": words("data").why[why] for why in kinds}  # type: ignore[index]
    rows = left_out_table(card_of(prepared)).rows
    assert len(rows) == 7
    assert dict(rows) == listed | {"c.hdf5": words("data").why["unreadable"]}
    assert prepared.changes.copies == (("b.hdf5, demo_10", "a.hdf5, copy"),)


def test_with_a_tenth_and_one_a_run_ends_in_one_sentence_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 68 that are neither failed nor copied 7 cannot be used; the one without motion can, until its steps go."""
    data = one_of_every_kind(tmp_path / "data", short_ones=3)
    line = ["--data", str(data), "--out", str(tmp_path / "out"), "--only-successful", "--drop-noops", "--smoke"]
    monkeypatch.setenv("WORKBOOK_COMMAND", "")
    assert run.main(line) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {data / 'c.hdf5'}: not an HDF5 file")
    assert said.err.endswith("(and so on: 7 of 68 episodes cannot be used)\n")
    assert said.err.count("\n") == 1


def short(count: int) -> dict[str, Array]:
    return {f"short_{number}": walks(7, count)[f"demo_{number}"][:7] for number in range(count)}


def test_a_tenth_is_left_out_and_one_more_is_refused_and_counted(tmp_path: Path) -> None:
    assert len(prepare_dataset(write(tmp_path, 54, **short(6))).dataset.episodes) == 54
    path = write(tmp_path, 53, **short(7))
    assert refused(lambda: prepare_dataset(path)) == (
        "a.hdf5, short_0: 7 steps are fewer than one chunk of 8; remove this episode or choose a shorter chunk "
        "(and so on: 7 of 60 episodes cannot be used)"
    )
    assert len(prepare_dataset(path, DataConfig(max_left_out=0.12)).dataset.episodes) == 53


@pytest.mark.parametrize("why", BAD)
def test_where_nothing_may_be_left_out_the_first_is_refused_in_its_own_words(tmp_path: Path, why: Why) -> None:
    actions, sentence = BAD[why]
    path = write(tmp_path, 60, demo_bad=actions)
    assert refused(lambda: prepare_dataset(path, DataConfig(max_left_out=0.0))) == sentence


def test_copies_count_neither_way(tmp_path: Path) -> None:
    """6 of 60 that differ are a tenth, with copies of a good and of a bad one or without."""
    same = {f"copy_{number}": walks(0)["demo_0"] for number in range(60)}
    bad = short(6) | {f"again_{number}": walks(7)["demo_0"][:7] for number in range(9)}
    assert len(prepare_dataset(write(tmp_path, 54, **same, **bad)).dataset.episodes) == 54
    with pytest.raises(InputError, match=r"\(and so on: 7 of 60 episodes cannot be used\)$"):
        prepare_dataset(write(tmp_path, 53, **same, **short(7)))


def of_source(*left_out: LeftOut) -> Callable[..., Recordings]:
    episodes = [episode(actions, key=key) for key, actions in walks(0, count=9).items()]
    return lambda *_: Recordings(episodes, Origin("made up", "made_up"), left_out)


@pytest.mark.parametrize("why", ["failed", "no_motion"])
def test_what_is_asked_to_be_left_out_does_not_count(monkeypatch: pytest.MonkeyPatch, why: Why) -> None:
    asked = [LeftOut(f"a.hdf5, asked_{number}", why, "asked for") for number in range(90)]
    monkeypatch.setattr(module, "read_recordings", of_source(*asked))
    prepared = prepare_dataset("made_up", DataConfig(max_left_out=0.0))
    assert (len(prepared.dataset.episodes), prepared.episodes_read) == (9, 99)
    assert prepared.changes.left_out == tuple(asked)


@pytest.mark.parametrize(("unreadable", "accepted"), [(1, True), (2, False)])
def test_what_a_source_cannot_read_counts(monkeypatch: pytest.MonkeyPatch, unreadable: int, accepted: bool) -> None:
    """1 of 10 is a tenth, 2 of 11 are more."""
    faults = [LeftOut(f"b{number}.hdf5", "unreadable", f"b{number}.hdf5: damaged") for number in range(unreadable)]
    monkeypatch.setattr(module, "read_recordings", of_source(*faults))
    if accepted:
        assert prepare_dataset("made_up").changes.left_out == tuple(faults)
        return
    assert refused(lambda: prepare_dataset("made_up")) == (
        "b0.hdf5: damaged (and so on: 2 of 11 episodes cannot be used)"
    )


def test_where_nothing_is_usable_it_is_refused_whatever_may_be_left_out(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5", short(5))
    message = refused(lambda: prepare_dataset(path, DataConfig(max_left_out=1.0)))
    assert message.endswith("(and so on: 5 of 5 episodes cannot be used)")
    for left_out, wanted in (
        ([LeftOut("a", "failed", "a: marked as failed")], "a: marked as failed; nothing is left"),
        ([], "the data hold no episode"),
    ):
        assert refused(lambda left_out=left_out: check_left_out(left_out, 0, 1.0)) == wanted  # type: ignore[misc]


def test_too_few_that_are_left_say_where_the_others_are(tmp_path: Path) -> None:
    same = {f"demo_{number}": walks(0)["demo_0"] for number in range(30)}
    message = refused(lambda: prepare_dataset(write_libero(tmp_path / "a.hdf5", same)))
    assert message.startswith(
        "1 episode(s) cannot be split into train, validation and test; give at least 4; 29 more are"
    )
    assert "copies: a.hdf5, demo_1 is the same recording as a.hdf5, demo_0" in message
    path = write(tmp_path, 3, **short(2))
    message = refused(lambda: prepare_dataset(path, DataConfig(max_left_out=0.5)))
    assert message.startswith("3 episode(s) cannot be split")
    assert "; 2 more cannot be used: a.hdf5, short_0: 7 steps are fewer than one chunk of 8" in message


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(tiny_data: Path, share: float) -> None:
    with pytest.raises(InputError, match=r"^max_left_out is .*; give a share from 0 to 1$"):
        prepare_dataset(tiny_data, DataConfig(max_left_out=share))


def some_actions(kind: str, seed: int) -> Array:
    actions = np.random.default_rng(seed).normal(size=(8 + seed % 5, 7))
    if kind == "short":
        return actions[: seed % 8]
    if kind == "narrow":
        return actions[:, : seed % 7]
    if kind == "infinite":
        actions[seed % 8, seed % 7] = (np.nan, np.inf, -np.inf)[seed % 3]
    return actions


@HYPOTHESIS
@given(
    st.lists(st.tuples(st.sampled_from(["good", "short", "narrow", "infinite"]), st.integers(0, 10_000)), max_size=20),
    st.floats(0, 1),
)
def test_what_is_usable_is_kept_as_it_is_in_order(mix: list[tuple[str, int]], most: float) -> None:
    recorded = [episode(some_actions(*one), key=f"demo_{number}") for number, one in enumerate(mix)]
    usable, left_out = leave_out_unusable(recorded, LIBERO, 8)
    good = [one for one, (kind, _) in zip(recorded, mix, strict=True) if kind == "good"]
    assert list(map(id, usable)) == list(map(id, good))
    assert [one.place for one in left_out] == [one.place for one in recorded if one not in good]
    bad = len(mix) - len(good)
    if good and bad / len(mix) <= most:
        check_left_out(left_out, len(usable), most)
    else:
        with pytest.raises(InputError):
            check_left_out(left_out, len(usable), most)
