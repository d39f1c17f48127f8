"""``python -m gemsdata``: the command line."""

from gemsdata.cli.__main__ import run

if __name__ == "__main__":
    run()
