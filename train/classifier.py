"""Sequence classifiers from Hugging Face checkpoints: loading with their own tokenizers, loss, probabilities."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from train.encoder import Encoder, load_encoder
from train.labelled import batches
from train.masked_lm import ChosenTokens, bert_hidden_at, padding_of
from train.models import num_positions, quiet_loading
from train.pooling import CONFIG_NAME, PooledClassifier

_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "seq_classif_dropout",
    "classifier_dropout",
)
"""names of dropout rates in Hugging Face configurations"""
_EVAL_ROWS = 256


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier with its tokenizer and the names of its classes."""

    model: PreTrainedModel | PooledClassifier
    encoder: Encoder
    classes: list[str]


def load_classifier(
    folder: str | Path,
    classes: list[str] | None,
    *,
    pooling: str | None = None,
    dropout: float | None = None,
    random_weights: bool = False,
    text_form: str | None = None,
    trust_remote_code: bool = False,
) -> Classifier:
    """Load a classifier and its tokenizer from a local folder; nothing is downloaded.

    Parameters
    ----------
    folder
        Hugging Face folder of a model; it must be fine-tuned if ``classes`` is None.
    classes
        class names of a new classifier, whose head gets weights from torch's global generator.
    pooling
        pooling of a new classifier, see `PooledClassifier`; None: the architecture's own classifier.
    dropout
        dropout rate of all layers; None: that of the folder's configuration.
    random_weights
        use the folder's configuration only.
    text_form
        form of the text that the tokenizer reads, see `load_encoder`; None: detected.
    trust_remote_code
        run the Python files of the folder that its configuration names.

    Raises
    ------
    ValueError
        if the folder has no model, needs its own code without ``trust_remote_code``, is not fine-tuned although
        ``classes`` is None, or lacks most of the model's weights.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} is not a Hugging Face model folder (it has no config.json); give RUN/final")
    if not trust_remote_code:
        refuse_code(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    config.pad_token_id = getattr(config, "pad_token_id", None)  # expected by code for transformers 4
    if classes is None:
        pooling = getattr(config, CONFIG_NAME, None)
    else:
        setattr(config, CONFIG_NAME, pooling)
        config.num_labels = len(classes)
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: i for i, name in enumerate(classes)}
    for name in _DROPOUTS:
        if dropout is not None and getattr(config, name, None) is not None:
            setattr(config, name, dropout)
    model, new = _load_model(folder, config, random_weights, trust_remote_code)
    if pooling is not None:
        model = PooledClassifier(getattr(model, model.base_model_prefix), pooling, dropout=dropout)
        if classes is None:
            model.load_head(folder)
    elif classes is None and new:
        raise ValueError(f"{folder} is not fine-tuned, so it cannot predict; give --train, or a fine-tuned model")
    encoder = load_encoder(
        folder,
        num_ids=model.get_input_embeddings().num_embeddings,
        max_positions=num_positions(model),
        text_form=text_form,
        trust_remote_code=trust_remote_code,
    )
    if config.pad_token_id is None:  # needed by models that classify by the last token
        config.pad_token_id = encoder.pad_id
    return Classifier(model, encoder, classes or [config.id2label[i] for i in range(config.num_labels)])


class ClassLogits(nn.Module):
    """The logits of a sequence classifier; for BERT, without the parts of the last layer that they do not depend on.

    BERT classifies by the hidden state of [CLS], so its last layer computes only keys and values at other tokens, and
    feed-forward layers skip padding. Weights and, within float tolerance, logits are those of the wrapped model. Other
    architectures and `PooledClassifier` are called unchanged.
    """

    def __init__(self, model: PreTrainedModel | PooledClassifier) -> None:
        super().__init__()
        self.model = model
        self._is_bert = type(model) is BertForSequenceClassification

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return float[B, classes] of int64[B, L] each."""
        if isinstance(self.model, PooledClassifier):
            return self.model(input_ids, attention_mask)
        if not self._is_bert:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        rows = torch.arange(len(input_ids), device=input_ids.device)
        first = ChosenTokens(rows, torch.zeros_like(rows), torch.zeros_like(rows), 1)
        hidden = bert_hidden_at(self.model.bert, input_ids, first, padding_of(attention_mask))
        pooler = self.model.bert.pooler
        return self.model.classifier(self.model.dropout(pooler.activation(pooler.dense(hidden))))


def classification_loss(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], truth: np.ndarray, accelerator: Accelerator
) -> torch.Tensor:
    """Return this process's part of a batch's loss; its mean over processes is the mean over the batch's rows.

    ``batch`` and ``truth`` (class numbers, int64[B]) are the whole batch. A process that gets no row of a small batch
    computes one with weight 0, because the gradient all-reduce needs all processes.
    """
    own = np.arange(len(truth))[accelerator.process_index :: accelerator.num_processes]
    weight = accelerator.num_processes / len(truth) if len(own) else 0.0
    own = own if len(own) else np.array([0])
    logits = model(**{name: values[own].to(accelerator.device) for name, values in batch.items()}).float()
    labels = torch.from_numpy(truth[own]).to(accelerator.device)
    return functional.cross_entropy(logits, labels, reduction="sum") * weight


@torch.no_grad()
def probabilities(
    model: torch.nn.Module, tokens: list[np.ndarray], accelerator: Accelerator, *, pad_id: int
) -> np.ndarray:
    """Return the probability of each class for each row, float64[N, C]; every process computes all of them."""
    bare = accelerator.unwrap_model(model)
    was_training = bare.training
    bare.eval()
    order = np.argsort([len(row) for row in tokens], kind="stable")
    out = np.empty((len(tokens), bare.model.config.num_labels))
    for chosen, batch in batches(tokens, order, _EVAL_ROWS, pad_id=pad_id):
        logits = bare(**{name: values.to(accelerator.device) for name, values in batch.items()})
        out[chosen] = logits.double().softmax(-1).cpu().numpy()
    bare.train(was_training)
    return out


def refuse_code(folder: Path) -> None:
    """Raise ValueError if a configuration names Python files.

    transformers itself would use its own class of that model type, if there is one, and ignore the weights that do not
    fit, which are nearly all.
    """
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists() and "auto_map" in json.loads(path.read_text()):
            raise ValueError(
                f"{folder} comes with its own Python code ({name} has an auto_map); read it, and run it with"
                " --trust-remote-code"
            )


def _load_model(
    folder: Path, config: PretrainedConfig, random_weights: bool, trust_remote_code: bool
) -> tuple[PreTrainedModel, set[str]]:
    """Return a model and the names of its tensors that are missing in the folder."""
    auto = AutoModelForSequenceClassification
    own_code = auto.__name__ in (getattr(config, "auto_map", None) or {})
    with quiet_loading():  # no warning about the new head
        try:
            if random_weights or own_code:
                model = auto.from_config(config, trust_remote_code=trust_remote_code, dtype=torch.float32)
                new = set(model.state_dict()) if random_weights else _fill(model, folder)
            else:
                model, report = auto.from_pretrained(
                    folder,
                    config=config,
                    local_files_only=True,
                    dtype=torch.float32,
                    ignore_mismatched_sizes=True,  # a head for other classes
                    output_loading_info=True,
                )
                misfits = {name for name, *_ in report["mismatched_keys"]}
                _check_shapes(folder, model, misfits)
                new = {*report["missing_keys"], *misfits}
        except (SafetensorError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{folder}: the weights cannot be read ({error}); is the file complete, or a Git LFS pointer?"
            ) from error
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise ValueError(f"{folder}: models of type {config.model_type} cannot classify sequences") from error
    if not random_weights:
        _check_weights(folder, model, new)
    return model, new


def _fill(model: PreTrainedModel, folder: Path) -> set[str]:
    """Load the weights into a model made by a folder's own code; return the names of missing tensors.

    from_pretrained of transformers 5 first builds models on the meta device. Older code fails there (DNABERT-2 computes
    its ALiBi slopes in the constructor) or keeps wrong values (rotary frequencies).
    """
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin")):
        if path.suffix == ".safetensors":
            found |= load_file(path)
        else:
            found |= torch.load(path, map_location="cpu", weights_only=True)
    own, prefix = model.state_dict(), model.base_model_prefix
    named = {name if name in own else f"{prefix}.{name}": tensor for name, tensor in found.items()}
    fitting = {name: tensor for name, tensor in named.items() if name in own and tensor.shape == own[name].shape}
    _check_shapes(folder, model, set(named) & set(own) - set(fitting))
    model.load_state_dict(fitting, strict=False)
    return set(own) - set(fitting)


def _check_shapes(folder: Path, model: PreTrainedModel, misfits: set[str]) -> None:
    """Raise ValueError if pretrained tensors do not have the model's shapes; a head may be for other classes."""
    pretrained = sorted(name for name in misfits if name.startswith(f"{model.base_model_prefix}."))
    if pretrained:
        raise ValueError(
            f"{folder}: {pretrained[0]} has another shape in the weights than in config.json, so random numbers would"
            " replace it; give the configuration that belongs to the weights"
        )


def _check_weights(folder: Path, model: PreTrainedModel, new: set[str]) -> None:
    """Raise ValueError if most of the pretrained part is new, because the weights are of another architecture."""
    pretrained = {name for name in model.state_dict() if name.startswith(model.base_model_prefix)}
    if len(pretrained & new) * 2 > len(pretrained):
        raise ValueError(
            f"{folder} lacks {len(pretrained & new)} of the {len(pretrained)} tensors of {type(model).__name__}"
            f" ({min(pretrained & new)}, ...); they are weights of another architecture"
        )
