"""``gemsdata finetune``: train/finetune.py."""

from gemsdata.cli.programs import Program

command = Program(
    "finetune",
    "train.finetune",
    extra="train",
    summary="Fine-tune a pretrained model on labelled sequences, or predict.",
    examples=[
        "gemsdata finetune --model RUN/final --train train.tsv --test test.tsv --output-dir FT",
        "gemsdata finetune --model FT/final --predict new.tsv --output-dir PREDICTED",
        "accelerate launch -m gemsdata finetune --model RUN/final --train train.tsv --output-dir FT",
    ],
)
