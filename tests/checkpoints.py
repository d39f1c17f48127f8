"""Tiny checkpoints with random weights in the layouts of published DNA models."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    EsmConfig,
    EsmForMaskedLM,
    EsmTokenizer,
    PreTrainedTokenizerFast,
)

from gemsdata.masking.token_rows import Vocabulary
from gemsdata.views.tokenizer import KmerTokenizer
from tests.genomes import random_dna
from train.models import build_model

TINY = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}


def words(k: int, letters: str = "ACGT") -> list[str]:
    return ["".join(word) for word in itertools.product(letters, repeat=k)]


def bpe(folder: Path) -> Path:
    """As DNABERT-2: byte-pair encoding; pad is id 3, and the configuration does not say so."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=256, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([random_dna(300, seed) for seed in range(50)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    roles = dict(zip(("unk_token", "cls_token", "sep_token", "pad_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=48, **TINY)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def esm(folder: Path) -> Path:
    """As the Nucleotide Transformer: 6-mers side by side, single letters at the end; [CLS] before, nothing behind."""
    folder.mkdir(parents=True)
    vocabulary = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>", *words(6, "ATCG"), *"ATCGN"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    EsmTokenizer(str(folder / "vocab.txt"), eos_token=None).save_pretrained(folder)
    config = EsmConfig(vocab_size=len(vocabulary), pad_token_id=1, mask_token_id=2, max_position_embeddings=32, **TINY)
    EsmForMaskedLM(config).save_pretrained(folder)
    return folder


def kmer_text(folder: Path, k: int = 3, letters: str = "ACGT", **tokenizer_options) -> Path:
    """As DNABERT: k-mers are words of a text; here in another order of ids unless ``letters`` is ATCG."""
    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words(k, letters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    options = {"do_lower_case": False, "model_max_length": 40, **tokenizer_options}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": BertTokenizer.__name__, **options}))
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **TINY)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def ours(folder: Path, k: int = 3) -> Path:
    """As train/pretrain.py writes them."""
    build_model("smoke", Vocabulary.of_kmers(k), max_positions=64).save_pretrained(folder)
    KmerTokenizer(k, model_max_length=64).save_pretrained(folder)
    return folder


CODE = """
import torch
from transformers import BertConfig, BertForSequenceClassification

class OwnConfig(BertConfig):
    model_type = "bert"

class OwnClassifier(BertForSequenceClassification):
    config_class = OwnConfig
    def __init__(self, config):
        super().__init__(config)
        self.own = torch.nn.Parameter(torch.zeros(1))
        self.slopes = torch.arange(2.0) * torch.Tensor([1.0, 3.0])  # as ALiBi: fails where tensors have no memory
        self.register_buffer("frequencies", torch.full((2,), 7.0), persistent=False)
"""


def with_code(folder: Path) -> Path:
    """As DNABERT-2 again: model type "bert", but a class of its own, and weights as pytorch_model.bin."""
    ours(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "own_model.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own_model.OwnConfig", "AutoModelForSequenceClassification": "own_model.OwnClassifier"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": names}))
    return folder


KINDS = {"bpe": bpe, "esm": esm, "kmer text": kmer_text, "ours": ours, "own code": with_code}


def build(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    return KINDS[kind](folder)
