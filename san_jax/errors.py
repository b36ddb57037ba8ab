"""The one exception for what its reader can mend."""


class UserError(Exception):
    """A wrong file, field or command; the message names it and the way out, in one line.

    Commands print the message and exit with status 1. Everything else may crash with its trace.
    """


class Stopped(BaseException):  # like KeyboardInterrupt, so that no `except Exception` keeps it
    """A process was asked to stop by a signal and has saved what it had to; the message says so in one line.

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
