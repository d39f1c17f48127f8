"""The study of the demo: one curriculum with three seeds beside random weights, on a task with few labels."""

from pathlib import Path

from eval.compare.study import RANDOM, Arm, Study

ARM = "cm-gems"
HELD_OUT = "synth3"
"""contig of the made-up genome that no model is pretrained on"""
SHOTS = 100

STUDY = Study(
    arms=[Arm(ARM, masking="cm-gems")],
    pretrain={
        "model": str(Path(__file__).parent / "demo_model.json"),  # 0.1 M parameters, rotary positions
        "recipe": "small",
        "max_steps": 320,
        "batch_rows": 32,
        "peak_lr": 1e-2,
        "warmup_steps": 20,
        "eval_every": 40,
        "eval_rows": 256,
        "save_every": 320,
    },
    finetune={"epochs": 10, "batch_rows": 10, "peak_lr": 1e-3},
    seeds=(1, 2, 3),
    sets=("repeats",),
    shots=(SHOTS,),
    max_test_rows=400,
    comparisons=[(ARM, RANDOM)],
)
