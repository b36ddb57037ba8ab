import threading
import time

import pytest

from san_jax.data import threads


@pytest.mark.parametrize("workers", [0, 1, 3, None])
def test_results_come_in_order_whichever_is_ready_first(workers):
    def slow_if_even(number):
        time.sleep(0.002 * (number % 2 == 0))
        return number * number

    assert list(threads.ahead(slow_if_even, range(20), workers=workers)) == [number**2 for number in range(20)]


def test_only_a_bounded_number_of_results_is_computed_ahead():
    begun = []
    results = threads.ahead(begun.append, range(100), workers=2)
    next(results)
    time.sleep(0.05)
    assert 1 <= len(begun) <= 3
    results.close()
    assert len(begun) <= 3


def test_error_is_raised_in_the_place_of_its_result_and_ends_the_rest():
    begun = []

    def broken_at_5(number):
        begun.append(number)
        return 1 // (5 - number)

    results = threads.ahead(broken_at_5, range(100), workers=2)
    assert [next(results) for _ in range(5)] == [0, 0, 0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(begun) <= 8


def test_without_workers_the_calling_thread_computes():
    found = set(threads.ahead(lambda _: threading.current_thread(), range(3), workers=0))
    assert found == {threading.current_thread()}


def test_default_is_one_thread_for_each_core_of_the_process():
    assert threads.num_threads(None) >= 1
    assert threads.num_threads(5) == 5
