"""The tasks that are recorded: how many episodes of each the sample has, and how the expert goes about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from workbook.common.errors import InputError
from workbook.simulation.recorder.expert import Placing, Plan, open_drawer, pick_and_place, turn_on_stove
from workbook.simulation.recorder.skills import Skills, Waypoints
from workbook.simulation.tasks import Task, parse_label

BOWL = "akita_black_bowl_1"
BOWL_ON_PLATE = Placing(by_rim=True, yaw=0.45, lift=0.16, release=0.02)
BOWL_ON_STOVE = Placing(by_rim=True, yaw=0.45, lift=0.16, release=0.03)
INTO_BOWL = Placing(by_rim=False, yaw=0.3, lift=0.16, release=0.05)
INTO_BASKET = Placing(by_rim=False, yaw=0.3, lift=0.2, release=0.13)


@dataclass(frozen=True)
class Recording:
    """A task, the episodes of it in the sample, its plan, and the steps after which an episode is given up."""

    task: Task
    episodes: int
    plan: Plan
    longest: int = 300


def soup_and_sauce_in_basket(skills: Skills) -> Waypoints:
    for name in ("alphabet_soup_1", "tomato_sauce_1"):
        yield from pick_and_place(skills, name, "basket_1", INTO_BASKET)


SAMPLE: tuple[Recording, ...] = (
    Recording(
        Task(
            "libero_spatial",
            0,
            "pick_up_the_black_bowl_between_the_plate_and_the_ramekin_and_place_it_on_the_plate",
        ),
        50,
        partial(pick_and_place, name=BOWL, target="plate_1", placing=BOWL_ON_PLATE),
    ),
    Recording(
        Task("libero_spatial", 7, "pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate"),
        20,
        partial(pick_and_place, name=BOWL, target="plate_1", placing=BOWL_ON_PLATE),
    ),
    Recording(
        Task("libero_object", 6, "pick_up_the_butter_and_place_it_in_the_basket"),
        20,
        partial(pick_and_place, name="butter_1", target="basket_1", placing=INTO_BASKET),
    ),
    Recording(
        Task("libero_goal", 0, "open_the_middle_drawer_of_the_cabinet"),
        20,
        partial(open_drawer, drawer="wooden_cabinet_1_middle_region"),
    ),
    Recording(
        Task("libero_goal", 1, "put_the_bowl_on_the_stove"),
        20,
        partial(pick_and_place, name=BOWL, target="flat_stove_1_cook_region", placing=BOWL_ON_STOVE),
    ),
    Recording(
        Task("libero_goal", 6, "put_the_cream_cheese_in_the_bowl"),
        20,
        partial(pick_and_place, name="cream_cheese_1", target=BOWL, placing=INTO_BOWL),
    ),
    Recording(Task("libero_goal", 7, "turn_on_the_stove"), 20, partial(turn_on_stove, stove="flat_stove_1")),
    Recording(
        Task("libero_10", 0, "LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket"),
        20,
        soup_and_sauce_in_basket,
        longest=600,
    ),
)


def find(label: str) -> Recording:
    """The recording of a task, by its suite and index, as in 'libero_goal:7'.

    Raises:
        InputError: another form, or a task without a plan.
    """
    wanted = parse_label(label)
    for recording in SAMPLE:
        if wanted == (recording.task.suite, recording.task.index):
            return recording
    raise InputError(f"task {label}: the expert has no plan for it; it has {in_words(SAMPLE)}")


def in_words(recordings: Sequence[Recording]) -> str:
    """Labels of the tasks, as in 'libero_goal:0, libero_goal:7'."""
    return ", ".join(recording.task.label for recording in recordings)
