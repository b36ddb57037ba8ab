"""Scores a run, a checkpoint or a file of weights; `python eval.py --help` and san_jax/commands/evaluate.py say how."""

from san_jax.commands import evaluate

if __name__ == "__main__":
    evaluate.main()
