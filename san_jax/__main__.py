"""The console script `san-jax`. To be replaced: it knows its version and no command yet."""

import sys
from importlib import metadata


def main() -> None:
    """Prints the version."""
    if sys.argv[1:] != ["--version"]:
        sys.exit("error: san-jax has no commands yet; san-jax --version is all that it knows")
    print(f"san_jax {metadata.version('san_jax')}")


if __name__ == "__main__":
    main()
