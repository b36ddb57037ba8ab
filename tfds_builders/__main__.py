"""Prepares a data set: `python -m tfds_builders NAME[/CONFIG] --manual_dir=RELEASE --data_dir=DATA`."""

import argparse
import os
import sys
import time

import numpy as np

from san_jax.errors import Stopped, UserError
from san_jax.process import stopping
from tfds_builders import find_builder, known_names, open_source, prepare


def main() -> None:
    """Prepares what is missing and prints the splits; exits with 1 on an error that the user can fix."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show, or that are not UTF-8
    parser = argparse.ArgumentParser(prog="python -m tfds_builders", description="Prepares a data set.")
    parser.add_argument("name", metavar="NAME[/CONFIG]", help=", ".join(known_names()))
    parser.add_argument("--manual_dir", default="", help="folder that holds the release")
    parser.add_argument("--data_dir", default="data", help="folder of prepared data sets (default: %(default)s)")
    args = parser.parse_args()
    try:
        with stopping.unwinding():  # a half-prepared set is deleted
            show(args.name, data_dir=args.data_dir, manual_dir=args.manual_dir)
        sys.stdout.flush()
    except Stopped as stopped:
        stopping.end(str(stopped), stopped.status)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of standard output has gone, as in `| head`
        os._exit(stopping.EXIT_UNREAD)


def show(name: str, *, data_dir: str, manual_dir: str) -> None:
    """Prepares a data set and prints how many pictures, people and cameras each of its splits has."""
    started = time.monotonic()
    builder = prepare(name.partition(":")[0], data_dir=data_dir, manual_dir=manual_dir)
    print(f"{name} is in {builder.data_dir} ({time.monotonic() - started:.1f} s)")
    print(f"{'split':<10}{'pictures':>10}{'people':>10}{'cameras':>10}")
    for split in find_builder(name.partition(":")[0]).SPLITS:
        source = open_source(name, split, data_dir=data_dir)
        people, cameras = len(np.unique(source.pids)), len(np.unique(source.camids))
        print(f"{split:<10}{len(source):>10}{people:>10}{cameras:>10}")


if __name__ == "__main__":
    main()
