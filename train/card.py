"""The model card of a pretraining: README.md of the model folder, written on request."""

from __future__ import annotations

import json
from typing import Any

import gemsdata as gd
from gemsdata.shards.card import front_matter
from train.config import PretrainConfig
from train.rows import TrainingRows

_SCORES = {
    "valid_loss": "validation loss, nats per masked token",
    "valid_loss_mask": "validation loss of tokens shown as [MASK]",
    "valid_accuracy": "validation accuracy of masked tokens",
    "valid_bits_per_base": "bits per hidden base",
    "markov_bits_per_base": "bits per hidden base of a Markov chain",
    "unigram_perplexity": "perplexity of token frequencies",
}
"""name in metrics.jsonl: what it is"""


def model_card(config: PretrainConfig, rows: TrainingRows, metrics: list[dict[str, Any]]) -> str:
    """Return the card of a complete run, from its options and the lines of its metrics.jsonl."""
    last = next((line for line in reversed(metrics) if "valid_loss" in line), {})
    lines = [
        "library_name: transformers",
        "pipeline_tag: fill-mask",
        "tags: [biology, dna, genomics, gemsdata]",
        *([f"base_model: {json.dumps(config.init_from)}"] if config.init_from else []),
    ]
    name = config.init_from or config.model
    options = [
        ("model", name),
        ("tokens", rows.tokens.spec),
        ("row", f"{rows.row_tokens:,} tokens"),
        ("masking", config.masking),
        ("updates", f"{config.max_steps:,} of {config.batch_rows:,} rows"),
        ("peak learning rate", f"{config.peak_lr:g}, {config.warmup_steps:,} updates of warm-up"),
        ("seed", str(config.seed)),
        *(("fingerprint of the rows", f"`{fingerprint}`") for fingerprint in rows.fingerprints),
    ]
    scores = [(text, f"{last[key]:.4f}") for key, text in _SCORES.items() if last.get(key) is not None]
    return f"""{front_matter(lines)}

# {name}, {rows.tokens.spec}, {config.masking}

A masked language model of DNA, pretrained with gemsdata {gd.__version__}.

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")  # takes bases: tokenizer("ACGTACGT")
model = AutoModelForMaskedLM.from_pretrained("FOLDER")
```

## Training

| | |
|---|---|
{_table(options)}

## Validation after {last.get("step", 0):,} updates

| | |
|---|---|
{_table(scores)}

All masked tokens include those that were kept and those replaced at random.
"""


def _table(cells: list[tuple[str, str]]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in cells)
