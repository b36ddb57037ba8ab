"""Every command of the package: `san-jax COMMAND`, or `python -m san_jax COMMAND`."""

import difflib
import importlib
import os
import sys
from importlib import metadata

from san_jax.process import stopping

COMMANDS = {  # name: module of san_jax.commands, what it does
    "train": ("train", "trains a network from a config, or resumes its training"),
    "eval": ("evaluate", "scores a run, a checkpoint or a file of weights"),
    "search": ("search", "finds the pictures of a folder that are most similar to a given one"),
    "textures": ("textures", "generates the texture image of every picture"),
    "import": ("import_", "FILE OUT: converts weights of PyTorch to a checkpoint"),
    "export": ("export", "RUN --output=FILE: writes a network for ONNX, StableHLO or PyTorch"),
    "reference-scores": ("reference_scores", "scores chance and colour histograms"),
    "sheet": ("sheet", "OUT.png: shows rendered people on a contact sheet, or with --crowd as a sequence of frames"),
}


def main() -> None:
    """Runs the command that the first word names."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        show(usage())
    elif name == "--version":
        show(f"san_jax {metadata.version('san_jax')}")
    elif name in COMMANDS:
        sys.argv = [f"san-jax {name}", *rest]
        stopping.end_on_signals()  # before the import, which takes seconds
        importlib.import_module(f"san_jax.commands.{COMMANDS[name][0]}").main()
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"error: san-jax has no command {name!r}; {hint}", file=sys.stderr)
        sys.exit(1)


def show(text: str) -> None:
    """Prints a text; ends as other commands do where nobody reads it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os._exit(stopping.EXIT_UNREAD)


def usage() -> str:
    """All commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    head = "usage: san-jax COMMAND [--flags], san-jax --version"
    return "\n".join([head, "", *lines, "", "san-jax COMMAND --help says more"])


if __name__ == "__main__":
    main()
