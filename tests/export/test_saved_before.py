"""Checkpoints and tokenizer folders of an earlier version load, and give what they gave then.

`saved_before` was written before modules moved into folders: five checkpoints, two saved tokenizers, and what came of
some chunks. Codes are equal; decoded actions may differ in the last bits, for another processor rounds differently.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from rfsq_robust import load_checkpoint
from rfsq_tokenizer import RFSQTokenizer
from workbook.codecs.klt_rfsq import FixedLength
from workbook.codecs.klt_rfsq_file import load_klt_rfsq
from workbook.export.klt_tokenizer import KltTokenizer

SAVED = Path(__file__).with_name("saved_before")
CHECKPOINTS = ("rfsq_best", "rfsq_robust_best", "rfsq_robust_scale_best", "frozen_layernorm", "learned_scale")
LAST_BITS = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(SAVED / "expected.npz", allow_pickle=False) as saved:
        return dict(saved)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_gives_what_it_gave(expected: dict[str, np.ndarray], name: str) -> None:
    checkpoint = load_checkpoint(SAVED / f"{name}.pt")
    normalised = checkpoint.normalise(torch.from_numpy(expected["chunks"]))
    with torch.no_grad():
        assert np.array_equal(checkpoint.model.encode(normalised).numpy(), expected[f"{name}_codes"])
        np.testing.assert_allclose(checkpoint.model(normalised)[0].numpy(), expected[f"{name}_forward"], **LAST_BITS)


def test_a_saved_rfsq_tokenizer_gives_what_it_gave(expected: dict[str, np.ndarray]) -> None:
    tokenizer = RFSQTokenizer.from_pretrained(SAVED / "rfsq_saved")
    tokens = tokenizer(expected["chunks"])
    assert tokens == expected["rfsq_tokens"].tolist()
    np.testing.assert_allclose(tokenizer.decode(tokens), expected["rfsq_decoded"], **LAST_BITS)


def test_a_saved_klt_tokenizer_gives_what_it_gave(expected: dict[str, np.ndarray]) -> None:
    tokenizer = KltTokenizer.from_pretrained(SAVED / "klt_tokenizer")
    assert tokenizer(expected["few"]) == expected["klt_tokens"].tolist()
    np.testing.assert_allclose(tokenizer.decode(tokenizer(expected["few"])), expected["klt_decoded"], **LAST_BITS)


def test_a_klt_rfsq_file_gives_what_it_gave(expected: dict[str, np.ndarray]) -> None:
    codec = FixedLength(load_klt_rfsq(SAVED / "klt_tokenizer" / "klt_rfsq.npz")[0].model, 12)
    np.testing.assert_allclose(codec.decode(codec.encode(expected["few"])), expected["klt_decoded"], **LAST_BITS)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The code in the saved folder, a package: what a user who copied rfsq_tokenizer.py then still has."""
    monkeypatch.syspath_prepend(str(SAVED))
    return importlib.import_module("rfsq_saved.rfsq_tokenizer")


def test_a_copy_of_the_tokenizers_code_fits_with_this_workbook(
    copied: ModuleType, expected: dict[str, np.ndarray]
) -> None:
    fitted = copied.RFSQTokenizer.fit(list(expected["chunks"]), epochs=1, num_layers=2)
    again = RFSQTokenizer.fit(list(expected["chunks"]), epochs=1, num_layers=2)
    assert fitted(expected["chunks"]) == again(expected["chunks"])


def test_the_loader_in_a_saved_klt_folder_finds_the_class() -> None:
    spec = importlib.util.spec_from_file_location("loader_before", SAVED / "klt_tokenizer" / "klt_tokenizer_loader.py")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    assert isinstance(loader.KltTokenizer.from_pretrained(str(SAVED / "klt_tokenizer")), KltTokenizer)
