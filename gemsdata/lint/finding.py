"""What a check of labelled data finds."""

from __future__ import annotations

from dataclasses import dataclass, field

SEVERITIES = ("error", "warning", "note")
"""worst first; only errors make the exit status 1"""

ADVICE = {
    "columns": "name the columns sequence and label, in every file of a set, in the first line",
    "encoding": "rewrite the file as UTF-8 without a byte order mark, with line feeds only and without empty lines",
    "labels": "give every row a label, or remove the row",
    "quotes": "read with a CSV reader (Python's csv, pandas), not with split; or rewrite all files without quotes",
    "k-mer-text": "join overlapping k-mers to bases before tokenizing, and tokenize every file of a set the same way",
    "letters": "drop the rows, or accept that k-mers over other letters are [UNK]; turn lower case into upper case",
    "unknown-tokens": "drop the rows, or make sure that the model has seen [UNK] in training",
    "duplicates": "keep one row of each sequence, or every copy counts",
    "duplicates-across": "remove from the training file what also stands in the dev or test file; score again",
    "conflicting-labels": "find out which label is right, or remove all rows of these sequences",
    "reverse-complements": "keep both strands of a sequence in one split",
    "near-duplicates": "split by cluster or chromosome; report scores without these rows as well",
    "mutated-twins": "keep a positive and the negative made from it in one split; expect chunk borders to give it away",
    "balance": "report MCC or macro F1 beside accuracy, against the answer that is always the largest class",
    "length-shortcut": "cut all classes to the same lengths, or report what length alone scores",
    "pooled-runs": "split the file into its runs before training; a score on all of it is not an N-shot score",
}
"""code -> what to do"""


Counts = dict[str, int | float | str]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a reader of the data should know."""

    code: str
    """stable short name, a key of `ADVICE`"""
    severity: str
    """one of `SEVERITIES`"""
    files: tuple[str, ...]
    """paths as given"""
    text: str
    """one sentence: how many, and what it means"""
    counts: Counts
    """the figures of the sentence by name"""
    examples: tuple[str, ...] = field(default=())
    """a few places, ``FILE:LINE``"""

    def __post_init__(self) -> None:
        assert self.code in ADVICE, self.code
        assert self.severity in SEVERITIES, self.severity

    def as_dict(self) -> dict[str, object]:
        """Return the finding, with what to do, as a JSON-able dict."""
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
