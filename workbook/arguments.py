"""What can be said on the command line of run_all.sh."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from workbook.sources import DATA_KINDS

SMOKE = {
    "epochs": 2, "seeds": 2, "num_episodes": 24, "rival_steps": 20, "policy_steps": 20, "replay_episodes": 2,
    "replay_seeds": 1,
}  # fmt: skip


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./run_all.sh",
        allow_abbrev=False,
        description="Run the notebooks headless and write the report that the verdict is read from.",
        epilog="Results go to OUT/reports/index.html, OUT/results.json and OUT/checkpoints/. "
        "Exit code 0: the run is complete, whatever the verdict; 2: bad input; 1: anything else; 130: interrupted.",
    )
    parser.add_argument("--data", default="sample", help=f"{DATA_KINDS}; default: sample")
    parser.add_argument("--out", default="", help="folder for results; default: out/ in the repository")
    parser.add_argument("--epochs", type=int, default=100, help="passes over the train episodes; default: 100")
    parser.add_argument("--seeds", type=int, default=5, help="models of each conditioning; default: 5")
    parser.add_argument("--num-episodes", type=int, default=0, help="use only so many episodes; default: 0, all")
    parser.add_argument("--chunk-len", type=int, default=8, help="steps in a chunk; default: 8")
    parser.add_argument(
        "--stride", type=int, default=0, help="steps between train chunks; default: 0, the chunk length"
    )
    parser.add_argument(
        "--layout",
        default="libero",
        help="what the numbers of an action are; default: libero, which is 'position:3 rotation:3 gripper:1'",
    )
    parser.add_argument(
        "--gripper-open", default="auto", help="the end of the recorded gripper that is open: auto (default), low, high"
    )
    parser.add_argument(
        "--drop-noops", action="store_true", help="leave out steps that command nothing, by OpenVLA's rule"
    )
    parser.add_argument("--hidden-dim", type=int, default=16, help="latent numbers a step; default: 16")
    parser.add_argument("--num-layers", type=int, default=8, help="residual layers; default: 8")
    parser.add_argument("--num-levels", type=int, default=7, help="grid values a number and layer; default: 7")
    parser.add_argument(
        "--rival-steps", type=int, default=1000, help="batches for each of the field's quantizers; default: 1000"
    )
    parser.add_argument("--policy-steps", type=int, default=400, help="batches for each small policy; default: 400")
    parser.add_argument(
        "--with-replay",
        action="store_true",
        help="also play the test episodes in LIBERO's simulator, exactly and as every codec's tokens decode; installs "
        "the simulator (0.8 GB to download, 2.1 GB on disk)",
    )
    parser.add_argument(
        "--replay-episodes", type=int, default=0, help="play only so many test episodes; default: 0, all"
    )
    parser.add_argument(
        "--replay-seeds", type=int, default=0, help="play only so many models of a trained codec; default: 0, all"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--naive-checkpoint", default="", help="a naive Phase-1 checkpoint to take naive's place")
    parser.add_argument(
        "--full", action="store_true", help="the complete sweep of codecs and policies; takes hours on 2 cores"
    )
    parser.add_argument("--smoke", action="store_true", help="a rehearsal in about a minute; its result is no evidence")
    if "--smoke" in arguments:  # what is said besides it stands
        parser.set_defaults(**SMOKE)
    options = parser.parse_args(arguments)
    options.stride = options.stride or options.chunk_len
    return options
