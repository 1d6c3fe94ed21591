"""KLT-RFSQ as a file: what comes back decodes alike, and a bad file gets one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import make_dataset

from workbook.codecs.catalogue import Fitting, fitting_chunks
from workbook.codecs.klt_rfsq import KltRFSQ, VariableLength, fit_variable_length
from workbook.codecs.klt_rfsq_file import load_klt_rfsq, save_klt_rfsq
from workbook.common.errors import InputError
from workbook.data.layout import ActionLayout

RATES = [40.0, 80.0]
LAYOUTS = ("libero", "joint:7", "gripper:1 joint:3 gripper:1 joint:2")


def fitted(spec: str) -> list[VariableLength]:
    dataset = make_dataset()
    chunks = fitting_chunks(Fitting(dataset))
    model = KltRFSQ.fit(chunks, ActionLayout.parse(spec), dataset.normaliser)
    return fit_variable_length(model, chunks, RATES)


@pytest.mark.parametrize("spec", LAYOUTS)
def test_a_file_gives_back_what_was_saved(tmp_path: Path, spec: str) -> None:
    saved = fitted(spec)
    save_klt_rfsq(tmp_path / "codec.npz", saved)
    loaded = load_klt_rfsq(tmp_path / "codec.npz")
    chunks = make_dataset().held_out_chunks("test").actions
    assert [codec.rate for codec in loaded] == RATES
    for before, after in zip(saved, loaded, strict=True):
        tokens = before.encode(chunks)
        assert np.array_equal(tokens.codes, after.encode(chunks).codes)
        assert np.array_equal(before.decode(tokens), after.decode(tokens))
        assert before.bits(tokens) == after.bits(tokens)


def test_a_fresh_process_decodes_to_the_same_bits(tmp_path: Path) -> None:
    codec = fitted("libero")[0]
    save_klt_rfsq(tmp_path / "codec.npz", [codec])
    tokens = codec.encode(make_dataset().held_out_chunks("test").actions)
    np.save(tmp_path / "codes.npy", tokens.codes)
    script = (
        "import sys, numpy as np; from pathlib import Path; folder = Path(sys.argv[1])\n"
        "from workbook.codecs.klt_rfsq_file import load_klt_rfsq; from workbook.codecs.protocol import Tokens\n"
        "decoded = load_klt_rfsq(folder / 'codec.npz')[0].decode(Tokens(np.load(folder / 'codes.npy')))\n"
        "np.save(folder / 'decoded.npy', decoded)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
    assert np.array_equal(np.load(tmp_path / "decoded.npy"), codec.decode(tokens))


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "codec.npz"
    save_klt_rfsq(path, fitted("libero")[:1])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"codec\.npz: not a KLT-RFSQ, or cut short"):
        load_klt_rfsq(path)


def test_another_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", actions=np.zeros(3))
    with pytest.raises(InputError, match="not a KLT-RFSQ"):
        load_klt_rfsq(tmp_path / "other.npz")


def test_objects_in_a_file_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "codec.npz"
    save_klt_rfsq(path, fitted("libero")[:1])
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"rates": np.array([print], dtype=object)}))
    with pytest.raises(InputError, match="not a KLT-RFSQ"):
        load_klt_rfsq(path)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; run \./run_all\.sh"):
        load_klt_rfsq(tmp_path / "codec.npz")
