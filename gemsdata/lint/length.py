"""Check whether a classifier can predict the class from the sequence length alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from gemsdata.lint.finding import Finding
from gemsdata.lint.labelled_file import LabelledFile
from gemsdata.lint.proportion import CONFIDENCE, interval

MATTERS = 0.05
"""gain in accuracy over the largest class from which a shortcut is a warning and not a note"""

_FOLDS = 5
_LEAVES = 8


def check_length(rows: LabelledFile) -> Iterator[Finding]:
    """Yield a finding if length predicts the class better than always answering the largest class.

    A decision tree of 8 leaves gets only the number of bases; its predictions are from 5-fold cross-validation. Length
    is a shortcut if the exact (Clopper-Pearson) 99 % interval of its accuracy is above the share of the largest class.
    Classes of fewer than 5 rows are ignored.
    """
    found = Counter(label for label in rows.labels if label)
    kept = {label for label, count in found.items() if count >= _FOLDS}
    chosen = [i for i, label in enumerate(rows.labels) if label in kept]
    lengths = np.array([len(rows.sequences[i]) for i in chosen])
    if len(kept) < 2 or len(np.unique(lengths)) < 2:
        return
    labels = np.array([rows.labels[i] for i in chosen])
    order = np.lexsort((labels, lengths))  # the folds must not depend on the order of the rows
    num_correct = _num_correct(lengths[order], labels[order])
    majority = max(found[label] for label in kept) / len(chosen)
    low, high = interval(num_correct, len(chosen))
    if low <= majority:
        return
    accuracy = num_correct / len(chosen)
    yield Finding(
        code="length-shortcut",
        severity="warning" if accuracy - majority >= MATTERS else "note",
        files=(rows.name,),
        text=(
            f"length alone predicts {accuracy:.1%} of rows ({CONFIDENCE:.0%} interval {low:.1%} to {high:.1%}),"
            f" the largest class for {majority:.1%}; lengths are {lengths.min():,} to {lengths.max():,} bases"
        ),
        counts={
            "rows": len(chosen),
            "accuracy": round(accuracy, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "largest_class": round(majority, 4),
            "shortest": int(lengths.min()),
            "longest": int(lengths.max()),
        },
    )


def _num_correct(lengths: np.ndarray, labels: np.ndarray) -> int:
    """Return the number of held-out rows whose class a decision tree on the length predicts correctly."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    tree = DecisionTreeClassifier(max_leaf_nodes=_LEAVES, random_state=0)
    answers = cross_val_predict(tree, lengths[:, None], labels, cv=folds)
    return int((answers == labels).sum())
