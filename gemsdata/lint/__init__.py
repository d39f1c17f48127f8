"""Find what is wrong with labelled DNA before training or scoring; needs the extra ``gemsdata[lint]``."""

from gemsdata.lint.finding import ADVICE, SEVERITIES, Finding
from gemsdata.lint.run import Report, lint

__all__ = ["ADVICE", "SEVERITIES", "Finding", "Report", "lint"]
