"""A sequence classifier on top of a pretrained BERT: its weights, its loss, its probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from gemsdata.vocab import MAX_K, vocab_size
from train.labelled import batches
from train.models import quiet_loading

_EVAL_ROWS = 256


def load_classifier(
    folder: str | Path, classes: list[str] | None, *, dropout: float | None, random_weights: bool = False
) -> tuple[BertForSequenceClassification, int, list[str]]:
    """Return (model, k, class names).

    Parameters
    ----------
    folder
        Hugging Face folder of a BERT; fine-tuned already when ``classes`` is None.
    classes
        of a classifier to be trained: pooler and classifier are new, with weights from torch's global generator.
    dropout
        of all layers; None: as the folder's configuration says.
    random_weights
        take the folder's configuration only.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} is no Hugging Face model folder (it has no config.json); give RUN/final")
    config = BertConfig.from_pretrained(folder)
    k = _k_of(config, folder)
    if classes is None:
        if "BertForSequenceClassification" not in (config.architectures or []):
            raise ValueError(f"{folder} is not fine-tuned, so it cannot predict; give --train, or a fine-tuned model")
        classes = [config.id2label[i] for i in range(config.num_labels)]
    else:
        config.num_labels = len(classes)
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: i for i, name in enumerate(classes)}
    if dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    config._attn_implementation = "sdpa"
    if random_weights:
        return BertForSequenceClassification(config), k, classes
    with quiet_loading():  # that the head is new is known
        model = BertForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float32)
    return model, k, classes


def share_of_loss(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], truth: np.ndarray, accelerator: Accelerator
) -> torch.Tensor:
    """Return this process's part of a batch's loss; the mean over processes is the mean over the batch's rows.

    ``batch`` and ``truth`` (class numbers, int64[B]) are the whole batch. A process that gets no row of a small one
    computes one with weight 0, because all must take part.
    """
    own = np.arange(len(truth))[accelerator.process_index :: accelerator.num_processes]
    weight = accelerator.num_processes / len(truth) if len(own) else 0.0
    own = own if len(own) else np.array([0])
    logits = model(**{name: values[own].to(accelerator.device) for name, values in batch.items()}).logits.float()
    labels = torch.from_numpy(truth[own]).to(accelerator.device)
    return functional.cross_entropy(logits, labels, reduction="sum") * weight


@torch.no_grad()
def probabilities(model: torch.nn.Module, tokens: list[np.ndarray], accelerator: Accelerator) -> np.ndarray:
    """Return the probability of each class for each row, float64[N, C]; every process computes all of them."""
    bare = accelerator.unwrap_model(model)
    was_training = bare.training
    bare.eval()
    order = np.argsort([len(row) for row in tokens], kind="stable")
    out = np.empty((len(tokens), bare.config.num_labels))
    for chosen, batch in batches(tokens, order, _EVAL_ROWS):
        logits = bare(**{name: values.to(accelerator.device) for name, values in batch.items()}).logits
        out[chosen] = logits.double().softmax(-1).cpu().numpy()
    bare.train(was_training)
    return out


def _k_of(config: BertConfig, folder: Path) -> int:
    for k in range(1, MAX_K + 1):
        if config.vocab_size == vocab_size(k):
            return k
    raise ValueError(
        f"{folder} has {config.vocab_size} token ids, which is 4**k + 5 for no k: it does not read overlapping k-mers"
    )
