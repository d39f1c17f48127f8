"""training.png: loss and perplexity over the steps, with the stage switch marked."""

from __future__ import annotations

from pathlib import Path

from train.run_log import read_metrics


def draw_run(run: Path) -> None:
    """Draw RUN/training.png from RUN/metrics.jsonl; without matplotlib nothing is drawn."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    lines = read_metrics(run / "metrics.jsonl")
    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    losses = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
    valid = [(line["step"], line["valid_perplexity"]) for line in lines if line.get("valid_perplexity") is not None]
    if losses:
        upper.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=1, label="training")
    if valid:
        steps, values = zip(*valid, strict=True)
        lower.plot(steps, values, color="tab:orange", marker="o", markersize=4, label="validation, frozen masks")
    baselines = [line["unigram_perplexity"] for line in lines if line.get("unigram_perplexity") is not None]
    if baselines:
        lower.axhline(baselines[-1], color="grey", linestyle=":", label="token frequencies alone")
    log = [line["stage_log"] for line in lines if line.get("stage_log")]
    for step, stage in log[-1] if log else []:
        for axes in (upper, lower):
            axes.axvline(step, color="tab:red", linestyle="--", linewidth=1)
        upper.annotate(f"stage {stage}", (step, 1), xycoords=("data", "axes fraction"), xytext=(3, -12),
                       textcoords="offset points", color="tab:red")  # fmt: skip
    upper.set_ylabel("loss, nats per masked token")
    lower.set_ylabel("perplexity")
    lower.set_xlabel("step")
    for axes in (upper, lower):
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(run / "training.png", dpi=120)
