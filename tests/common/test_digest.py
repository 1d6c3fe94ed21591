"""Hashes of what is handed to jobs: by content, and the same in every process."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from workbook.common.digest import digest

MADE = """
import torch
from rfsq_robust import ActionRFSQAE
from workbook.common.digest import digest
torch.manual_seed(0)
print(digest((torch.arange(6.0).view(2, 3), [ActionRFSQAE(7, 16, 2, 7, False)], {"a": "b"})))
"""


def test_it_is_the_same_in_every_process() -> None:
    """Between them other tensors are made, so that the same ones lie elsewhere."""
    said = {
        subprocess.run([sys.executable, "-c", f"{before}\n{MADE}"], capture_output=True, text=True, check=True).stdout
        for before in ("", "import torch; kept = [torch.rand(k, 100) for k in range(1, 300)]")
    }
    assert len(said) == 1
    assert len(said.pop().strip()) == 64


TENSOR = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
LARGE = np.arange(600_000.0).reshape(-1, 6)


@pytest.mark.parametrize(
    "other",
    [
        torch.tensor([[1.0, 2.0], [3.0, 5.0]]), TENSOR.T, TENSOR.flatten(), TENSOR.double(),
        TENSOR.clone().requires_grad_(), torch.nn.Parameter(TENSOR.clone()), TENSOR.numpy(), [TENSOR],
    ],
)  # fmt: skip
def test_what_differs_has_another(other: object) -> None:
    assert digest(other) != digest(TENSOR)


@pytest.mark.parametrize(
    "value", [TENSOR, TENSOR.bfloat16(), torch.tensor(True), torch.zeros(0), np.arange(3), LARGE, LARGE.T, b"x" * 10**6]
)
def test_equal_values_have_the_same(value: torch.Tensor | np.ndarray | bytes) -> None:
    assert digest([value]) == digest([copy.deepcopy(value)])


def test_a_part_of_a_larger_tensor_is_what_it_holds() -> None:
    assert digest(torch.arange(10)[2:4]) == digest(torch.tensor([2, 3]))
