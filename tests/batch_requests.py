"""A valid batch request, and the same with some fields changed."""

from __future__ import annotations

import json

import gemsdata as gd
from gemsdata.service.batch_request import BatchRequest

GOOD = BatchRequest(
    fingerprint="0123456789abcdef" * 4,
    split="train",
    check="size",
    faults="raise",
    seed=2**64 - 1,
    shuffle=True,
    remainder="wrap",
    weights=None,
    global_batch=256,
    rank=0,
    num_ranks=1,
    reverse_complement=0.5,
    maskings=(gd.GeneMask(rate=0.01), gd.RandomMask(min_tokens=2, max_tokens=(4, 6), corruption="span")),
    first_step=100,
    num_steps=8,
    stage_log=((90, 0), (104, 1)),
)


def changed(**changes) -> bytes:
    return json.dumps({**json.loads(GOOD.to_json()), **changes}).encode()
