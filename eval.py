"""Scores a run, a checkpoint or a file of weights; see `python eval.py --help` or san_jax/commands/evaluate.py."""

if __name__ == "__main__":  # before the imports below, which take seconds
    from san_jax.process import stopping

    stopping.end_on_signals()

from san_jax.commands import evaluate

if __name__ == "__main__":
    evaluate.main()
