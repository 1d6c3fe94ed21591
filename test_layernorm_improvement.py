"""Compare a naive and a robust RFSQ checkpoint on held-out episodes, from forward and from tokens alone.

    python test_layernorm_improvement.py --naive-model rfsq_best.pt --robust-model rfsq_robust_best.pt \
        --num-samples 1000 --chunk-len 8
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

# This is a command, not a pytest file: its name is the guide's, and pytest, which would collect it, is told not to.
__test__ = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit code."""
    options = _parser().parse_args(arguments)
    # Imported here and below, so that --help and a mistyped option do not wait for torch.
    from workbook.common.terminal import tell

    return tell(lambda: _compare(**vars(options)), options.json or "the comparison")


def _compare(json: str, **options: Any) -> str:
    from workbook.common.stages import write_json
    from workbook.evaluation.checkpoints import ComparisonConfig, check_json_file, compare_checkpoints
    from workbook.report.text.checkpoints import as_text

    config = ComparisonConfig(**options)
    path = check_json_file(json, config) if json else None
    report = compare_checkpoints(config)
    if path:
        write_json(path, report)
    return as_text(report)


def _parser() -> argparse.ArgumentParser:
    from workbook.data.config import add_options

    parser = argparse.ArgumentParser(
        prog="test_layernorm_improvement.py",
        allow_abbrev=False,
        description="Compare a naive and a robust RFSQ checkpoint on held-out episodes: error, improvement, layers and "
        "bits, from the forward pass and from tokens alone.",
        epilog="Options about the data that are not given are taken from the checkpoints, which say what they were "
        "trained on, so that held-out episodes are scored; where neither says it, from the sample as it is. "
        "Exit code 0: compared, whatever the verdict; 2: bad input; 1: anything else; 130: interrupted.",
    )
    parser.add_argument("--naive-model", required=True, metavar="FILE", help="checkpoint of the naive RFSQ")
    parser.add_argument("--robust-model", required=True, metavar="FILE", help="checkpoint of the robust RFSQ")
    parser.add_argument("--num-samples", type=int, default=1000, help="score at most so many chunks; default: 1000")
    parser.add_argument(
        "--data", help="the recordings, as ./run_all.sh takes them; default: the checkpoints', else sample"
    )
    add_options(parser, "stride", "accept_data", default=False)
    parser.add_argument("--json", default="", metavar="FILE", help="also write the figures as JSON")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: more threads only wait for each other
    sys.exit(main())
