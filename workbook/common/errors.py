"""The one error that a user is meant to read."""


class InputError(ValueError):
    """Bad input. The message is one sentence that names the file, the place and the fix."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback; papermill and nbclient see the error as any other."""
        return [f"{type(self).__name__}: {self}"]
