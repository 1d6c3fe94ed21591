"""The predictions of a user's own Phase 2 in sentences and tables, for every kind of file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_predictions import certain, content, judged, made_checkpoint, made_tokens, spoiled

from workbook.evaluation.evidence import Evidence
from workbook.report.blocks import show
from workbook.report.tables.predictions import layers_table
from workbook.report.text.predictions import remarks

MOMENTS = 300
LONGEST = 25  # words of a sentence


def run_of(tmp_path: Path, conditioning: Any = "scale", dead: int = 0, drafted: bool = True, **more: Any) -> Evidence:
    checkpoint = made_checkpoint(tmp_path / "codec.pt", conditioning)
    tokens = made_tokens(MOMENTS, dead=dead)
    draft = spoiled(tokens[..., :3], 0.3) if drafted else None
    held = content(checkpoint, tokens, spoiled(tokens, 0.2), draft, **more)
    run = Evidence(tmp_path / "run")
    vars(run)["predictions"] = judged(tmp_path / "a.npz", {name: v for name, v in held.items() if v is not None})
    return run


def other() -> dict[str, Any]:
    """Another moment's draft, which the main model repeats."""
    at = np.roll(np.arange(MOMENTS), 1)
    draft = spoiled(made_tokens(MOMENTS)[..., :3], 0.3)
    return {"other": at, "other_main_logits": certain(draft[at])}


@pytest.mark.parametrize(
    ("kind", "said", "unsaid"),
    [
        ({}, "write 'other_main_logits'", "is not copying"),
        (other(), "is not copying", "is not known"),
        ({"dead": 2}, "Constant: L2, L3.", "no normaliser"),
        ({"drafted": False}, "moments of 20 episodes", "draft"),
        ({"episode": None}, "30 blocks of neighbours", "intervals are over episodes"),
        ({"conditioning": "layernorm"}, "These tokens do not decode alone", "no normaliser"),
        ({"task": np.arange(MOMENTS) % 2}, "with another moment's draft", "of any task"),
    ],
)
def test_every_kind_of_file_has_its_sentences(tmp_path: Path, kind: dict[str, Any], said: str, unsaid: str) -> None:
    run = run_of(tmp_path, **kind)
    text = " ".join(remarks(run))
    assert said in text
    assert unsaid not in text
    for sentence in re.split(r"[.?:;] ", text.replace(" 95 % interval", "")):
        assert len(sentence.split()) <= LONGEST, sentence
    for name in ("predictions_remarks", "predictions", "predictions_layers"):
        shown = show(run, name).markdown
        for wrong in ("nan", "None", "<NA>"):
            assert wrong not in shown


def test_layers_are_marked_by_what_they_are(tmp_path: Path) -> None:
    tokens = made_tokens(MOMENTS, dead=1)
    checkpoint = made_checkpoint(tmp_path / "codec.pt")
    draft = spoiled(tokens[..., :3], 0.3)
    main = np.concatenate([draft[..., :1], spoiled(tokens[..., 1:], 0.2)], axis=-1)
    run = Evidence(tmp_path / "run")
    vars(run)["predictions"] = judged(tmp_path / "a.npz", content(checkpoint, tokens, main, draft))
    kinds = [str(row[-1]) for row in layers_table(run).rows]
    assert kinds == ["copied", "", "", "constant", "", "", ""]


def test_without_a_file_one_sentence_says_how_to_give_one(tmp_path: Path) -> None:
    (sentence,) = remarks(Evidence(tmp_path))
    assert "NOT RUN" in sentence
    assert "./run_all.sh --predictions FILE" in sentence
