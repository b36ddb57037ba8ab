"""Prepares a data set: `python -m tfds_builders NAME[/CONFIG] --manual_dir=RELEASE --data_dir=DATA`.

The name may be the path of a list (.csv, .tsv) or folder of pictures; `--check` says everything that is wrong with it.
`python -m tfds_builders FRAMES --boxes=gt.txt --list=people.csv` writes a list of the people in the frames of a folder.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

from san_jax.data.crops import Wanted
from san_jax.errors import Stopped, UserError
from san_jax.process import stopping
from tfds_builders import boxed_list, is_own, known_names, list_check, open_source, prepare


def main() -> None:
    """Prepares what is missing and prints the splits; exits with 1 on an error that the user can fix."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show, or that are not UTF-8
    parser = argparse.ArgumentParser(prog="python -m tfds_builders", description="Prepares a data set.")
    names = f"{', '.join(known_names())}, or a list (.csv, .tsv) or folder of pictures"
    parser.add_argument("name", metavar="NAME[/CONFIG]", help=names)
    parser.add_argument("--manual_dir", default="", help="folder that holds the release")
    parser.add_argument("--data_dir", default="data", help="folder of prepared data sets (default: %(default)s)")
    parser.add_argument("--pattern", default="", help="of the names of pictures in a folder, see docs/data.md")
    parser.add_argument("--check", action="store_true", help="only say everything that is wrong with a list or folder")
    parser.add_argument("--boxes", help="boxes with ids: a file of MOT or COCO, or YOLO's folder; needs --list")
    parser.add_argument("--list", help="list (.csv) to write, of the boxes in the frames of the folder NAME")
    parser.add_argument("--camid", help="camera of the frames, for --list (default: 0)")
    for name, default in Wanted()._asdict().items():
        parser.add_argument(
            f"--{name}", type=float, help=f"of boxes, for --list: docs/search.md (default: {default:g})"
        )
    args = parser.parse_args()
    try:
        with stopping.unwinding():  # a half-prepared set is deleted
            if args.boxes or args.list:
                write_list(args)
            elif vain := [*(["camid"] if args.camid else []), *given_of(args)]:
                raise UserError(f"--{vain[0]} is for --list; give --boxes and --list, too")
            elif args.check:
                check(args.name, pattern=args.pattern)
            else:
                show(args.name, data_dir=args.data_dir, manual_dir=args.manual_dir, pattern=args.pattern)
        sys.stdout.flush()
    except Stopped as stopped:
        stopping.end(str(stopped), stopped.status)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of standard output has gone, as in `| head`
        os._exit(stopping.EXIT_UNREAD)


def check(name: str, *, pattern: str) -> None:
    """Prints everything that is wrong with a list or folder of pictures.

    Raises:
      UserError: there is anything.
    """
    if not is_own(name):
        raise UserError(
            f"--check is for a list (.csv, .tsv) or a folder of pictures that exists, and {name} is neither"
        )
    found, remarks = list_check.faults(name, pattern=pattern)
    for line in [*remarks, *found]:
        print(line)
    if found:
        counted = "1 fault" if len(found) == 1 else f"{len(found)} faults"
        raise UserError(f"{name} has {counted}, listed above")
    print(f"{name} is in order")


def write_list(args: argparse.Namespace) -> None:
    """Writes a list of the people in the frames of a folder, and prints how many boxes are left out.

    Raises:
      UserError: a part is missing, the boxes cannot be read or have no ids, or the list exists already.
    """
    if not args.boxes or not args.list:
        missing = "list" if args.boxes else "boxes"
        raise UserError(f"--{missing} is missing; give both, --boxes=gt.txt --list=people.csv")
    if args.check or args.pattern:
        raise UserError(f"--{'check' if args.check else 'pattern'} has no effect with --list; leave it out")
    wanted = Wanted()._replace(**given_of(args))
    places = Path(args.list), Path(args.name), Path(args.boxes)
    print("\n".join(boxed_list.write(*places, camid=args.camid or "0", wanted=wanted)))


def given_of(args: argparse.Namespace) -> dict[str, float]:
    """The fields of `Wanted` that flags change."""
    return {name: value for name in Wanted._fields if (value := getattr(args, name)) is not None}


def show(name: str, *, data_dir: str, manual_dir: str, pattern: str) -> None:
    """Prepares a data set and prints how many pictures, people and cameras each of its splits has."""
    started = time.monotonic()
    builder = prepare(name, data_dir=data_dir, manual_dir=manual_dir, pattern=pattern)
    print(f"{name} is in {builder.data_dir} ({time.monotonic() - started:.1f} s)")
    print(f"{'split':<10}{'pictures':>10}{'people':>10}{'cameras':>10}")
    for split in builder.splits():
        source = open_source(name, split, data_dir=data_dir, pattern=pattern)
        people, cameras = len(np.unique(source.pids)), len(np.unique(source.camids))
        print(f"{split:<10}{len(source):>10}{people:>10}{cameras:>10}")


if __name__ == "__main__":
    main()
