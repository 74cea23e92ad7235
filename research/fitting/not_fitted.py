"""Why a number is left out of what stage `fit` fits: told apart from errors, which are not to pass for a reason."""


class NotFitted(ValueError):
    """A stretch of bars does not tell the number. The message says what it lacks."""
