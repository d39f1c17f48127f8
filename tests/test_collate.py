"""KmerTokenizer and MLMCollator, alone, in a DataLoader with workers, and in a Hugging Face Trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

import gemsdata as gd
from gemsdata.genome import vocab
from gemsdata.genome.vocab import base_codes


@pytest.fixture(scope="module")
def ranks():
    return np.random.default_rng(0).permutation(4101).clip(1, 4096).astype(np.uint16)


@pytest.fixture(scope="module")
def tokenizer():
    return gd.KmerTokenizer(6)


def sequences(count, length=80, seed=0):
    letters = np.random.default_rng(seed).integers(0, 4, (count, length))
    return ["".join("ATCG"[code] for code in row) for row in letters]


def kmers(sequence, k=6):
    return [sequence[i : i + k] for i in range(len(sequence) - k + 1)]


@pytest.mark.parametrize("k", [1, 3, 6])
def test_raw_bases_become_overlapping_kmers_with_dnaberts_ids(k):
    tokenizer = gd.KmerTokenizer(k)
    sequence = sequences(1, 515)[0]
    expected = [2, *(vocab.token_id(kmer) for kmer in kmers(sequence, k)), 3]
    assert tokenizer(sequence)["input_ids"] == expected
    assert tokenizer(sequence.lower())["input_ids"] == expected
    assert tokenizer(" ".join(kmers(sequence, k)))["input_ids"] == expected
    assert len(tokenizer) == vocab.vocab_size(k)


def test_ids_are_those_of_dnaberts_vocabulary_file(tokenizer):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "AAAAAA", "AAAAAT", "AAAAAC", "AAAAAG", "AAAATA"]
    assert tokenizer.convert_tokens_to_ids(words) == list(range(10))
    assert tokenizer.convert_ids_to_tokens([4100]) == ["GGGGGG"]


def test_rna_is_read_as_dna(tokenizer):
    assert tokenizer("ACGUACGuu")["input_ids"] == tokenizer("ACGTACGTT")["input_ids"]
    assert gd.KmerTokenizer(3, stride=3).tokenize("AUGUUU") == ["ATG", "TTT"]
    assert base_codes("ACGUu").tolist() == base_codes("ACGTt").tolist() == [0, 2, 3, 1, 1]


def test_other_letters_are_unknown_and_short_words_vanish(tokenizer):
    assert tokenizer.tokenize("ACGTACNACGTAC") == ["ACGTAC", *["[UNK]"] * 6, "ACGTAC"]
    assert tokenizer.tokenize("acgtac é ACGTA\nTTTTTTT") == ["ACGTAC", "TTTTTT", "TTTTTT"]
    assert tokenizer("")["input_ids"] == [2, 3]


def test_special_tokens_within_text_stay(tokenizer):
    assert tokenizer("ACGTAC [MASK] GTACGT")["input_ids"] == [
        2,
        vocab.token_id("ACGTAC"),
        4,
        vocab.token_id("GTACGT"),
        3,
    ]


def test_a_saved_tokenizer_loads_without_remote_code(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    texts = [*sequences(3), "ACGTAC [MASK] GTACGTN", ""]
    for padding in (False, True):
        assert loaded(texts, padding=padding)["input_ids"] == tokenizer(texts, padding=padding)["input_ids"]
    assert loaded.mask_token_id == 4
    assert loaded.pad_token_id == 0
    assert loaded(texts[0], truncation=True, max_length=12)["input_ids"][-1] == 3


@pytest.mark.parametrize("name", ["random-token", "genemask", "genemask-released", "global-nms"])
def test_the_collator_masks_only_kmers_and_labels_are_the_originals(name, ranks, tokenizer):
    ids = [tokenizer(sequence)["input_ids"] for sequence in [*sequences(20), "ACGTACG", "ACNACGTACG", ""]]
    batch = gd.MLMCollator(name, ranks)([{"input_ids": row, "length": len(row)} for row in ids])
    assert set(batch) == {"input_ids", "labels", "attention_mask"}
    assert all(column.dtype == torch.int64 and column.shape == (23, 77) for column in batch.values())
    for i, row in enumerate(ids):
        original = np.pad(row, (0, 77 - len(row)))
        labels, seen = batch["labels"][i].numpy(), batch["input_ids"][i].numpy()
        masked = labels != -100
        assert (original[masked] >= 5).all()
        assert (labels[masked] == original[masked]).all()
        assert (seen[~masked] == original[~masked]).all()
        assert batch["attention_mask"][i].tolist() == [1] * len(row) + [0] * (77 - len(row))
    assert 0.05 < (batch["labels"] != -100).float().mean() < 0.3


def test_the_collator_takes_rows_without_special_tokens_as_tensors(ranks):
    rows = [{"input_ids": torch.arange(5, 105)}, {"input_ids": np.arange(5, 25, dtype=np.uint16)}]
    batch = gd.MLMCollator("genemask", ranks, pad_to_multiple_of=8)(rows)
    assert batch["input_ids"].shape == (2, 104)
    assert (batch["labels"][:, 100:] == -100).all()


def test_masks_differ_between_epochs_and_repeat_with_the_seed(ranks, tokenizer):
    samples = [{"input_ids": tokenizer(sequence)["input_ids"]} for sequence in sequences(8)]
    first, again, other = (gd.MLMCollator("genemask", ranks, seed=seed) for seed in (1, 1, 2))
    epochs = [first(samples) for _ in range(3)]
    assert not torch.equal(epochs[0]["labels"], epochs[1]["labels"])
    assert not torch.equal(epochs[0]["labels"], other(samples)["labels"])
    for epoch in epochs:
        for name, column in again(samples).items():
            assert torch.equal(column, epoch[name])


def test_a_frozen_collator_gives_a_sample_the_same_mask_wherever_it_stands(ranks, tokenizer):
    samples = [{"input_ids": tokenizer(sequence)["input_ids"]} for sequence in sequences(8)]
    collator = gd.MLMCollator("genemask", ranks, frozen=True)
    batch, reverse = collator(samples), collator(samples[::-1])
    assert torch.equal(batch["input_ids"], reverse["input_ids"].flip(0))
    assert torch.equal(batch["labels"], reverse["labels"].flip(0))


def test_masks_differ_between_epochs_with_workers(ranks, tokenizer):
    samples = [{"input_ids": tokenizer(sequence)["input_ids"]} for sequence in sequences(16)]

    def epochs():
        generator = torch.Generator().manual_seed(3)
        collator = gd.MLMCollator("genemask", ranks)
        loader = DataLoader(samples, batch_size=4, num_workers=2, collate_fn=collator, generator=generator)
        return [torch.cat([batch["labels"] for batch in loader]) for _ in range(2)]

    (first, second), (first_again, second_again) = epochs(), epochs()
    assert not torch.equal(first, second)
    assert torch.equal(first, first_again)
    assert torch.equal(second, second_again)


def test_a_sample_without_ids_or_with_ids_of_another_k_is_refused(ranks):
    with pytest.raises(ValueError, match=r"a sample has text: MLMCollator needs 'input_ids'"):
        gd.MLMCollator("genemask", ranks)([{"text": "ACGT"}])
    with pytest.raises(ValueError, match=r"token ids 5\.\.9000 are not of k = 6.*KmerTokenizer"):
        gd.MLMCollator("genemask", ranks)([{"input_ids": [5, 9000]}])


FORMS = {
    "dicts": lambda ids, columns: [{"input_ids": row} for row in ids],
    "lists": lambda ids, columns: ids,
    "tensors": lambda ids, columns: [torch.tensor(row) for row in ids],
    "arrays": lambda ids, columns: [np.array(row) for row in ids],
    "columns": lambda ids, columns: [
        {"input_ids": row} | {name: values[i] for name, values in columns.items()} for i, row in enumerate(ids)
    ],
}


@pytest.mark.parametrize("return_tensors", [None, "pt", "np"])
@pytest.mark.parametrize("form", FORMS)
def test_it_takes_and_gives_what_the_collator_of_transformers_does(form, return_tensors, ranks, tokenizer):
    ids = [tokenizer(sequence)["input_ids"] for sequence in [*sequences(5), "ACGTACGTTT"]]
    columns = {
        "attention_mask": [[1] * (len(row) - 3) + [0] * 3 for row in ids],
        "token_type_ids": [[0] * 4 + [1] * (len(row) - 4) for row in ids],
        "special_tokens_mask": [[1, 0, 0, 1] + [0] * (len(row) - 5) + [1] for row in ids],
    }
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm_probability=1.0)
    expected = theirs(FORMS[form](ids, columns))
    batch = gd.MLMCollator("random-token", ranks)(FORMS[form](ids, columns), return_tensors=return_tensors)
    kind = np.ndarray if return_tensors == "np" else torch.Tensor
    assert all(isinstance(column, kind) for column in batch.values())
    for name in expected.keys() - {"input_ids", "labels"}:
        np.testing.assert_array_equal(np.asarray(batch[name]), np.asarray(expected[name]), err_msg=name)
    labels, theirs_labels = np.asarray(batch["labels"]), np.asarray(expected["labels"])
    assert labels.shape == theirs_labels.shape
    assert (labels != -100).any()
    assert (theirs_labels[labels != -100] == labels[labels != -100]).all()  # they choose every token that they may
    seen = np.asarray(batch["input_ids"])
    padded = np.asarray(tokenizer.pad({"input_ids": ids}, return_tensors="np")["input_ids"])
    assert (np.where(labels != -100, labels, seen) == padded).all()


def test_tokens_that_are_not_attended_to_are_not_masked(ranks):
    ids = list(range(5, 105))
    sample = {"input_ids": ids, "attention_mask": [1] * 40 + [0] * 60}
    masked = [gd.MLMCollator("genemask", ranks, seed=seed)([sample])["labels"][0] != -100 for seed in range(20)]
    assert any(one[:40].any() for one in masked)
    assert not any(one[40:].any() for one in masked)


def test_samples_that_make_no_batch_are_refused(ranks):
    collator = gd.MLMCollator("genemask", ranks)
    with pytest.raises(ValueError, match="no samples are given"):
        collator([])
    with pytest.raises(ValueError, match="return_tensors = 'tf'; give 'pt' or 'np'"):
        collator([[5, 6]], return_tensors="tf")
    with pytest.raises(ValueError, match=r"different lengths: {'input_ids': 2, 'attention_mask': 3}"):
        collator([{"input_ids": [5, 6], "attention_mask": [1, 1, 1]}])
    with pytest.raises(ValueError, match=r"input_ids of a sample has shape \(1, 2\)"):
        collator([[[5, 6]]])
    with pytest.raises(ValueError, match="give a list of integers"):
        collator([{"input_ids": [5.5, 6]}])
    with pytest.raises(ValueError, match=r"token ids -1\.\.3 are not of k = 6"):
        collator([[-1, 3]])
    assert collator([[], [2, 3]])["labels"].tolist() == [[-100, -100]] * 2
    assert collator([[]])["labels"].shape == (1, 0)


@pytest.mark.filterwarnings("default")  # what other libraries warn of is theirs
def test_a_hugging_face_trainer_trains_with_it(ranks, tokenizer, tmp_path):
    samples = [dict(tokenizer(sequence)) for sequence in sequences(32)]
    config = BertConfig(
        vocab_size=4101,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=128,
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer = Trainer(
        model=BertForMaskedLM(config),
        args=arguments,
        train_dataset=samples,
        eval_dataset=samples[:8],
        data_collator=gd.MLMCollator("genemask", ranks, frozen=True),
        processing_class=tokenizer,
    )
    trainer.train()
    history = trainer.state.log_history
    assert trainer.state.global_step == 4
    assert sum("loss" in entry for entry in history) == 4
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert len(losses) == 2
    assert all(abs(loss - np.log(4101)) < 1 for loss in losses)
