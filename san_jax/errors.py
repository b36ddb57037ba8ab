"""Errors that the user can fix, and the exception of a process that is asked to stop."""


class UserError(Exception):
    """A wrong file, field or command; the message names it and the remedy, in one line.

    Commands print the message and exit with status 1. All other exceptions may end in a traceback.
    """


class Stopped(BaseException):  # like KeyboardInterrupt, so that no `except Exception` catches it
    """A process was asked to stop by a signal and has saved its state; the message says so in one line.

    Commands print the message and exit with `status`, as a shell reports a process that the signal has ended.

    Args:
      line: the message.
      number: of the signal; SIGTERM by default.
    """

    def __init__(self, line: str, number: int = 15):
        super().__init__(line)
        self.number = number

    @property
    def status(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number
