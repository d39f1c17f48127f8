"""Hosts that iterate a loader: PyTorch's DataLoader, the Hugging Face Trainer, Lightning, and people with islice."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

import gemsdata as gd
from tests.genomes import random_dna
from tests.stream_support import make_set
from tests.view_support import packed_set

ADVICE = r"iterate the Loader itself.*docs/stream\.md"
MODES = [{}, {"num_workers": 2, "threads": True}, {"num_workers": 2, "start_method": "fork"}]
pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("default")]  # what other libraries warn of is theirs


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_set(tmp_path_factory.mktemp("hosts") / "set")


def tiny_model():
    return BertForMaskedLM(
        BertConfig(
            vocab_size=69,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            max_position_embeddings=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


@pytest.mark.parametrize("options", MODES)
def test_a_host_that_takes_as_many_batches_as_the_length_says_gets_every_pass(shards, options):
    loader = gd.build_loader(shards, batch_size=7, num_steps=12, **options)
    passes = [[batch["step"] for batch in itertools.islice(loader, len(loader))] for _ in range(3)]
    assert passes == [list(range(12))] * 3


@pytest.mark.parametrize("options", MODES[1:])
def test_the_workers_of_a_finished_pass_are_gone_before_its_last_batch_is_used(shards, options):
    import multiprocessing
    import threading

    def count():
        return len(multiprocessing.active_children()) + sum("gemsdata" in t.name for t in threading.enumerate())

    iterator = iter(gd.build_loader(shards, batch_size=7, num_steps=5, **options))
    counts = [count() for _ in itertools.islice(iterator, 5)]
    assert counts == [2, 2, 2, 2, 0]


class Recorded(gd.LoaderTrainer):
    """Notes the step of every batch that it trains and evaluates on."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.seen, self.evaluated = [], []

    def compute_loss(self, model, inputs, *arguments, **options):
        (self.seen if model.training else self.evaluated).append(inputs["step"])
        return super().compute_loss(model, inputs, *arguments, **options)


def trainer_arguments(folder, **options):
    common = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    return TrainingArguments(str(folder), **{**common, **options})


def test_a_trainer_of_hugging_face_trains_and_evaluates_every_epoch(shards, tmp_path):
    arguments = trainer_arguments(tmp_path, num_train_epochs=2, eval_strategy="epoch")
    train = gd.build_loader(shards, batch_size=7, num_steps=5)
    valid = gd.build_loader(shards, split="valid", batch_size=7, num_steps=2)
    next(iter(valid))  # somebody looked at it
    trainer = Recorded(tiny_model(), arguments, train_dataset=train, eval_dataset={"a": valid, "b": valid})
    trainer.train()
    assert trainer.seen == [0, 1, 2, 3, 4] * 2
    assert trainer.state.global_step == 10
    assert trainer.evaluated == [0, 1] * 4
    losses = [trainer.evaluate(valid)["eval_loss"] for _ in range(2)]
    assert losses[0] == losses[1]
    assert trainer.evaluate()["eval_a_loss"] == losses[0]


@pytest.mark.parametrize("after", [3, 5])
def test_a_trainer_resumes_inside_an_epoch_and_between_two(shards, tmp_path, after):
    """With the batches and the weights of a run that was not interrupted."""

    def trainer(folder, **options):
        torch.manual_seed(0)
        arguments = trainer_arguments(folder, num_train_epochs=2, save_strategy="steps", save_steps=after, **options)
        train = gd.build_loader(shards, batch_size=7, num_steps=5, num_workers=2, threads=True)
        return Recorded(tiny_model().eval(), arguments, train_dataset=train)

    whole = trainer(tmp_path)
    whole.train()
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{after}"))
    assert resumed.seen == whole.seen[after:]
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    (tmp_path / f"checkpoint-{after}" / "stream.json").unlink()
    with pytest.raises(ValueError, match=r"contains no stream\.json: it was not written by a LoaderTrainer"):
        trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{after}"))


def test_a_curriculum_hears_of_the_evaluations_of_a_trainer(shards, tmp_path):
    arguments = trainer_arguments(tmp_path, max_steps=4, eval_strategy="steps", eval_steps=2)
    train = gd.build_loader(shards, masking="cm-gems", batch_size=7, stage_lag=1)
    valid = gd.build_loader(shards, split="valid", batch_size=7, num_steps=1)
    trainer = Recorded(tiny_model(), arguments, train_dataset=train, eval_dataset=valid)
    trainer.train()
    logged = [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]
    assert [step for step, _ in train.perplexities] == [2, 4]
    assert [math.log(value) for _, value in train.perplexities] == pytest.approx(logged)
    trainer.evaluate()
    assert len(train.perplexities) == 2, "an evaluation after training is none of its business"


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    """A view of single bases, half of them soft-masked, which weigh 0.1 in the loss."""
    contigs = {"a": random_dna(900, 1) + random_dna(900, 2).lower()}
    shards = packed_set(tmp_path_factory.mktemp("weighted"), contigs, valid_fraction=0.2)
    return gd.view(shards, tokens="base", row_bases=30, loss_weight_soft_masked=0.1)


def weighted_mean(model, batch):
    """The loss of a batch, in plain words."""
    logits = model(batch["input_ids"], batch["attention_mask"]).logits.detach()
    total, weight = 0.0, 0.0
    for row, position in torch.nonzero(batch["labels"] != -100).tolist():
        share = float(batch["loss_weights"][row, position])
        total -= share * float(logits[row, position].log_softmax(-1)[batch["labels"][row, position]])
        weight += share
    return total / weight


def test_a_trainer_weighs_the_bases_of_a_view(weighted, tmp_path):
    loader = gd.build_loader(weighted, batch_size=8, num_steps=2)
    batches = list(gd.build_loader(weighted, batch_size=8, num_steps=2))
    model = tiny_model().eval()  # the Trainer turns dropout on: it has none
    expected = [weighted_mean(model, batch) for batch in batches]
    arguments = trainer_arguments(tmp_path, max_steps=1, learning_rate=0.0, gradient_accumulation_steps=2)
    trainer = Recorded(model, arguments, train_dataset=loader, eval_dataset=loader)
    trainer.train()
    (logged,) = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert logged == pytest.approx(sum(expected) / 2, rel=1e-3)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(expected) / 2, rel=1e-4)
    unweighted = batches[0] | {"loss_weights": torch.ones_like(batches[0]["loss_weights"])}
    assert weighted_mean(model, unweighted) != pytest.approx(expected[0], rel=1e-3), "the weights matter"


def lightning_trainer(folder, **options):
    import lightning

    common = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(**common, default_root_dir=folder, **{"enable_checkpointing": False, **options})


def lightning_model():
    import lightning

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.seen, self.validated = tiny_model(), [], []

        def training_step(self, batch, index):
            self.seen.append(batch["step"])
            logits = self.model(batch["input_ids"], batch["attention_mask"]).logits
            return gd.masked_lm_loss(logits, batch)

        def validation_step(self, batch, index):
            self.validated.append(batch["step"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Model()


def data_module(source):
    return gd.LoaderDataModule(
        train=lambda: gd.build_loader(source, batch_size=7, num_steps=5, num_workers=1, threads=True),
        valid=lambda: gd.build_loader(source, split="valid", batch_size=2, num_steps=3),
    )


def test_lightning_trains_and_validates_every_epoch(weighted, tmp_path):
    model = lightning_model()
    lightning_trainer(tmp_path, max_epochs=2, num_sanity_val_steps=2).fit(model, datamodule=data_module(weighted))
    assert model.seen == [0, 1, 2, 3, 4] * 2
    assert model.validated == [0, 1] + [0, 1, 2] * 2


@pytest.mark.parametrize("after", [3, 5])
def test_lightning_resumes_inside_an_epoch_and_between_two(shards, tmp_path, after):
    import lightning

    saved = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=after, save_top_k=-1)
    options = {"max_epochs": 2, "num_sanity_val_steps": 0}
    whole = lightning_model()
    trainer = lightning_trainer(tmp_path, callbacks=[saved], enable_checkpointing=True, **options)
    trainer.fit(whole, datamodule=data_module(shards))
    (path,) = [path for path in tmp_path.glob("*.ckpt") if f"step={after}." in path.name]
    resumed = lightning_model()
    lightning_trainer(tmp_path, **options).fit(resumed, datamodule=data_module(shards), ckpt_path=path)
    assert whole.seen == [0, 1, 2, 3, 4] * 2
    assert resumed.seen == whole.seen[after:]


def test_a_data_module_wants_loaders_with_a_length(shards):
    module = gd.LoaderDataModule(train=lambda: gd.build_loader(shards, batch_size=7))
    with pytest.raises(ValueError, match="the train loader has no length: give build_loader num_steps or num_epochs"):
        module.setup("fit")


def test_a_loader_given_as_a_data_set_says_what_to_do(shards, tmp_path):
    loader = gd.build_loader(shards, batch_size=7, num_steps=5)
    for options in ({}, {"shuffle": True}, {"batch_size": None}):
        with pytest.raises(TypeError, match=ADVICE):
            next(iter(DataLoader(loader, **options)))
    with pytest.raises(TypeError, match=r"the stream is endless.*iterate the Loader itself"):
        next(iter(DataLoader(gd.build_loader(shards, batch_size=7))))
    arguments = TrainingArguments(str(tmp_path), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True)
    with pytest.raises(TypeError, match=ADVICE):
        Trainer(tiny_model(), arguments, train_dataset=loader).train()


class _Rewrapped(torch.utils.data.IterableDataset):
    """What people write to get a loader into a DataLoader of their own."""

    def __init__(self, shards, loader=None):
        self.shards, self.loader = shards, loader

    def __iter__(self):
        yield from self.loader or gd.build_loader(self.shards, batch_size=7, num_steps=4)


@pytest.mark.parametrize("built_before", [False, True])
def test_a_loader_in_the_worker_of_another_dataloader_is_refused(shards, built_before):
    loader = gd.build_loader(shards, batch_size=7, num_steps=4) if built_before else None
    foreign = DataLoader(_Rewrapped(shards, loader), batch_size=None, num_workers=2, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match=r"every\s+worker would yield every batch; build it in the main process"):
        list(foreign)
    assert len(list(DataLoader(_Rewrapped(shards, loader), batch_size=None))) == 4  # without workers there is no harm
