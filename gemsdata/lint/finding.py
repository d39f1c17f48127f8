"""A finding of a check, and the advice for each kind of finding."""

from __future__ import annotations

from dataclasses import dataclass, field

SEVERITIES = ("error", "warning", "note")
"""worst first; only errors make the exit status 1"""

ADVICE = {
    "columns": "name the columns sequence and label, in every file of a set, in the first line",
    "encoding": "rewrite the file as UTF-8 without a byte order mark, carriage returns and empty lines",
    "labels": "give every row a label, or remove the row",
    "quotes": "read with a CSV reader (Python's csv, pandas), not with str.split; or rewrite all files without quotes",
    "k-mer-text": "join overlapping k-mers to bases before tokenizing, and tokenize every file of a set the same way",
    "letters": "drop the rows, or accept that k-mers with other letters are [UNK]; convert lower case to upper case",
    "unknown-tokens": "drop the rows, or make sure that the model has seen [UNK] in training",
    "duplicates": "keep one row of each sequence, or each is weighted by its number of rows",
    "duplicates-across": "remove sequences of the dev and test files from the training file, and train again",
    "conflicting-labels": "find out which label is correct, or remove all rows of these sequences",
    "reverse-complements": "keep both strands of a sequence in one split",
    "near-duplicates": "split by cluster or chromosome; report scores without these rows as well",
    "mutated-twins": "keep a positive and the negative made from it in one split; chunk borders may be artefacts",
    "balance": "report MCC or macro F1 beside accuracy, and the score of always predicting the largest class",
    "length-shortcut": "trim all classes to the same lengths, or report the score of length alone",
    "pooled-runs": "split the file into its runs before training; a score on all of it is not an N-shot score",
}
"""What to do about each kind of finding, by code."""


Counts = dict[str, int | float | str]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem found in one or more files."""

    code: str
    """stable short name, a key of `ADVICE`"""
    severity: str
    """one of `SEVERITIES`"""
    files: tuple[str, ...]
    """paths as given"""
    text: str
    """one sentence: how many rows or sequences, and the consequence"""
    counts: Counts
    """the numbers in the sentence, by name"""
    examples: tuple[str, ...] = field(default=())
    """a few locations, ``FILE:LINE``"""

    def __post_init__(self) -> None:
        assert self.code in ADVICE, self.code
        assert self.severity in SEVERITIES, self.severity

    def as_dict(self) -> dict[str, object]:
        """Return the finding and its advice as a JSON-serialisable dict."""
        return {
            "code": self.code,
            "severity": self.severity,
            "files": list(self.files),
            "counts": self.counts,
            "text": self.text,
            "advice": ADVICE[self.code],
            "examples": list(self.examples),
        }


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 row``, ``1,200 rows``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
