"""Scores of a classifier: loss, accuracy, MCC, F1, AUROC."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score


def scores(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Return loss, accuracy, MCC, F1 (macro) and AUROC (of several classes: macro, one against rest).

    Parameters
    ----------
    probabilities
        of each class, float[N, C], rows sum to 1.
    truth
        class numbers, int64[N]. AUROC is None where a class does not occur.
    """
    guessed = probabilities.argmax(axis=1)
    num_classes = probabilities.shape[1]
    auroc = None
    if len(np.unique(truth)) == num_classes:
        values = probabilities[:, 1] if num_classes == 2 else probabilities / probabilities.sum(axis=1, keepdims=True)
        auroc = float(roc_auc_score(truth, values, multi_class="ovr"))
    return {
        "loss": float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-300)).mean()),
        "accuracy": float(accuracy_score(truth, guessed)),
        "mcc": float(matthews_corrcoef(truth, guessed)),
        "f1": float(f1_score(truth, guessed, average="macro", labels=list(range(num_classes)), zero_division=0)),
        "auroc": auroc,
    }
