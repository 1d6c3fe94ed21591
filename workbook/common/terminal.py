"""What the runner shows on the terminal: where it is, what is fetched, and where the results are."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workbook.common.errors import InputError
from workbook.common.paths import OutputFolder

KERNEL_LOG = "kernels.log"
STOPS = (signal.SIGINT, signal.SIGTERM)


def heed_stops() -> None:
    """Being stopped must clean up, even where the shell started this in the background, with interrupts ignored."""
    for stop in STOPS:
        signal.signal(stop, signal.default_int_handler)


def tell(
    work: Callable[[], str],
    out: str,
    interrupted: str = "no file was left half-written",
    failure: type[Exception] = InputError,
) -> int:
    """Do the work of a command that writes files to `out`, say what it returns or why it failed; the exit code.

    interrupted: what to say of the files then, where the interrupt itself says nothing; failure: an error of its own
    that says in one sentence what went wrong.
    """
    try:
        print(work())  # noqa: T201
    except (InputError, failure) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt as error:
        print(f"\ninterrupted; {str(error) or interrupted}", file=sys.stderr)  # noqa: T201
        return 130
    except OSError as error:
        print(f"error: {error.filename or out}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


@contextmanager
def fetching() -> Iterator[Callable[[int, int], None]]:
    """A bar that shows only where something is fetched."""
    from tqdm import tqdm

    bar: tqdm | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, desc="fetching actions", unit="file", disable=None)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


@contextmanager
def kernel_noise(work: OutputFolder) -> Iterator[None]:
    """Send to a file what kernels, which inherit the descriptor of stderr, say as they start and are stopped.

    Errors of cells do not come this way; they reach the runner through the notebook.
    """
    terminal = os.dup(2)
    previous = sys.stderr
    with (work.root / KERNEL_LOG).open("a") as log, os.fdopen(terminal, "w") as sys.stderr:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            sys.stderr = previous


@contextmanager
def live_line(work: OutputFolder, label: str) -> Iterator[None]:
    """Show on the terminal what the notebook in its own process is doing."""
    from tqdm import tqdm

    from workbook.common.progress import FILE_VARIABLE, read_progress

    file = work.root / "progress.json"
    file.unlink(missing_ok=True)
    os.environ[FILE_VARIABLE] = str(file)
    finished = threading.Event()
    bar = tqdm(total=1.0, desc=label, disable=None, bar_format="{desc} {bar} {percentage:3.0f}% {elapsed}", leave=False)

    def follow() -> None:
        while not finished.wait(0.5):
            state = read_progress(file)
            if state:
                bar.n = state["done"] / state["total"]
            bar.refresh()

    started = time.monotonic()
    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        del os.environ[FILE_VARIABLE]
        finished.set()
        follower.join()
        bar.close()
    print(f"{label}: {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201


def say(target: OutputFolder, verdict: list[str], seconds: float) -> None:
    """The verdict's lines, and where everything is."""
    lines = [
        "",
        *verdict,
        "",
        f"report       {target.reports / 'index.html'}",
        f"results      {target.results}",
        f"checkpoints  {target.checkpoints}",
        f"took {seconds:.0f} s",
    ]
    print("\n".join(lines))  # noqa: T201
