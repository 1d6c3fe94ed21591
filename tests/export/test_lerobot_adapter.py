"""The steps for LeRobot that docs/lerobot.md shows, in LeRobot's pipeline, or in one with its interface."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import lerobot_interface
import numpy as np
import pytest
import torch
from models import ACTION_DIM
from tokenizer_models import CHUNK_LEN, chunks_for, make_tokenizer

from rfsq_tokenizer import RFSQTokenizer
from workbook.common.paths import REPOSITORY

GUIDE = REPOSITORY / "docs" / "lerobot.md"
HAS_LEROBOT = importlib.util.find_spec("lerobot") is not None
NAMES = ("rfsq_action_tokenizer", "rfsq_action_decoder")
TOKENIZER = make_tokenizer(layers=2)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`lerobot.processor`, in whose registry the steps are."""
    if not HAS_LEROBOT:
        lerobot_interface.stand_in(monkeypatch)
    module = importlib.import_module("lerobot.processor")
    snippets = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf8"), flags=re.DOTALL)
    [snippet] = [text for text in snippets if "ProcessorStepRegistry" in text]
    exec(snippet, {})
    yield module
    for name in NAMES:
        module.ProcessorStepRegistry.unregister(name)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    TOKENIZER.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def pipeline_of(processor: ModuleType, name: str, folder: str) -> Any:
    step = processor.ProcessorStepRegistry.get(name)
    return processor.DataProcessorPipeline(steps=[step(folder=folder)], name="rfsq")


def batch_of(actions: Any) -> dict[str, Any]:
    return {"action": actions, "observation.state": torch.zeros(5, 3), "task": ["fold"] * 5}


ACTIONS = torch.from_numpy(chunks_for(TOKENIZER)).float()


def assert_tokenized(batch: dict[str, Any]) -> None:
    tokens, mask = batch["action.tokens"], batch["action.token_mask"]
    assert tokens.tolist() == TOKENIZER(ACTIONS)
    assert tokens.shape == mask.shape == (5, TOKENIZER.tokens_per_chunk)
    assert (tokens.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert mask.all()


def test_tokens_and_mask_are_added_to_a_batch(processor: ModuleType, folder: str) -> None:
    batch = pipeline_of(processor, NAMES[0], folder)(batch_of(ACTIONS))
    assert_tokenized(batch)
    assert torch.equal(batch["action"], ACTIONS)
    assert batch["task"] == ["fold"] * 5
    assert torch.equal(batch["observation.state"], torch.zeros(5, 3))


def test_the_transition_that_is_given_stays_as_it_is(processor: ModuleType, folder: str) -> None:
    known = {"task": ["fold"] * 5}
    transition = processor.create_transition(action=ACTIONS, complementary_data=known)
    before = dict(transition)
    out = processor.ProcessorStepRegistry.get(NAMES[0])(folder)(transition)
    assert transition == before
    assert known == {"task": ["fold"] * 5}
    assert set(out[processor.TransitionKey.COMPLEMENTARY_DATA]) == {"task", "action.tokens", "action.token_mask"}


def test_without_an_action_nothing_is_added(processor: ModuleType, folder: str) -> None:
    batch = pipeline_of(processor, NAMES[0], folder)({"observation.state": torch.zeros(1, 3)})
    assert batch["action"] is None
    assert not {"action.tokens", "action.token_mask"} & set(batch)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_pipeline_loads(name: str, processor: ModuleType, folder: str, tmp_path: Path) -> None:
    pipeline_of(processor, name, folder).save_pretrained(tmp_path / "pipeline")
    assert [path.name for path in (tmp_path / "pipeline").iterdir()] == ["rfsq.json"]
    loaded = processor.DataProcessorPipeline.from_pretrained(tmp_path / "pipeline", config_filename="rfsq.json")
    if name == NAMES[0]:
        assert_tokenized(loaded(batch_of(ACTIONS)))
    else:
        assert_decoded(loaded(batch_of(torch.tensor(TOKENIZER(ACTIONS))))["action"])


def assert_decoded(actions: torch.Tensor) -> None:
    assert actions.dtype == torch.float32
    np.testing.assert_array_equal(actions.numpy(), TOKENIZER.decode(TOKENIZER(ACTIONS)).astype(np.float32))


@pytest.mark.parametrize("length", [1, 30, 48])
def test_what_a_policy_generated_becomes_actions(length: int, processor: ModuleType, folder: str) -> None:
    tokens = torch.tensor(TOKENIZER(ACTIONS))[:, :length]
    actions = pipeline_of(processor, NAMES[1], folder)(batch_of(tokens))["action"]
    assert actions.shape == (5, CHUNK_LEN, ACTION_DIM)
    np.testing.assert_array_equal(actions.numpy(), TOKENIZER.decode(tokens).astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_features_stay_as_they_are(name: str, processor: ModuleType, folder: str) -> None:
    features: dict[str, dict[str, Any]] = {"action": {"action": 7}}
    assert pipeline_of(processor, name, folder).transform_features(features) == features


def test_a_folder_that_is_none_is_named(processor: ModuleType, tmp_path: Path) -> None:
    step = processor.ProcessorStepRegistry.get(NAMES[0])
    with pytest.raises(ValueError, match=r"processor_config.json: cannot be read"):
        step(folder=str(tmp_path))


def test_lerobots_own_step_takes_a_folder(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its marks around the tokens, and its ids, which count down from the end of the text tokenizer's vocabulary."""
    pytest.importorskip("lerobot")
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    words = {word: number for number, word in enumerate(["<bos>", "<unk>", "Action", ":", "|", *map(str, range(200))])}
    text = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    text.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=text, bos_token="<bos>", unk_token="<unk>")
    fast.save_pretrained(tmp_path / "text")
    processor = importlib.import_module("lerobot.processor")
    step = processor.ActionTokenizerProcessorStep(
        action_tokenizer_name=folder,
        max_action_tokens=TOKENIZER.tokens_per_chunk + 16,
        paligemma_tokenizer_name=str(tmp_path / "text"),
    )
    out = processor.DataProcessorPipeline(steps=[step])(batch_of(ACTIONS))
    for ids, mask, expected in zip(out["action.tokens"], out["action.token_mask"], TOKENIZER(ACTIONS), strict=True):
        sent = ids[mask].tolist()
        assert sent[:3] + sent[-1:] == [0, 2, 3, 4]
        assert [len(words) - 1 - 128 - id_ for id_ in sent[3:-1]] == expected


# The stand-in


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults; what a default factory makes is another object every time."""
    return [
        (entry.name, entry.kind, None if "factory" in repr(entry.default) else entry.default)
        for entry in inspect.signature(function).parameters.values()
    ]


def test_the_stand_in_has_the_interface_of_lerobot() -> None:
    processor = pytest.importorskip("lerobot.processor")
    for own in lerobot_interface.PROCESSOR:
        real = getattr(processor, own.__name__)
        assert parameters(own) == parameters(real), own
        assert getattr(own, "__abstractmethods__", None) == getattr(real, "__abstractmethods__", None)
        for name, member in vars(own).items():
            if inspect.isfunction(member) or isinstance(member, classmethod):
                assert parameters(getattr(own, name)) == parameters(getattr(real, name)), (own, name)
    assert [*lerobot_interface.TransitionKey] == [*processor.TransitionKey]
    constants = importlib.import_module("lerobot.utils.constants")
    assert {name: getattr(constants, name) for name in lerobot_interface.CONSTANTS} == lerobot_interface.CONSTANTS


def test_the_stand_in_refuses_what_lerobot_refuses() -> None:
    registry = lerobot_interface.ProcessorStepRegistry
    registry.register("once")(RFSQTokenizer)
    with pytest.raises(ValueError, match="already registered"):
        registry.register("once")(RFSQTokenizer)
    registry.unregister("once")
    del RFSQTokenizer._registry_name  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="not found"):
        registry.get("once")
    with pytest.raises(TypeError, match="must inherit from ProcessorStep"):
        lerobot_interface.DataProcessorPipeline(steps=[RFSQTokenizer])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="abstract"):
        lerobot_interface.ActionProcessorStep()  # type: ignore[abstract]
