"""Check labelled DNA files: python -m eval.lint FILE..., the same as gemsdata lint FILE..."""

from __future__ import annotations

import sys

from gemsdata.cli import main

if __name__ == "__main__":
    sys.exit(main(["lint", *sys.argv[1:]]))
