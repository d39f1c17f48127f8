"""Checks of the labels of a file: class balance, and the number of shots in its name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from gemsdata.lint.finding import Counts, Finding
from gemsdata.lint.labelled_file import LabelledFile
from gemsdata.lint.proportion import interval

UNBALANCED = 1.5
"""ratio of the largest to the smallest class from which accuracy is misleading"""


def check_labels(rows: LabelledFile) -> Iterator[Finding]:
    """Yield findings about class balance and pooled training sets."""
    classes = Counter(label for label in rows.labels if label)
    if not classes:
        return
    total = sum(classes.values())
    shown = ", ".join(f"{label} {count / total:.0%}" for label, count in sorted(classes.items()))
    largest, smallest = max(classes.values()), min(classes.values())
    counts: Counts = {
        "rows": total,
        "classes": len(classes),
        "largest_share": round(largest / total, 4),
        "smallest_share": round(smallest / total, 4),
    }
    if len(classes) == 1:
        text = f"all {total:,} rows have the label {next(iter(classes))}"
        yield Finding(code="balance", severity="warning", files=(rows.name,), text=text, counts=counts)
    elif largest >= UNBALANCED * smallest and interval(largest, total)[0] > 1 / len(classes):
        text = (
            f"the classes are unbalanced ({shown}): always predicting the largest is correct for {largest / total:.0%}"
        )
        yield Finding(code="balance", severity="warning", files=(rows.name,), text=text, counts=counts)
    yield from _pooled_runs(rows, classes)


def _pooled_runs(rows: LabelledFile, classes: Counter[str]) -> Iterator[Finding]:
    """Yield a finding if the rows per class are a multiple of the N of ``N/train.tsv`` or ``train_N.tsv``."""
    shots = _shots(rows)
    per_class = min(classes.values())
    if shots and len(classes) > 1 and len(set(classes.values())) == 1 and per_class > shots and per_class % shots == 0:
        num_runs = per_class // shots
        text = (
            f"the name says {shots} shots per class, the file has {per_class:,}:"
            f" probably the training sets of {num_runs} runs in one file"
        )
        counts: Counts = {"shots": shots, "rows_per_class": per_class, "runs": num_runs}
        yield Finding(code="pooled-runs", severity="warning", files=(rows.name,), text=text, counts=counts)


def _shots(rows: LabelledFile) -> int | None:
    """Return the number at the end of a training file's name, or the number that is its folder's name."""
    stem = rows.path.name.split(".")[0]
    match = re.search(r"(?:^|_)(\d+)$", stem) or re.fullmatch(r"(\d+)", rows.path.absolute().parent.name)
    return int(match[1]) if match and "train" in stem.lower() and int(match[1]) > 0 else None
