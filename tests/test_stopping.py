"""Ctrl-C and SIGTERM, handled by the module in small processes of their own."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from san_jax.errors import Stopped
from san_jax.process import stopping

ROOT = Path(__file__).parent.parent
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
LINE = {
    number: f"stopped by {name}; start the same command again to go on\n"
    for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"))
}


def start(code):
    """Starts a process that handles signals, and waits until it prints `ready`."""
    code = "from san_jax.process import stopping\nstopping.end_on_signals()\n" + textwrap.dedent(code)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize(
    "busy",
    [
        "import time; time.sleep(60)",
        "import threading; threading.Lock().acquire(); lock = threading.Lock(); lock.acquire(); lock.acquire()",
        "while True: pass",
        "import os; [os.read(os.pipe()[0], 1)]",
    ],
)
def test_process_ends_with_one_line_whatever_its_main_thread_does(number, busy):
    process = start(f"print('ready', flush=True)\n{busy}")
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (STATUS[number], "", LINE[number])


@pytest.mark.parametrize("number", STATUS)
def test_signal_is_remembered_while_something_is_unsaved_and_a_second_one_ends_the_process(number):
    code = """
    import time
    with stopping.remembered() as stop:
        stop.unsaved = True
        print("ready", flush=True)
        while not stop.asked:
            time.sleep(0.01)
        print("saving", flush=True)
        time.sleep({})
        raise SystemExit(str(stop.error("saved").status))
    """
    process = start(code.format(0.1))
    process.send_signal(number)
    assert process.communicate(timeout=10) == ("saving\n", f"{STATUS[number]}\n")
    process = start(code.format(60))
    process.send_signal(number)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(number)
    assert (process.communicate(timeout=10)[1], process.returncode) == (LINE[number], STATUS[number])


def test_signal_ends_a_loop_with_nothing_unsaved_at_once():
    process = start("""
    import time
    with stopping.remembered() as stop:
        print("ready", flush=True)
        time.sleep(60)
    """)
    process.send_signal(signal.SIGTERM)
    assert (process.communicate(timeout=10)[1], process.returncode) == (LINE[signal.SIGTERM], 143)


@pytest.mark.parametrize(("hangs", "cleared"), [(False, "cleared\n"), (True, "")])
def test_signal_lets_the_main_thread_clean_up_for_a_limited_time(hangs, cleared):
    process = start(f"""
    import signal, time
    from san_jax.errors import Stopped
    stopping.GRACE = 0.5
    try:
        with stopping.unwinding():
            try:
                print("ready", flush=True)
                time.sleep(60)
            finally:
                time.sleep({60 if hangs else 0})
                print("cleared", flush=True)
    except Stopped as stopped:
        stopping.end(str(stopped), stopped.status)
    """)
    process.send_signal(signal.SIGINT)
    assert (*process.communicate(timeout=10), process.returncode) == (cleared, LINE[signal.SIGINT], 130)


def test_without_end_on_signals_handlers_last_as_long_as_the_loop():
    before = [signal.getsignal(number) for number in STATUS]
    with stopping.remembered() as stop:
        stop.unsaved = True
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            if stop.asked:
                break
            time.sleep(0.01)
        assert stop.error("saved").status == 143
    with pytest.raises(Stopped, match=r"stopped by Ctrl-C"), stopping.remembered():
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in STATUS] == before


def test_loop_may_run_outside_the_main_thread():
    """`signal.signal` raises there."""
    stops = []

    def loop():
        with stopping.remembered() as stop:
            stops.append(stop)

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert [stop.asked for stop in stops] == [False]
