"""The exception of a verification that fails."""


class Difference(Exception):
    """The set is not what its manifest or its FASTA says; the message names the first difference."""
