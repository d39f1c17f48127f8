"""Pretraining on views of packed sets: single bases, strided k-mers, a tokenizer's tokens, weights of the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from huggingface_hub import ModelCard
from torch.nn import functional
from transformers import AutoModelForMaskedLM, AutoTokenizer

import gemsdata as gd
from gemsdata.masking.token_rows import hidden_bases
from gemsdata.views.options import ViewOptions
from tests.genomes import random_dna
from tests.test_views_tokens import bpe_folder
from tests.train_support import _fresh_accelerate, arguments, lines, run  # noqa: F401
from tests.view_support import packed_set
from train import finetune, pretrain
from train.baselines import row_bases
from train.evaluate import ValidationRows
from train.masked_lm import IGNORED, MaskedLM
from train.models import build_model
from train.pretrain import _backward
from train.rows import bases_of, open_rows
from train.run_log import batch_counts
from train.token_bases import NO_BASE, TokenBases

FAST = {"max_steps": 3, "eval_every": 3, "masking": "genemask", "row_bases": 48}
TOKENS = ["base", "kmer:3:3", "kmer:3", "bpe"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Two contigs, the second soft-masked in part, a tenth of it for validation."""
    contigs = {"a": random_dna(3000, 1), "b": random_dna(1000, 2) + random_dna(1500, 3).lower() + random_dna(500, 4)}
    return packed_set(tmp_path_factory.mktemp("packed"), contigs, valid_fraction=0.1)


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    return bpe_folder(tmp_path_factory.mktemp("bpe") / "tokenizer")


@pytest.mark.compiled
@pytest.mark.parametrize("tokens", TOKENS)
def test_a_model_of_any_tokens_is_pretrained_saved_with_its_tokenizer_and_fine_tuned(packed, bpe, tmp_path, tokens):
    spec = str(bpe) if tokens == "bpe" else tokens
    assert run(packed, tmp_path / "run", tokens=spec, card=True, **FAST) == 0
    final = tmp_path / "run" / "final"
    view = gd.view(packed, tokens=spec, row_bases=48, jitter=False)
    (start, end) = (int(found[0]) for found in (view.rows(np.array([3])).start, view.rows(np.array([3])).end))
    row = view.rows(np.array([3])).tokens
    text = "".join("ATCG"[base] for base in row.bases[0, : end - start])
    ids = AutoTokenizer.from_pretrained(final)(text, add_special_tokens=False)["input_ids"]
    assert ids == row.input_ids[0, : int(row.num_tokens[0])].tolist()
    model = AutoModelForMaskedLM.from_pretrained(final)
    assert model.config.vocab_size == view.vocabulary.size
    assert model.config.max_position_embeddings == view.row_tokens + 2
    assert (model.config.pad_token_id, model.config.mask_token_id) == (view.vocabulary.pad_id, view.vocabulary.mask_id)
    assert 1.5 < lines(tmp_path / "run", "markov_bits_per_base")[3] < 2.5
    assert 1 < lines(tmp_path / "run", "valid_bits_per_base")[3] < 4
    assert lines(tmp_path / "run", "unigram_perplexity")[3] < view.vocabulary.size

    card = ModelCard.load(final / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "fill-mask")
    assert f"| tokens | {spec} |" in card.text

    labelled = tmp_path / "labelled.tsv"
    rows = [f"{'ACGTA' * 6}{random_dna(15, i)}\t1\n{random_dna(45, i + 50)}\t0\n" for i in range(4)]
    labelled.write_text("sequence\tlabel\n" + "".join(rows))
    words = arguments(model=str(final), train=str(labelled), test=str(labelled), epochs=1, threads=1,
                      output_dir=str(tmp_path / "tuned"))  # fmt: skip
    assert finetune.main(words) == 0


@pytest.mark.compiled
@pytest.mark.parametrize("micro_batch_rows", [64, 3])
def test_the_loss_is_the_mean_weighted_by_loss_weights(packed, micro_batch_rows):
    view = gd.view(packed, tokens="base", row_bases=48, loss_weight_soft_masked=0.1)
    (batch,) = gd.build_loader(view, batch_size=20, num_steps=1)
    torch.manual_seed(0)
    model = build_model("logo", view.vocabulary, max_positions=50)
    accelerator = Accelerator(cpu=True)
    wrapped = accelerator.prepare(MaskedLM(model))
    counts = batch_counts(batch, False, accelerator)
    loss_sum, _ = _backward(wrapped, batch, counts, micro_batch_rows, accelerator)
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()

    logits = model(batch["input_ids"], batch["attention_mask"]).logits
    masked = batch["labels"] != IGNORED
    weights = batch["loss_weights"][masked]
    assert {0.1, 1.0} <= {round(value, 3) for value in weights.tolist()}, "some masked tokens weigh less"
    each = functional.cross_entropy(logits[masked], batch["labels"][masked], reduction="none")
    expected = (each * weights).sum() / weights.sum()
    expected.backward()
    assert loss_sum / counts.weight == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, value in model.named_parameters():
        if value.grad is not None:
            assert torch.allclose(found[name], value.grad, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("tokens", TOKENS)
def test_bases_of_rows_are_found_again_from_their_tokens(packed, bpe, tokens):
    """With the same bases hidden as masking counts them, tokens masked at random."""
    opened = open_rows([str(packed)], ViewOptions(tokens=str(bpe) if tokens == "bpe" else tokens, row_bases=48))
    (view,) = opened.sources
    rows = view.rows(np.arange(12)).tokens
    num_tokens = np.asarray(rows.num_tokens)
    mask = np.random.default_rng(0).random(rows.input_ids.shape) < 0.5
    mask &= np.arange(mask.shape[1]) < num_tokens[:, None]
    ids = torch.from_numpy(rows.input_ids.astype(np.int64))
    labels = torch.where(torch.from_numpy(mask), ids, IGNORED)
    shown_ids = torch.where(torch.from_numpy(mask), view.vocabulary.mask_id, ids)
    table = TokenBases.of(opened.tokens)
    bases, shown = row_bases(ValidationRows(shown_ids, labels, (ids > 0).long(), table))
    hidden = hidden_bases(rows, mask)
    stored = bases_of(view, np.arange(12))
    for i in range(12):
        count = int(rows.num_bases[i])
        assert bases[i, :count].tolist() == stored[i, :count].tolist()
        assert np.flatnonzero(~shown[i, :count]).tolist() == np.flatnonzero(hidden[i, :count]).tolist()
        assert (bases[i, count:] == NO_BASE).all()


def test_stored_rows_take_no_other_tokens(tmp_path, capsys):
    from tests.stream_support import make_set

    assert run(make_set(tmp_path / "set"), tmp_path / "run", tokens="base", row_bases=48) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "--format packed" in printed


def test_several_bed_files_are_several_sources(packed, tmp_path, capsys):
    (tmp_path / "a.bed").write_text("a\t100\t900\n")
    regions = (str(tmp_path / "a.bed"), "anywhere")
    rows = open_rows([str(packed)], ViewOptions(tokens="base", row_bases=48, regions=regions, flank=5))
    inside, anywhere = rows.sources
    places = inside.places()
    assert {0} == set(places.contig.tolist())
    assert 95 <= places.start.min() < (places.start + places.num_bases).max() <= 905
    assert len(anywhere) > len(inside)
    both = open_rows([str(packed)] * 2, ViewOptions(tokens="base", row_bases=48, regions=regions))
    assert len(both.sources[0]) < len(both.sources[1]) == len(anywhere)
    with pytest.raises(ValueError, match="2 BED files of regions for 3 sets: give one file, one for each set"):
        open_rows([str(packed)] * 3, ViewOptions(regions=regions))
    assert run(packed, tmp_path / "run", tokens="base", regions=regions, weights=(0.5, 0.25, 0.25), **FAST) == 2
    assert capsys.readouterr().err == "error: 3 weights for 2 shard sets; give one for each\n"


@pytest.mark.compiled
def test_a_run_on_several_sets_by_weight(packed, tmp_path):
    other = packed_set(tmp_path, {"x": random_dna(4000, 9)}, valid_fraction=0.1)
    words = arguments(shards=(str(packed), str(other)), output_dir=str(tmp_path / "run"), weights=(0.75, 0.25),
                      model="smoke", threads=1, batch_rows=8, max_steps=2, eval_every=2, masking="genemask",
                      tokens="base", row_bases=48)  # fmt: skip
    assert pretrain.main(words) == 0
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()


def test_options_of_rows_are_those_of_a_view():
    from train.config import PretrainConfig
    from train.options import parsed

    words = ["--shards", "a", "b", "--output-dir", "out", "--no-jitter", "--no-mask-soft-masked", "--view-seed", "5"]

    def parse(*given: str) -> PretrainConfig:
        with parsed(PretrainConfig, given, prog="pretrain", description="") as (config, as_json):
            assert not as_json
            return config

    config = parse(*words)
    assert config.shards == ("a", "b")
    assert config.seed == 0
    assert config.view.changed() == {"jitter": False, "mask_soft_masked": False, "seed": 5}
    assert (config.resume, config.compile) == (False, False)
    several = parse(*words[:5], "--regions", "a.bed", "anywhere", "--weights", "3", "1")
    assert (several.view.regions, several.weights) == (("a.bed", "anywhere"), (3.0, 1.0))
    assert parse(*words[:5], "--resume").resume is True
