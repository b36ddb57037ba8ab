"""Ends a process on Ctrl-C or SIGTERM: with one line, in bounded time, and after a training loop has saved."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from san_jax.errors import Stopped

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
EXIT_UNREAD = 128 + 13  # the status that a shell reports for a process ended by SIGPIPE
GRACE = 10.0  # seconds for cleaning up, after which the process ends anyway


class Stop:
    """Whether this process was asked to stop, and whether it would lose work now.

    Attributes:
      came: the signals received, in order.
      unsaved: whether there are steps that no checkpoint holds: then a signal is only remembered, otherwise it ends the
        process at once.
    """

    def __init__(self):
        self.came: list[int] = []
        self.unsaved = False

    def remember(self, number: int) -> None:
        """Notes a signal; with several processes JAX is told, so that all agree on the step after which they stop."""
        self.came.append(number)
        if _tells_jax is not None:
            _tells_jax(signal.SIGTERM)

    @property
    def asked(self) -> bool:
        """Whether a signal was received."""
        return bool(self.came)

    def error(self, line: str) -> Stopped:
        """The exception that ends the process with this message and the signal's exit status."""
        return Stopped(line, self.came[0] if self.came else signal.SIGTERM)


_stop: Stop | None = None  # of the running training loop, if there is one
_unwinds = False  # whether a signal raises Stopped in the main thread, so that it cleans up
_in_grace: list[int] = []  # the signal that started such a clean-up
_ending = threading.Lock()  # held by the thread that ends the process
_watches = False
_tells_jax: Callable[[int], None] | None = None  # JAX's own handler of SIGTERM, on several processes


def end_on_signals() -> None:
    """Makes SIGINT and SIGTERM end this process with one line and status 130 or 143; to be called by commands.

    A thread does it, so that it does not matter what the main thread is doing: Python's own handlers wait until a
    compilation has finished, and KeyboardInterrupt inside JAX ends in long tracebacks or a segmentation fault. All
    files are written so that writing can be cut off at any moment, so there is nothing to clean up.
    """
    global _watches
    if _watches or threading.current_thread() is not threading.main_thread():
        return
    _watches = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _in_main_thread)
    threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()


def _in_main_thread(number: int, _) -> None:
    if _unwinds:
        raise Stopped(line_of(number), number)


def _watch(reading: int) -> None:
    while True:
        for number in os.read(reading, 1):
            if number in SIGNALS:
                _came(number)


def _came(number: int) -> None:
    stop = _stop
    if stop is not None and stop.unsaved and not stop.asked:
        stop.remember(number)
    elif _unwinds and not _in_grace:
        _in_grace.append(number)
        timer = threading.Timer(GRACE, _end, [number])
        timer.daemon = True
        timer.start()
    else:
        _end(number)


def line_of(number: int) -> str:
    """The message of a process that a signal ends."""
    return f"stopped by {SIGNALS[number]}; start the same command again to go on"


def _end(number: int) -> NoReturn:
    end(line_of(number), 128 + number)


def end(line: str, status: int) -> NoReturn:
    """Prints a line and ends the process, without waiting for its threads or other hosts."""
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # another thread is about to end the process: one line is enough
    # The main thread may hold standard output for ever if nobody reads it.
    flush = threading.Thread(target=_flush, args=(sys.stdout,), daemon=True)
    flush.start()
    flush.join(1.0)
    with contextlib.suppress(OSError):
        below_a_bar = "\n" if os.isatty(2) else ""
        os.write(2, f"{below_a_bar}{line}\n".encode(errors="backslashreplace"))
    os._exit(status)


def _flush(stream) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Inside, a signal raises Stopped in the main thread; if cleaning up takes longer than GRACE, the process ends."""
    global _unwinds
    before, _unwinds = _unwinds, True
    try:
        yield
    finally:
        _unwinds = before


@contextlib.contextmanager
def remembered() -> Iterator[Stop]:
    """Inside, a signal is only remembered while the yielded Stop has unsaved steps; a second one ends the process.

    If no command has called `end_on_signals`, as in a notebook, signals are handled in the main thread: while nothing
    is unsaved, the first one raises Stopped there. Outside the main thread, handlers are left unchanged.
    """
    global _stop
    stop = Stop()

    def handle(number: int, _) -> None:
        if not stop.unsaved:
            raise Stopped(line_of(number), number)
        signal.signal(number, before[number])
        stop.remember(number)

    handled = SIGNALS if not _watches and threading.current_thread() is threading.main_thread() else ()
    outer, _stop = _stop, stop
    before = {number: signal.getsignal(number) for number in handled}
    for number in handled:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        _stop = outer
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Restores this module's handler of SIGTERM, which JAX replaces when it joins several processes.

    JAX's handler only notes the signal until the next step, which may take minutes while data are prepared or scored.
    """
    global _tells_jax
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    ours = libc.signal(signal.SIGTERM, None)
    libc.signal(signal.SIGTERM, ours)
    try:
        yield
    finally:
        of_jax = libc.signal(signal.SIGTERM, ours)
    if of_jax and of_jax != ours:
        _tells_jax = ctypes.CFUNCTYPE(None, ctypes.c_int)(of_jax)
