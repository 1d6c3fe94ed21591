"""What a processor step meets in `lerobot.processor` of lerobot 0.4.4: the same names, signatures and refusals.

LeRobot pulls dozens of packages and asks for an older torch, so tests run against this where it is not installed.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ACTION = "action"
ACTION_TOKENS = "action.tokens"
ACTION_TOKEN_MASK = "action.token_mask"
Transition = dict[str, Any]
Features = dict[Any, dict[str, Any]]


class TransitionKey(str, Enum):  # noqa: UP042 (as it is there)
    OBSERVATION = "observation"
    ACTION = "action"
    REWARD = "reward"
    DONE = "done"
    TRUNCATED = "truncated"
    INFO = "info"
    COMPLEMENTARY_DATA = "complementary_data"


class ProcessorStepRegistry:
    _registry: dict[str, type] = {}  # noqa: RUF012

    @classmethod
    def register(cls, name: str | None = None) -> Callable[[type], type]:
        def decorator(step_class: type) -> type:
            registration_name = name if name is not None else step_class.__name__
            if registration_name in cls._registry:
                raise ValueError(f"Processor step '{registration_name}' is already registered. ")
            cls._registry[registration_name] = step_class
            step_class._registry_name = registration_name  # type: ignore[attr-defined]
            return step_class

        return decorator

    @classmethod
    def get(cls, name: str) -> type:
        if name not in cls._registry:
            raise KeyError(f"Processor step '{name}' not found in registry. ")
        return cls._registry[name]

    @classmethod
    def unregister(cls, name: str) -> None:
        cls._registry.pop(name, None)

    @classmethod
    def list(cls) -> list[str]:
        return [*cls._registry]

    @classmethod
    def clear(cls) -> None:
        cls._registry.clear()


class ProcessorStep(ABC):
    _current_transition: Transition | None = None

    @property
    def transition(self) -> Transition:
        if self._current_transition is None:
            raise ValueError("Transition is not set. Make sure to call the step with a transition first.")
        return self._current_transition

    @abstractmethod
    def __call__(self, transition: Transition) -> Transition: ...

    def get_config(self) -> dict[str, Any]:
        return {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        return None

    def reset(self) -> None:
        return None

    @abstractmethod
    def transform_features(self, features: Features) -> Features: ...


class ActionProcessorStep(ProcessorStep, ABC):
    @abstractmethod
    def action(self, action: Any) -> Any: ...

    def __call__(self, transition: Transition) -> Transition:
        self._current_transition = transition.copy()
        action = self._current_transition.get(TransitionKey.ACTION)
        if action is None:
            raise ValueError("ActionProcessorStep requires an action in the transition.")
        self._current_transition[TransitionKey.ACTION] = self.action(action)
        return self._current_transition


def create_transition(
    observation: dict[str, Any] | None = None,
    action: Any = None,
    reward: float = 0.0,
    done: bool = False,
    truncated: bool = False,
    info: dict[str, Any] | None = None,
    complementary_data: dict[str, Any] | None = None,
) -> Transition:
    values = (observation, action, reward, done, truncated, info or {}, complementary_data or {})
    return dict(zip(TransitionKey, values, strict=True))


def batch_to_transition(batch: dict[str, Any]) -> Transition:
    action = batch.get(ACTION)
    if action is not None and not isinstance(action, torch.Tensor):
        raise ValueError(f"Action should be a PolicyAction type got {type(action)}")
    observation = {key: value for key, value in batch.items() if key.startswith("observation.")}
    kept = ("task", "subtask", "index", "task_index", "episode_index")
    complementary_data = {key: value for key, value in batch.items() if "_is_pad" in key or key in kept}
    return create_transition(
        observation=observation or None,
        action=action,
        reward=batch.get("next.reward", 0.0),
        done=batch.get("next.done", False),
        truncated=batch.get("next.truncated", False),
        info=batch.get("info", {}),
        complementary_data=complementary_data or None,
    )


def transition_to_batch(transition: Transition) -> dict[str, Any]:
    return {
        ACTION: transition.get(TransitionKey.ACTION),
        "next.reward": transition.get(TransitionKey.REWARD, 0.0),
        "next.done": transition.get(TransitionKey.DONE, False),
        "next.truncated": transition.get(TransitionKey.TRUNCATED, False),
        "info": transition.get(TransitionKey.INFO, {}),
        **(transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}),
        **(transition.get(TransitionKey.OBSERVATION) or {}),
    }


@dataclass
class DataProcessorPipeline:
    steps: Sequence[ProcessorStep] = field(default_factory=list)
    name: str = "DataProcessorPipeline"
    to_transition: Callable[[Any], Transition] = field(default_factory=lambda: batch_to_transition, repr=False)
    to_output: Callable[[Transition], Any] = field(default_factory=lambda: transition_to_batch, repr=False)
    before_step_hooks: list[Callable[[int, Transition], None]] = field(default_factory=list, repr=False)
    after_step_hooks: list[Callable[[int, Transition], None]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        for number, step in enumerate(self.steps):
            if not isinstance(step, ProcessorStep):
                raise TypeError(f"Step {number} ({type(step).__name__}) must inherit from ProcessorStep")

    def __call__(self, data: Any) -> Any:
        transition = self.to_transition(data)
        for step in self.steps:
            transition = step(transition)
        return self.to_output(transition)

    def transform_features(self, initial_features: Features) -> Features:
        features = deepcopy(initial_features)
        for step in self.steps:
            features = step.transform_features(features)
        return features

    def save_pretrained(
        self,
        save_directory: str | Path | None = None,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        card_kwargs: dict[str, Any] | None = None,
        config_filename: str | None = None,
        **push_to_hub_kwargs: Any,
    ) -> None:
        assert save_directory is not None
        assert not any(step.state_dict() for step in self.steps)
        steps = [
            {"registry_name": type(step)._registry_name, "config": step.get_config()}  # type: ignore[attr-defined]
            for step in self.steps
        ]
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        path = Path(save_directory) / (config_filename or f"{self.name.lower()}.json")
        path.write_text(json.dumps({"name": self.name, "steps": steps}, indent=2))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        config_filename: str,
        *,
        force_download: bool = False,
        resume_download: bool | None = None,
        proxies: dict[str, str] | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        overrides: dict[str, Any] | None = None,
        to_transition: Callable[[Any], Transition] | None = None,
        to_output: Callable[[Transition], Any] | None = None,
        **kwargs: Any,
    ) -> DataProcessorPipeline:
        content = json.loads((Path(pretrained_model_name_or_path) / config_filename).read_text())
        steps = [
            ProcessorStepRegistry.get(entry["registry_name"])(
                **entry["config"], **(overrides or {}).get(entry["registry_name"], {})
            )
            for entry in content["steps"]
        ]
        return cls(steps, content["name"], to_transition or batch_to_transition, to_output or transition_to_batch)


PROCESSOR = (
    *(TransitionKey, ProcessorStepRegistry, ProcessorStep, ActionProcessorStep, DataProcessorPipeline),
    *(create_transition, batch_to_transition, transition_to_batch),
)
CONSTANTS = {"ACTION": ACTION, "ACTION_TOKENS": ACTION_TOKENS, "ACTION_TOKEN_MASK": ACTION_TOKEN_MASK}


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Make `import lerobot.processor` and `lerobot.utils.constants` find what is here."""
    modules = {name: ModuleType(name) for name in ("lerobot", "lerobot.processor", "lerobot.utils")}
    modules["lerobot.utils.constants"] = ModuleType("lerobot.utils.constants")
    vars(modules["lerobot.processor"]).update({entry.__name__: entry for entry in PROCESSOR})
    vars(modules["lerobot.utils.constants"]).update(CONSTANTS)
    for name, module in modules.items():
        patch.setitem(sys.modules, name, module)
