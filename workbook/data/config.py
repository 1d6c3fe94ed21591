"""How recordings are read: the parameters of 01_data, and the same as options of the commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from workbook.common.errors import InputError

# All else is imported where it is used, so that a command says what its options are where nothing is installed.
if TYPE_CHECKING:
    from workbook.data.episodes import ReadOptions
    from workbook.data.layout import ActionLayout

MAX_LEFT_OUT = 0.1


FEWEST_FOLDS, MOST_FOLDS = 3, 10  # one tests, one validates, and one or more train


@dataclass(frozen=True)
class DataConfig:
    """How recordings become a data set; the parameters of 01_data.

    num_episodes: taken in turn from every task, 0 for all; chunk_len, stride: steps; split_seed: which episodes are
    held out; folds, fold: of a cross-validation, and which of them is tested, 0 folds for one split; layout: what the
    numbers of an action are; gripper_open: which end of the recorded gripper is open, 'auto', 'low' or 'high';
    drop_noops: leave out steps that command nothing, by OpenVLA's rule; action_column, only_successful: as in
    `ReadOptions`; outliers: 'keep', or 'clip' to the quantiles; max_left_out: share of the episodes that may be left
    out because they cannot be used; accept_data: give a verdict on data that do not look like robot motion, too.
    """

    num_episodes: int = 0
    chunk_len: int = 8
    stride: int = 8
    split_seed: int = 0
    folds: int = 0
    fold: int = 0
    layout: str = "libero"
    gripper_open: str = "auto"
    drop_noops: bool = False
    action_column: str = ""
    only_successful: bool = False
    outliers: str = "keep"
    max_left_out: float = MAX_LEFT_OUT
    accept_data: bool = False

    def check(self) -> ActionLayout:
        """The layout, where every value can be.

        Raises:
            InputError: one cannot; before anything is read, and fetched for it.
        """
        from workbook.data.chunks import check_cut
        from workbook.data.cleaning import check_noops, check_outliers
        from workbook.data.grippers import check_open_end
        from workbook.data.layout import ActionLayout

        if self.num_episodes < 0:
            raise InputError(f"num_episodes is {self.num_episodes}; give a positive number, or 0 for all")
        if self.split_seed < 0:
            raise InputError(f"split_seed is {self.split_seed}; give 0 or a positive number")
        if self.folds and not FEWEST_FOLDS <= self.folds <= MOST_FOLDS:
            raise InputError(f"folds is {self.folds}; give {FEWEST_FOLDS} to {MOST_FOLDS}, or 0 for one split")
        if not 0 <= self.fold < max(self.folds, 1):
            raise InputError(f"fold is {self.fold}; give 0 to {max(self.folds, 1) - 1}")
        check_cut(self.chunk_len, self.stride)
        check_open_end(self.gripper_open)
        check_outliers(self.outliers)
        if not 0 <= self.max_left_out <= 1:
            raise InputError(f"max_left_out is {self.max_left_out}; give a share from 0 to 1")
        layout = ActionLayout.parse(self.layout)
        if self.drop_noops:
            check_noops(layout)
        return layout

    @property
    def read_options(self) -> ReadOptions:
        from workbook.data.episodes import ReadOptions

        return ReadOptions(self.action_column, self.only_successful)


KINDS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": str}
HELP = {
    "num_episodes": "use only so many episodes; 0: all",
    "chunk_len": "steps in a chunk",
    "stride": "steps between the starts of train chunks",
    "split_seed": "which episodes are held out",
    "folds": "test every episode once, by models fitted on the others, as 5 folds do; 0: one split",
    "fold": "the one of the folds that is tested",
    "layout": "what the numbers of an action are; libero is 'position:3 rotation:3 gripper:1'",
    "action_column": "of a LeRobot data set that has several; 'a+b' joins two",
    "gripper_open": "the end of the recorded gripper that is open: auto, low or high",
    "drop_noops": "leave out steps that command nothing, by OpenVLA's rule",
    "only_successful": "leave out demonstrations that their file marks as failed",
    "outliers": "keep, or clip to the quantiles, what lies far outside all else of an unclipped dimension",
    "max_left_out": "share of the episodes that may be left out because they cannot be used",
    "accept_data": "give a verdict on data that do not look like robot motion, too",
}


def add_options(parser: argparse.ArgumentParser, *leaving_out: str, default: bool = True) -> None:
    """Add an option for each field of `DataConfig` but those named. default: where not, what is not given is None."""
    for field in fields(DataConfig):
        if field.name in leaving_out:
            continue
        option, text = f"--{field.name.replace('_', '-')}", HELP[field.name]
        if field.type == "bool":
            action = "store_true" if default else argparse.BooleanOptionalAction
            parser.add_argument(option, action=action, default=False if default else None, help=text)
            continue
        shown = f"{text}; default: {field.default}" if default and field.default != "" else text
        parser.add_argument(option, type=KINDS[str(field.type)], default=field.default if default else None, help=shown)
    parser.add_argument(
        "--strict", action="store_const", dest="max_left_out", const=0.0, default=MAX_LEFT_OUT if default else None,
        help="refuse at the first episode that cannot be used; the same as --max-left-out 0",
    )  # fmt: skip


def config_of(options: argparse.Namespace, **others: Any) -> DataConfig:
    """What the options ask for; others: of the fields that have no option."""
    given = {field.name: getattr(options, field.name) for field in fields(DataConfig) if field.name not in others}
    return DataConfig(**given | others)
