"""Checks of labelled DNA files for problems such as leaks between splits; needs the extra ``gemsdata[lint]``."""

from gemsdata.lint.finding import ADVICE, SEVERITIES, Finding
from gemsdata.lint.run import Report, lint

__all__ = ["ADVICE", "SEVERITIES", "Finding", "Report", "lint"]
