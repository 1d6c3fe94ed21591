"""The figures of Phase 2 in miniature: errors with intervals, accuracy by layer, agreement, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbook.codecs.protocol import Tokens, code_entropy
from workbook.codecs.token_spaces import TokenSpace
from workbook.common.array import Array
from workbook.common.intervals import Estimate, estimate_improvement
from workbook.evaluation.layers import majority_share
from workbook.evaluation.metrics import Metric, summarise
from workbook.evaluation.policy.network import RULES
from workbook.evaluation.score import HeldOut

SAME_WITHIN = 0.05  # errors this near to each other count as equal
Scores = dict[str, Metric]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is predicted: a codec's tokens, with a space for each seed, or none for regression; alternatives are other
    decoders of the same tokens.
    """

    title: str
    spaces: Sequence[TokenSpace]
    alternatives: Mapping[str, Sequence[TokenSpace]]

    def space(self, seed: int) -> TokenSpace:
        return self.spaces[seed % len(self.spaces)]


@dataclass(frozen=True)
class Job:
    """One policy to train. subject: key of `Shared.subjects`, "" for regression; draft: on the coarse layers alone."""

    subject: str
    episodes: int
    seed: int
    draft: bool = False


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a policy's predictions are worth.

    scores: (part, rule, first layers that are decoded, 0 for all) -> metrics of the decoded predicted actions;
    tokens: of the test part, rule -> (N, G, S) a layer; bits: rule -> the demonstrator's tokens of a chunk, mean of
    each layer; weights: how many the network has.
    """

    scores: dict[tuple[str, str, int], Scores]
    tokens: dict[str, list[np.ndarray]]
    bits: dict[str, list[float]]
    weights: int = 0


@dataclass(frozen=True, eq=False)
class Evidence:
    """The figures of the probe from what all policies predicted."""

    test: HeldOut
    subjects: Mapping[str, Subject]
    found: Mapping[Job, Predicted]
    amounts: Sequence[int]
    seeds: int

    def _per_seed(self, subject: str, amount: int, rule: str, layers: int = 0, part: str = "test") -> list[Scores]:
        jobs = (Job(subject, amount, seed) for seed in range(self.seeds))
        return [self.found[job].scores[part, rule, layers] for job in jobs]

    def errors(self, subject: str, amount: int, rule: str) -> dict[str, Any]:
        """Errors of the decoded predicted actions, and the validation MSE, by which choices are made."""
        summary = summarise(self._per_seed(subject, amount, rule))
        return {
            "errors": {name: estimate.as_json() for name, estimate in summary.items()},
            "validation_mse": self._validation_mse(subject, amount, rule),
        }

    def _validation_mse(self, subject: str, amount: int, rule: str, layers: int = 0) -> float:
        metrics = [scores["mse"] for scores in self._per_seed(subject, amount, rule, layers, "validation")]
        return float(np.mean([metric.values @ metric.weights / metric.weights.sum() for metric in metrics]))

    def of_subject(self, key: str) -> dict[str, Any]:
        subject = self.subjects[key]
        truths = [space.tokens(self.test.chunks.actions) for space in subject.spaces]
        codec = [self.test.measure(s.decode(t)) for s, t in zip(subject.spaces, truths, strict=True)]
        most = self.amounts[-1]
        rule = self.best_rule(key)
        return {
            "title": subject.title,
            "layers": len(subject.spaces[0].sizes),
            "weights": self.found[Job(key, most, 0)].weights,
            "tokens_per_chunk": self._tokens_per_chunk(key),
            "codec_mse": summarise([{"mse": metrics["mse"]} for metrics in codec])["mse"].as_json(),
            "majority": np.mean([[_majority(layer) for layer in truth] for truth in truths], axis=0).tolist(),
            "entropy": np.mean([[_entropy(layer) for layer in truth] for truth in truths], axis=0).tolist(),
            "best_rule": rule,
            "layers_to_keep": self.layers_to_keep(key, rule),
            "by_amount": {str(amount): self._by_rule(key, truths, amount) for amount in self.amounts},
            "by_layers": {
                rule: [
                    summarise([{"mse": s["mse"]} for s in self._per_seed(key, most, rule, shown)])["mse"].as_json()
                    for shown in self._prefixes(key)
                ]
                for rule in RULES
            },
        }

    def _prefixes(self, key: str) -> list[int]:
        """The numbers of first layers that were decoded, all of them as 0, coarse to fine."""
        return [*range(1, len(self.subjects[key].spaces[0].sizes)), 0]

    def _by_rule(self, key: str, truths: Sequence[list[np.ndarray]], amount: int) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for rule in RULES:
            rows[rule] = self.errors(key, amount, rule)
            if rule != "expected":
                rows[rule] |= self._of_tokens(key, truths, amount, rule)
        for name in self.subjects[key].alternatives:
            rows |= {f"{rule}, {name}": self.errors(key, amount, f"{rule}, {name}") for rule in RULES}
        return rows

    def _of_tokens(self, key: str, truths: Sequence[list[np.ndarray]], amount: int, rule: str) -> dict[str, Any]:
        predicted = [self.found[Job(key, amount, seed)] for seed in range(self.seeds)]
        accuracy = [
            [float(np.mean(a == b)) for a, b in zip(each.tokens[rule], truths[seed % len(truths)], strict=True)]
            for seed, each in enumerate(predicted)
        ]
        return {
            "accuracy": np.mean(accuracy, axis=0).tolist(),
            "accuracy_per_seed": accuracy,
            "bits_per_layer": np.mean([each.bits[rule] for each in predicted], axis=0).tolist(),
            "bits_per_chunk": [float(np.sum(each.bits[rule])) for each in predicted],
        }

    def best_rule(self, key: str) -> str:
        """The rule of least validation MSE, with all training data; of equal ones the simplest."""
        return min(RULES, key=lambda rule: self._validation_mse(key, self.amounts[-1], rule))

    def layers_to_keep(self, key: str, rule: str) -> int:
        """The fewest first layers whose validation MSE, predicted and decoded, is within 5 % of the least."""
        found = [self._validation_mse(key, self.amounts[-1], rule, shown) for shown in self._prefixes(key)]
        return next(k + 1 for k, mse in enumerate(found) if mse <= min(found) * (1 + SAME_WITHIN))

    def new_codec(self) -> str:
        """The codec to take where tokens are made anew: that of fewest tokens a chunk of those whose policy, at its
        best rule, is within 5 % of the least validation MSE.
        """
        found = {
            key: self._validation_mse(key, self.amounts[-1], self.best_rule(key))
            for key in self.subjects
            if key != "naive"
        }
        near = [key for key, mse in found.items() if mse <= min(found.values()) * (1 + SAME_WITHIN)]
        return min(near, key=self._tokens_per_chunk)

    def _tokens_per_chunk(self, key: str) -> int:
        space = self.subjects[key].spaces[0]
        return space.groups * sum(places for places, _ in space.sizes)

    def agreement(self, key: str) -> dict[str, Any]:
        """Share of the coarse tokens on which draft and main agree, layer by layer: mean, and of each seed."""
        shares: dict[str, list[list[float]]] = {rule: [] for rule in RULES if rule != "expected"}
        for seed in range(self.seeds):
            main, draft = (self.found[Job(key, self.amounts[-1], seed, draft=which)] for which in (False, True))
            for rule, per_seed in shares.items():
                pairs = zip(draft.tokens[rule], main.tokens[rule], strict=False)
                per_seed.append([float(np.mean(a == b)) for a, b in pairs])
        return {rule: {"mean": np.mean(each, axis=0).tolist(), "per_seed": each} for rule, each in shares.items()}

    def contrasts(self) -> dict[str, Any]:
        """Paired differences of MSE with all training data, as the share by which the second is less than the first."""
        most = self.amounts[-1]
        today = self._mse("naive", "independent")
        new, best = self.new_codec(), {key: self.best_rule(key) for key in self.subjects}
        naive, scale = self._mse("naive", best["naive"]), self._mse("scale", best["scale"])
        codec = [self.test.measure(s.decode(s.tokens(self.test.chunks.actions))) for s in self.subjects["naive"].spaces]
        codec_mse = np.stack([metrics["mse"].values for metrics in codec])
        rows = {
            "new_for_naive": self._less(naive, self._mse(new, best[new])),
            "new_rule": self._less(self._mse(new, "independent"), self._mse(new, best[new])),
            "scale_for_naive": self._less(naive, scale),
            "klt_rfsq_for_naive": self._less(naive, self._mse("klt_rfsq", best["klt_rfsq"])),
            "retrained_decoder": self._less(naive, self._mse("naive", f"{best['naive']}, retrained")),
            "naive_rule": self._less(today, naive),
            "codec_share": self._less(naive, naive - codec_mse),
            "regression_for_naive": self._less(naive, self._mse("", "regression")),
        }
        for rule in ("by_layer", "expected"):
            rows[f"scale_{rule}"] = self._less(self._mse("scale", "independent"), self._mse("scale", rule))
        for rule in RULES:
            rows[f"scale_for_naive_{rule}"] = self._less(self._mse("naive", rule), self._mse("scale", rule))
        return {"episodes": most, **{name: estimate.as_json() for name, estimate in rows.items()}}

    def _mse(self, subject: str, rule: str) -> Array:
        return np.stack([scores["mse"].values for scores in self._per_seed(subject, self.amounts[-1], rule)])

    def _less(self, baseline: Array, candidate: Array) -> Estimate:
        return estimate_improvement(
            baseline, candidate, self._per_seed("", self.amounts[-1], "regression")[0]["mse"].weights
        )


def _majority(tokens: np.ndarray) -> float:
    """Share of the tokens (N, G, S) of a layer that equal the most common one at their place."""
    return float(majority_share(tokens.reshape(-1, tokens.shape[2], 1))[0])


def _entropy(tokens: np.ndarray) -> float:
    """Mean entropy of a token (N, G, S) of a layer, in bits, each place by itself."""
    flat = tokens.reshape(-1, 1, tokens.shape[2])
    return float(code_entropy(Tokens(flat), np.ones(flat.shape[:2], dtype=bool)).mean())
