"""``python -m gemsdata.cli``, and the entry point of the ``gemsdata`` command."""

import sys

from gemsdata.cli import main
from gemsdata.cli.malloc import keep_freed_memory


def run() -> None:
    """Exit with the status of the command line."""
    keep_freed_memory()
    sys.exit(main())


if __name__ == "__main__":
    run()
