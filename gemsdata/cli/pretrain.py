"""``gemsdata pretrain``: train/pretrain.py."""

from gemsdata.cli.programs import Program

command = Program(
    "pretrain",
    "train.pretrain",
    extra="train",
    summary="Pretrain a masked language model on shard sets.",
    examples=[
        "gemsdata pretrain --shards SHARDS --model logo --masking cm-gems --output-dir RUN",
        "gemsdata pretrain --shards SHARDS --output-dir RUN --resume",
        "accelerate launch -m gemsdata pretrain --shards SHARDS --output-dir RUN",
    ],
)
