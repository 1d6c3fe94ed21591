"""The one error that a user is meant to read."""


class InputError(ValueError):
    """Bad input. The message is one sentence that names the file, the place and the fix."""
