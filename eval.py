"""Scores a run, a checkpoint or a file of weights; `python eval.py --help` and san_jax/commands/evaluate.py say how."""

import signal

if __name__ == "__main__":  # the imports below take seconds, and Ctrl-C among them would end in a long trace
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from san_jax.commands import evaluate

if __name__ == "__main__":
    evaluate.main()
