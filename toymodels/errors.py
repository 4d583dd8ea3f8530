"""The one exception of this library that is meant for the person at the keyboard."""


class InputError(ValueError):
    """A wrong input, said in one sentence: what it is, why it cannot be, what is allowed.

    The command line prints the sentence and exits with status 2; in Python it is an ordinary `ValueError`.
    """
