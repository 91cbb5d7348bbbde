"""Errors that a user can act on; the command line prints them without a traceback."""


class UserError(ValueError):
    """Bad input: says what was expected, what was found and what to do; exit code 2."""

    def __init__(self, expected: str, found: str, remedy: str):
        super().__init__(f"expected {expected}; found {found}; {remedy}")
        self.found = found

    def within(self, path: str) -> "UserError":
        """Returns the same error with the path that it belongs to in front."""
        # The message is whole: __init__ would compose another one.
        error = type(self).__new__(type(self))
        ValueError.__init__(error, f"in {path}: {self}")
        error.found = self.found
        return error


class NotShownError(UserError):
    """A teacher's training does not show what checkpoints are chosen by, as that of one that has not learned."""


class TrainingError(Exception):
    """A run that cannot go on, such as a loss that is not finite; exit code 1."""


def require(condition: bool, expected: str, found: object, remedy: str) -> None:
    """Raises a ``UserError`` unless the condition holds."""
    if not condition:
        raise UserError(expected, str(found), remedy)
