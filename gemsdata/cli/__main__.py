"""``python -m gemsdata.cli``, and the entry point of the ``gemsdata`` command."""

import sys

from gemsdata.cli import main


def run() -> None:
    """Exit with the status of the command line."""
    sys.exit(main())


if __name__ == "__main__":
    run()
