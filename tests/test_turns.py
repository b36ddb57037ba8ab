import threading
import time

import numpy as np
from runs import save_run

from san_jax import model as models
from san_jax.serving.turns import PatientModel, Turns


def test_those_whom_somebody_waits_for_go_before_the_next_part_of_other_work():
    turns, order, begun = Turns(), [], threading.Event()

    def asks():
        with turns.first():
            order.append("first")

    thread = threading.Thread(target=asks)
    with turns.last():
        thread.start()
        begun.wait(0.05)  # it waits by now, or it comes first anyway
        order.append("last")
    with turns.last():
        order.append("last")
    thread.join()
    assert order == ["last", "first", "last"]


def test_one_thread_at_a_time_computes():
    turns, inside, most = Turns(), [], []

    def works(kind):
        for _ in range(20):
            with getattr(turns, kind)():
                inside.append(kind)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=works, args=(kind,)) for kind in ("first", "last", "first", "last")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (80, 1)


def test_turn_is_given_back_when_the_work_fails():
    turns = Turns()
    for kind in (turns.first, turns.last, turns.first):
        try:
            with kind():
                raise ValueError
        except ValueError:
            pass
    with turns.last():
        pass


def test_model_computes_the_same_and_has_no_turn_between_its_batches(tmp_path):
    model = models.load(save_run(tmp_path, mode="baseline"))
    pictures = np.random.default_rng(0).integers(0, 256, (5, 12, 6, 3)).astype(np.uint8)
    turns = Turns()
    patient = PatientModel.of(model, turns)
    np.testing.assert_array_equal(patient.features(pictures, batch_size=2), model.features(pictures, batch_size=2))
    batches = patient.over(lambda weights, x, **_: x + 1, ((np.float32(number),) for number in range(3)))
    for number, result in enumerate(batches):
        assert result == number + 1
        with turns.first():  # would wait for ever if the model had kept its turn
            pass
    assert patient.digest("encoder") == model.digest("encoder")
