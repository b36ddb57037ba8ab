"""The one exception for what its reader can mend."""


class UserError(Exception):
    """A wrong file, field or command; the message names it and the way out, in one line.

    Commands print the message and exit with status 1. Everything else may crash with its trace.
    """


class Stopped(Exception):
    """A run was asked to stop by a signal, and has saved its state; the message says so in one line.

    Commands print the message and exit with `status`, as a shell reports a process that the signal has ended.

    Args:
      message: the line.
      number: of the signal; SIGTERM by default.
    """

    def __init__(self, message: str, number: int = 15):
        super().__init__(message)
        self.status = 128 + number  # 130 after Ctrl-C, 143 after SIGTERM
