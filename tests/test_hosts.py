"""Hosts that iterate a loader: PyTorch's DataLoader, the Hugging Face Trainer, Lightning, and people with islice."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

import gemsdata as gd
from tests.stream_support import make_set

ADVICE = r"is iterated itself.*docs/stream\.md"
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


def test_a_trainer_of_hugging_face_trains_every_epoch(shards, tmp_path):
    seen = []

    class StreamTrainer(Trainer):
        def get_train_dataloader(self):
            return gd.prepare(self.accelerator, loader)

        def compute_loss(self, model, inputs, *arguments, **options):
            seen.append(inputs["step"])
            return super().compute_loss(model, gd.model_inputs(inputs), *arguments, **options)

    arguments = TrainingArguments(
        str(tmp_path), num_train_epochs=2, report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no"
    )
    loader = gd.build_loader(shards, batch_size=7, num_steps=5)
    trainer = StreamTrainer(tiny_model(), arguments)
    trainer.train()
    assert seen == [0, 1, 2, 3, 4] * 2
    assert trainer.state.global_step == 10


def test_lightning_trains_every_epoch(shards, tmp_path):
    import lightning

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.seen = tiny_model(), []

        def training_step(self, batch, index):
            self.seen.append(batch["step"])
            return self.model(**gd.model_inputs(batch)).loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model = Model()
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, gd.build_loader(shards, batch_size=7, num_steps=5))
    assert model.seen == [0, 1, 2, 3, 4] * 2


def test_a_loader_given_as_a_data_set_says_what_to_do(shards, tmp_path):
    loader = gd.build_loader(shards, batch_size=7, num_steps=5)
    for options in ({}, {"shuffle": True}, {"batch_size": None}):
        with pytest.raises(TypeError, match=ADVICE):
            next(iter(DataLoader(loader, **options)))
    with pytest.raises(TypeError, match=r"the stream is endless.*is iterated itself"):
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
    with pytest.raises(RuntimeError, match=r"every worker\s+would give every batch; build it in the main process"):
        list(foreign)
    assert len(list(DataLoader(_Rewrapped(shards, loader), batch_size=None))) == 4  # without workers there is no harm
