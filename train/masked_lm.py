"""The masked-LM loss of a Hugging Face model, computed without the parts that it does not depend on.

For BERT and ModernBERT, which compute everything at every position, `MaskedLM` leaves out

* the vocabulary head at tokens that are not masked (86 % of them);
* in the last layer everything but keys and values at tokens that are not masked;
* feed-forward layers on padding.

The weights are those of the wrapped model, and so is the loss, within float tolerance. Other architectures are called
unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import BertForMaskedLM, BertModel, ModernBertForMaskedLM, PreTrainedModel
from transformers.models.modernbert.modeling_modernbert import rotate_half

from gemsdata.genome.vocab import NUM_SPECIAL

IGNORED = -100
"""label of a token that is not masked"""
Rotary = tuple[torch.Tensor, torch.Tensor]
_MAX_SCORES = 2**26
"""attention scores of a layer that are kept in memory on a CPU, 128 MiB in bf16"""


class TokenScores(NamedTuple):
    """Predictions of a model for N masked tokens, in order of rows and positions."""

    losses: torch.Tensor
    """-ln p(original token), float[N]"""
    correct: torch.Tensor
    """the most probable token is the original, bool[N]"""
    base_probabilities: torch.Tensor | None = None
    """probability of each base of the original k-mer, float[N, k], marginal over the predicted k-mers"""


class ChosenTokens(NamedTuple):
    """The N tokens of a batch for which the last layer is computed, in order of rows; int64[N] each."""

    rows: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    """number within the row"""
    most_per_row: int


class Padding(NamedTuple):
    """Which positions of a batch are not padding."""

    keys: torch.Tensor
    """bool[B, 1, 1, L]"""
    tokens: torch.Tensor
    """their flat indices, int64[tokens]"""


class MaskedLM(nn.Module):
    """The masked-LM loss of a Hugging Face model.

    ``forward(input_ids, attention_mask, labels)`` takes int64[B, L] each, labels -100 at tokens that are not predicted,
    and returns `TokenScores`.

    Parameters
    ----------
    model
        the model whose weights are used and trained.
    compiled
        compile the part after the masked positions are known, for any number of them.
    checkpointed
        recompute the activations of each layer in the backward pass (gradient checkpointing), which saves memory.
    plain
        call even BERT or ModernBERT unchanged; needed by FSDP, which gathers weights when a layer is called.
    """

    def __init__(
        self, model: PreTrainedModel, *, compiled: bool = False, checkpointed: bool = False, plain: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self._logits_at = None if plain else _LOGITS_AT.get(type(model))
        self._checkpointed = checkpointed
        if checkpointed and self._logits_at is None:
            model.config.use_cache = False  # of decoders; on, each layer warns
            new_name = getattr(model, "activation_checkpointing_enable", None)
            (new_name or model.gradient_checkpointing_enable)({"use_reentrant": False})
        run = self._plain_scores if self._logits_at is None else self._scores
        self._run = torch.compile(run, dynamic=True) if compiled else run

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
        *,
        with_bases: bool = False,
    ) -> TokenScores:
        """Return the scores of the masked tokens; ``with_bases`` also the probabilities of their bases."""
        rows, positions = torch.nonzero(labels != IGNORED, as_tuple=True)
        targets = labels[rows, positions]
        if self._logits_at is None:
            logits = self._run(input_ids, attention_mask, rows, positions)
        else:
            per_row = torch.bincount(rows, minlength=len(labels))
            slots = torch.arange(len(rows), device=rows.device) - (per_row.cumsum(0) - per_row)[rows]
            masked = ChosenTokens(rows, positions, slots, max(1, int(per_row.max())))
            logits = self._run(input_ids, masked, padding_of(attention_mask))
        losses = functional.cross_entropy(logits, targets, reduction="none")
        bases = base_probabilities(logits, targets) if with_bases else None
        return TokenScores(losses, logits.argmax(-1) == targets, bases)

    def _scores(self, input_ids: torch.Tensor, masked: ChosenTokens, padding: Padding | None) -> torch.Tensor:
        """Return the logits of the masked tokens, float32[N, vocabulary]."""
        assert self._logits_at is not None
        return self._logits_at(self.model, input_ids, masked, padding, self._call).float()

    def _plain_scores(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits[rows, positions].float()

    def _call(self, layer: Callable[..., torch.Tensor], *arguments: object) -> torch.Tensor:
        if self._checkpointed and self.training:
            return checkpoint(layer, *arguments, use_reentrant=False)
        return layer(*arguments)


def padding_of(attention_mask: torch.Tensor) -> Padding | None:
    """Return the positions that are not padding; None if there is no padding."""
    real = attention_mask.bool()
    if bool(real.all()):
        return None
    return Padding(real[:, None, None, :], torch.nonzero(real.flatten()).squeeze(1))


def base_probabilities(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the probability of each base of the original k-mers, float[N, k], from logits float[N, 4**k + 5].

    For each position of the k-mer, the sum over all k-mers with the same base there; without special tokens.
    """
    k = (logits.shape[1] - NUM_SPECIAL).bit_length() // 2
    joint = logits[:, NUM_SPECIAL:].softmax(-1)
    values = targets - NUM_SPECIAL
    out = []
    for j in range(k):
        marginal = joint.view(len(joint), 4**j, 4, 4 ** (k - 1 - j)).sum((1, 3))
        digit = values >> 2 * (k - 1 - j) & 3
        out.append(marginal.gather(1, digit[:, None]))
    return torch.cat(out, 1)


def _call_plain(layer: Callable[..., torch.Tensor], *arguments: object) -> torch.Tensor:
    return layer(*arguments)


def _bert_logits(
    model: BertForMaskedLM, input_ids: torch.Tensor, masked: ChosenTokens, padding: Padding | None, call: Callable
) -> torch.Tensor:
    return model.cls(bert_hidden_at(model.bert, input_ids, masked, padding, call))


def bert_hidden_at(
    bert: BertModel,
    input_ids: torch.Tensor,
    chosen: ChosenTokens,
    padding: Padding | None,
    call: Callable = _call_plain,
) -> torch.Tensor:
    """Return the last hidden states of the chosen tokens, [N, H]; skip computations that they do not depend on."""
    hidden = bert.embeddings(input_ids=input_ids)
    *lower, last = bert.encoder.layer
    for layer in lower:
        hidden = call(_bert_layer, layer, hidden, padding)
    return call(_last_bert_layer, last, hidden, chosen, padding)


def _bert_layer(layer: nn.Module, hidden: torch.Tensor, padding: Padding | None) -> torch.Tensor:
    """Run a layer on hidden[B, L, H]; the feed-forward half skips padding."""
    attention = layer.attention.self
    projected = _project(hidden, attention.query, attention.key, attention.value)
    query, key, value = (_heads(part, attention) for part in projected)
    context = _attend(query, key, value, None if padding is None else padding.keys, _dropout(attention))
    return _without_padding(lambda context, hidden: _bert_rest(layer, context, hidden), padding, context, hidden)


def _last_bert_layer(
    layer: nn.Module, hidden: torch.Tensor, masked: ChosenTokens, padding: Padding | None
) -> torch.Tensor:
    """Run a layer at the masked tokens of hidden[B, L, H] only; return [N, H]."""
    attention = layer.attention.self
    here = hidden[masked.rows, masked.positions]
    queries = _heads(_in_slots(attention.query(here), masked, len(hidden)), attention)
    key, value = (_heads(part, attention) for part in _project(hidden, attention.key, attention.value))
    context = _attend(queries, key, value, None if padding is None else padding.keys, _dropout(attention))
    return _bert_rest(layer, context[masked.rows, masked.slots], here)


def _bert_rest(layer: nn.Module, context: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    attended = layer.attention.output(context, residual)
    return layer.output(layer.intermediate(attended), attended)


def _project(hidden: torch.Tensor, *layers: nn.Module) -> tuple[torch.Tensor, ...]:
    """Return the outputs of linear layers of one input, computed as one, so that it is cast and read once."""
    weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return functional.linear(hidden, weight, bias).chunk(len(layers), -1)


def _heads(projected: torch.Tensor, attention: nn.Module) -> torch.Tensor:
    """[B, L, H] -> [B, heads, L, H / heads]."""
    return projected.unflatten(-1, (attention.num_attention_heads, attention.attention_head_size)).transpose(1, 2)


def _dropout(attention: nn.Module) -> float:
    return attention.dropout.p if attention.training else 0.0


def _modern_bert_logits(
    model: ModernBertForMaskedLM, input_ids: torch.Tensor, masked: ChosenTokens, padding: Padding | None, call: Callable
) -> torch.Tensor:
    base = model.model
    hidden = base.embeddings(input_ids=input_ids)
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    kinds = set(model.config.layer_types)
    rotary = {kind: base.rotary_emb(hidden, positions[None], kind) for kind in kinds}
    *lower, last = base.layers
    for layer in lower:
        mask = _window_mask(layer, positions[None], positions, padding)
        hidden = call(_modern_bert_layer, layer, hidden, rotary[layer.attention_type], mask, padding)
    own = _in_slots(masked.positions, masked, len(hidden))
    mask = _window_mask(last, own, positions, padding)
    hidden = call(_last_modern_bert_layer, last, hidden, rotary[last.attention_type], mask, masked)
    return model.decoder(model.head(base.final_norm(hidden)))


def _window_mask(
    layer: nn.Module, queries: torch.Tensor, keys: torch.Tensor, padding: Padding | None
) -> torch.Tensor | None:
    """Return which keys the queries at positions int64[B or 1, Q] attend to, bool[B or 1, 1, Q or 1, L]; None: all."""
    seen = None if padding is None else padding.keys
    if layer.attn.sliding_window is None:
        return seen
    distance = (queries[:, :, None] - keys).abs()[:, None]
    near = distance < layer.attn.sliding_window  # the largest distance plus one
    return near if seen is None else (near & seen) | (distance == 0)  # a padding query attends to itself


def _modern_bert_layer(
    layer: nn.Module, hidden: torch.Tensor, rotary: Rotary, mask: torch.Tensor | None, padding: Padding | None
) -> torch.Tensor:
    """Run a layer on hidden[B, L, H]; the feed-forward half skips padding."""
    attention = layer.attn
    query, key, value = attention.Wqkv(layer.attn_norm(hidden)).unflatten(-1, (3, -1, attention.head_dim)).unbind(-3)
    cos, sin = (part[:, :, None] for part in rotary)  # [1, L, 1, D]
    query, key = (_rotated(part, cos, sin).transpose(1, 2) for part in (query, key))
    context = _attend(query, key, value.transpose(1, 2), mask, attention.attention_dropout if layer.training else 0.0)
    return _without_padding(lambda context, hidden: _modern_bert_rest(layer, context, hidden), padding, context, hidden)


def _last_modern_bert_layer(
    layer: nn.Module, hidden: torch.Tensor, rotary: Rotary, mask: torch.Tensor | None, masked: ChosenTokens
) -> torch.Tensor:
    """Run a layer at the masked tokens of hidden[B, L, H] only; return [N, H]."""
    attention, size = layer.attn, hidden.shape[-1]
    weight, bias = attention.Wqkv.weight, attention.Wqkv.bias
    of_query, of_others = (None, None) if bias is None else (bias[:size], bias[size:])
    normed = layer.attn_norm(hidden)
    query = functional.linear(normed[masked.rows, masked.positions], weight[:size], of_query)
    key, value = (
        functional.linear(normed, weight[size:], of_others).unflatten(-1, (2, -1, attention.head_dim)).unbind(-3)
    )
    cos, sin = rotary
    here = (part[0, masked.positions][:, None] for part in rotary)  # [N, 1, D]
    query = _rotated(query.unflatten(-1, (-1, attention.head_dim)), *here).flatten(1)
    queries = _in_slots(query, masked, len(hidden)).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    key = _rotated(key, cos[:, :, None], sin[:, :, None]).transpose(1, 2)
    context = _attend(queries, key, value.transpose(1, 2), mask, attention.attention_dropout if layer.training else 0.0)
    return _modern_bert_rest(layer, context[masked.rows, masked.slots], hidden[masked.rows, masked.positions])


def _modern_bert_rest(layer: nn.Module, context: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    attended = residual + layer.attn.out_drop(layer.attn.Wo(context))
    return attended + layer.mlp(layer.mlp_norm(attended))


def _rotated(part: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return queries or keys rotated by their positions, as `apply_rotary_pos_emb` does."""
    wide = part.float()
    return (wide * cos + rotate_half(wide) * sin).to(part.dtype)


def _in_slots(values: torch.Tensor, masked: ChosenTokens, num_rows: int) -> torch.Tensor:
    """Return values[N, ...] of the masked tokens at the start of their rows, [B, most_per_row, ...], padded with 0."""
    out = torch.zeros((num_rows, masked.most_per_row, *values.shape[1:]), dtype=values.dtype, device=values.device)
    return out.index_put((masked.rows, masked.slots), values)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, dropout: float
) -> torch.Tensor:
    """Return the attention's output, [B, Q, H], of query[B, heads, Q, D] and key and value[B, heads, L, D]."""
    if _is_faster_step_by_step(query, key):
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        context = functional.dropout(scores.softmax(-1), dropout) @ value
    else:
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2)


def _is_faster_step_by_step(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Return whether attention is computed without torch's fused kernel.

    On a CPU the backward pass of that kernel takes twice as long in bf16, but needs no memory for the scores.
    """
    num_scores = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and num_scores <= _MAX_SCORES


def _without_padding(
    rest: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    padding: Padding | None,
    context: torch.Tensor,
    hidden: torch.Tensor,
) -> torch.Tensor:
    """Return rest(context, hidden) of [B, L, H] each, computed without padding, where it is 0."""
    if padding is None:
        return rest(context, hidden)
    flat = hidden.flatten(0, 1)
    new = rest(context.flatten(0, 1)[padding.tokens], flat[padding.tokens])
    empty = torch.zeros(flat.shape, dtype=new.dtype, device=new.device)
    return empty.index_copy(0, padding.tokens, new).view(hidden.shape)


_LOGITS_AT = {BertForMaskedLM: _bert_logits, ModernBertForMaskedLM: _modern_bert_logits}
"""how logits of masked tokens are computed by architecture"""
