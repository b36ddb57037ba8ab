"""Whose turn it is to compute: one thread at a time, and those whom somebody waits for go first."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxtyping import PyTree

from san_jax.model import Model

DONE = object()


class Turns:
    """Lets one thread at a time compute."""

    def __init__(self):
        self._changed = threading.Condition()
        self._is_taken, self._waiting = False, 0

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """Inside, no other thread computes. For short work: it goes before all work in `last`."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._is_taken)
            finally:
                self._waiting -= 1
            self._is_taken = True
        with self._given_back():
            yield

    @contextlib.contextmanager
    def last(self) -> Iterator[None]:
        """Inside, no other thread computes. For work that nobody waits for; it gives up its turn between its parts."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._is_taken or self._waiting))
            self._is_taken = True
        with self._given_back():
            yield

    @contextlib.contextmanager
    def _given_back(self):
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()


@dataclasses.dataclass(frozen=True, eq=False)
class PatientModel(Model):
    """A model that gives up its turn after every batch.

    Attributes:
      turns: shared with the threads that wait.
    """

    turns: Turns = dataclasses.field(default_factory=Turns)

    @classmethod
    def of(cls, model: Model, turns: Turns) -> "PatientModel":
        """The same networks."""
        return cls(**{field.name: getattr(model, field.name) for field in dataclasses.fields(Model)}, turns=turns)

    def over(self, function: Callable, batches: Iterable[tuple], **options: Any) -> Iterator[PyTree]:
        """As `Model.over`."""
        results = super().over(function, batches, **options)
        while True:
            with self.turns.last():
                result = next(results, DONE)
            if result is DONE:
                return
            yield result
