"""How closely the sample plays again on a processor whose kernels round differently from those that recorded it.

Measured: all 190 episodes, played under OpenBLAS's kernels for SkylakeX (AVX-512), with which they were recorded, for
Haswell (AVX2: most laptops) and for Sandybridge (AVX), each in processes of their own.

| kernels     | succeed | to the last bit | hand on the way: median, largest | objects in the end: median, largest |
| ----------- | ------- | --------------- | -------------------------------- | ----------------------------------- |
| SkylakeX    | 190     | 190             | 6e-5 mm, 6e-5 mm                 | 0.05 mm, 0.08 mm                    |
| Haswell     | 190     | 0               | 0.005 mm, 7.8 mm                 | 0.16 mm, 9.2 mm                     |
| Sandybridge | 190     | 0               | 0.004 mm, 13 mm                  | 0.14 mm, 13 mm                      |

Hand: of every episode the largest. The first row is how finely the files are rounded. Where nothing loose is touched,
as in the two tasks with a knob and a drawer, the others' hands stay within 1e-9 mm of its: contact with things that
slide or fall makes the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from workbook.common.array import Array
from workbook.simulation.kernels import kernels
from workbook.simulation.playback import Trace

RECORDED = "SkylakeX"
LOOSE_MM = 40.0  # three times the largest of above, and half of what the fingers open: farther, and a grasp would miss
TOUCHED_NOTHING_MM = 1e-3  # some times the files' rounding, where nothing loose is touched
MECHANISM = 1e-4  # metres or radians: twice the files' rounding; between kernels joints were 6e-12 apart
# Of the medians, five times the largest of above: most episodes stay far closer than LOOSE_MM.
MEDIAN_HAND_MM, MEDIAN_OBJECT_MM = 0.025, 0.8


def on_recorded_kernels() -> bool:
    return kernels() == RECORDED


def can_run_recorded_kernels() -> bool:
    """Whether this processor has AVX-512; Linux says so."""
    cpu = Path("/proc/cpuinfo")
    return cpu.is_file() and "avx512f" in cpu.read_text(encoding="utf8")


@dataclass(frozen=True)
class Apart:
    """How far a replay is from its recording.

    hand: (T,) mm after every action; objects: (N,) mm in the end, of what is to be carried; mechanisms: the largest, in
    metres or radians in the end; grasp: action with which the fingers are first told to close.
    """

    hand: Array
    objects: Array
    mechanisms: float
    grasp: int

    @property
    def is_near(self) -> bool:
        """As the recording but for how kernels round."""
        hand = LOOSE_MM if self.objects.size else TOUCHED_NOTHING_MM
        return bool(self.hand.max() < hand and (self.objects < LOOSE_MM).all() and self.mechanisms < MECHANISM)

    @property
    def begins_near(self) -> bool:
        """So on the way to the first grasp, if nothing is touched on it."""
        return bool(self.hand[: self.grasp].max() < TOUCHED_NOTHING_MM)


def apart(trace: Trace, file: Path, demo: str) -> Apart:
    """A replay held against what a file of the sample says of the same actions."""
    with h5py.File(file) as opened:
        group = opened["data"][demo]
        hand, objects = group["robot_states"][:, 2:5], group["object_poses"][-1, :, :3]
        mechanisms, closed = group["mechanisms"][-1], group["actions"][:, 6] > 0
    steps = len(hand)
    return Apart(
        1000 * np.linalg.norm(trace.hand[1 : steps + 1] - hand, axis=1),
        1000 * np.linalg.norm(trace.objects[steps] - objects, axis=1),
        float(np.abs(trace.mechanisms[steps] - mechanisms).max(initial=0.0)),
        int(np.argmax(closed)),
    )
