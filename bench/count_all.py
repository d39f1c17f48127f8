"""Read a FASTA file and count its n-grams of 1..10 bases: the program that is timed against jellyfish and KMC."""

from __future__ import annotations

import sys

from gemsdata.cli.malloc import keep_freed_memory
from gemsdata.npmi.table import NpmiTable

if __name__ == "__main__":
    keep_freed_memory()
    print(int(NpmiTable.from_fasta(sys.argv[1], max_k=10).counts[10].sum()))
