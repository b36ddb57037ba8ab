"""The one exception for what its reader can mend."""


class UserError(Exception):
    """A wrong file, field or command; the message names it and the way out, in one line.

    Commands print the message and exit with status 1. Everything else may crash with its trace.
    """


class Stopped(Exception):
    """Somebody asked a run to stop, and it has saved its state. Commands print the message and exit with 143."""
