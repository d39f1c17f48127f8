"""Scores of a classifier: loss, accuracy, MCC, F1, AUROC."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score


def scores(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Return loss, accuracy, MCC, F1 (macro) and AUROC (of several classes: macro, one against rest).

    Parameters
    ----------
    probabilities
        probability of each class, float[N, C]; rows sum to 1.
    truth
        class numbers, int64[N]. AUROC is None if a class does not occur.
    """
    predicted = probabilities.argmax(axis=1)
    num_classes = probabilities.shape[1]
    auroc = None
    if len(np.unique(truth)) == num_classes:
        # one binary AUROC per class on the unchanged probabilities: roc_auc_score(multi_class="ovr") requires rows that
        # sum to # 1 exactly, and dividing by the sum creates and breaks ties
        classes = [1] if num_classes == 2 else range(num_classes)
        auroc = float(np.mean([roc_auc_score(truth == c, probabilities[:, c]) for c in classes]))
    return {
        "loss": float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-300)).mean()),
        "accuracy": float(accuracy_score(truth, predicted)),
        "mcc": float(matthews_corrcoef(truth, predicted)),
        "f1": float(f1_score(truth, predicted, average="macro", labels=list(range(num_classes)), zero_division=0)),
        "auroc": auroc,
    }
