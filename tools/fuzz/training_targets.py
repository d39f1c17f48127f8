"""Fuzz targets: input of training (labelled sequences, loader states, checkpoints) and of the service."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from accelerate import Accelerator
from safetensors.numpy import load_file
from transformers import BertConfig, BertForMaskedLM

import gemsdata as gd
from gemsdata.files.hashing import xxh3_of
from gemsdata.lint.labelled_file import read_file
from gemsdata.service.batch_request import BatchRequest
from gemsdata.stream.state import LoaderState
from tools.fuzz.mutations import mutate_bytes, mutate_json
from tools.fuzz.runner import WrongAnswer
from tools.fuzz.shard_targets import make_set
from train import checkpoint
from train.labelled import read_labelled
from train.masked_lm import MaskedLM

_JSON_WORDS = (b"null", b"-1", b'"x"', b"[]", b"{}", b"1e999", b"NaN", b"[" * 2000, b"9" * 5000, b"\\ud800")


class LabelledTarget:
    """Labelled TSV or CSV, read by training and by lint."""

    def __init__(self, folder: Path, delimiter: str) -> None:
        self._delimiter = delimiter
        self.name = "labelled TSV" if delimiter == "\t" else "labelled CSV"
        self._path = folder / f"mutant.{self.name[-3:].lower()}"

    def prepare(self) -> None:
        """Nothing to make."""

    def seeds(self) -> Sequence[bytes]:
        """Return a file of bases, and one of k-mer text with quotes and Windows line ends."""
        d = self._delimiter
        plain = [f"sequence{d}label", f"ACGTACGT{d}0", f"acgt{d}1", f"TTTTACGA{d}1", f"GGG{d}0"]
        kmers = [f"label{d}sequence{d}x", f'0{d}"ACG CGT GTA"{d}', f"1{d}AAA AAC{d}z", f"1{d}TTT{d}q"]
        return ["\n".join(plain).encode(), ("\r\n".join(kmers) + "\r\n").encode()]

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        """Return a mutated file."""
        words = (b'"', b'""', b"\n", b"\r", b"\t", b",", b"\xef\xbb\xbf", b" ", b"N", b"\xff", b"\0", b"A" * 200_000)
        return mutate_bytes(seed, generator, words)

    def run(self, content: bytes) -> None:
        """Read the file with both; compare training's rows with a naive reader, and without quotes also with lint's."""
        self._path.write_bytes(content)
        message = ""
        try:
            linted = read_file(self._path)
        except ValueError as error:
            message = str(error)
            linted = None
        if "\n" in message:
            raise WrongAnswer(f"lint: an error of several lines: {message}")
        rows = read_labelled(self._path, needs_labels=False, other_letters="unk")
        if linted is None:
            raise WrongAnswer(f"training reads what lint refuses: {message}")
        if b'"' not in content and not linted.broken_text_lines and linted.sequences != rows.sequences:
            raise WrongAnswer("lint and training read other sequences")
        if linted.columns != self._naive_columns(content):
            raise WrongAnswer("lint reads other columns")

    def _naive_columns(self, content: bytes) -> list[str]:
        line = content.removeprefix(b"\xef\xbb\xbf").decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")[0]
        cells = next(csv.reader([line], delimiter="\t" if "\t" in line else ","))
        return [cell.strip() for cell in cells]


class LoaderStateTarget:
    """States of a loader: an accepted state must equal the loader's state afterwards, and must give batches."""

    name = "loader state"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Open a loader, which takes one state after the other."""
        shards = make_set(self._folder)
        self._loader = gd.build_loader(shards, batch_size=4, masking="cm-gems", stage_lag=130, seed=5)
        self._seed = json.dumps(self._loader.state_dict()).encode()

    def seeds(self) -> Sequence[bytes]:
        """Return the state after no batch, and one in a later stage."""
        later = json.loads(self._seed)
        later.update(step=300, stage_log=[[0, 0], [250, 1]], perplexities=[[100, 9.5], [200, 9.4]])
        return [self._seed, json.dumps(later).encode()]

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        """Return a mutated state."""
        if generator.random() < 0.3:
            return mutate_bytes(seed, generator, _JSON_WORDS)
        return mutate_json(seed, generator)

    def run(self, content: bytes) -> None:
        """Load the state and take a batch; a rejected state leaves the loader unchanged."""
        state = _json_or_refused(content)
        loader, before = self._loader, self._loader.state_dict()
        try:
            loader.load_state_dict(state)
        except ValueError:
            if loader.state_dict() != before:
                raise WrongAnswer("a state that was refused changed the loader") from None
            raise
        expected = LoaderState.parse(state).to_dict()
        if loader.state_dict() != expected:
            raise WrongAnswer(f"the loader has the state {loader.state_dict()}, not {expected}")
        batch = next(iter(loader))
        if batch["step"] != state["step"]:
            raise WrongAnswer(f"the batch is of step {batch['step']}, the state of {state['step']}")


class BatchRequestTarget:
    """Requests of the service, as JSON."""

    name = "batch request"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Nothing to make."""

    def seeds(self) -> Sequence[bytes]:
        """Return requests with and without mixture, ranks and stages."""
        first = BatchRequest(
            fingerprint="0" * 64,
            split="train",
            check="size",
            faults="raise",
            seed=1,
            shuffle=True,
            remainder="drop",
            weights=None,
            global_batch=8,
            rank=0,
            num_ranks=2,
            reverse_complement=0.5,
            maskings=(gd.GeneMask(), gd.GlobalMask()),
            first_step=3,
            num_steps=4,
            stage_log=((0, 0), (5, 1)),
        )
        content = json.loads(first.to_json())
        content.update(weights=[1, 0.5], ranks="AQAAAAIAAAA=", shuffle=1000)
        return [first.to_json(), json.dumps(content).encode()]

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        """Return a mutated request."""
        if generator.random() < 0.4:
            return mutate_bytes(seed, generator, _JSON_WORDS)
        return mutate_json(seed, generator)

    def run(self, content: bytes) -> None:
        """Parse the request, write it and compare the two documents."""
        request = BatchRequest.parse(content)
        written = json.loads(request.to_json())
        given = json.loads(content)
        for name in written.keys() - {"maskings", "reverse_complement", "weights"}:
            if written[name] != given[name]:
                raise WrongAnswer(f"{name} is {given[name]} in the request, and is read as {written[name]}")
        if len(written["maskings"]) != len(given["maskings"]):
            raise WrongAnswer("another number of maskings is read")
        if BatchRequest.parse(request.to_json()) != request:
            raise WrongAnswer("what is written is read as another request")


class CheckpointTarget:
    """Checkpoints of a training run: one of the files is mutated, half of the time with its hash computed again."""

    name = "checkpoint"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Save a checkpoint of a tiny model."""
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._shards = make_set(self._folder)
        self._accelerator = Accelerator(cpu=True)
        state = self._state()
        batch = torch.randint(5, 69, (2, 8))
        state.hf_model(input_ids=batch, labels=batch).loss.backward()
        state.optimizer.step()
        state.step = 3
        self._good = self._folder / "checkpoint"
        shutil.rmtree(self._good, ignore_errors=True)
        checkpoint.save(self._good, state)
        self._mutant = self._folder / "mutant-checkpoint"
        self._weights = load_file(self._good / "model.safetensors")

    def _state(self) -> checkpoint.TrainingState:
        config = BertConfig(
            vocab_size=69,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
        )
        hf_model = BertForMaskedLM(config)
        model = MaskedLM(hf_model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        loader = gd.build_loader(self._shards, batch_size=4, masking="genemask")
        return checkpoint.TrainingState(
            accelerator=self._accelerator,
            model=model,
            hf_model=hf_model,
            optimizer=optimizer,
            loader=loader,
            config={"seed": 0},
        )

    def seeds(self) -> Sequence[tuple[str, bytes, bool]]:
        """Return (name, content, whether the hash is computed again) of each file."""
        names = ("state.json", "model.safetensors", "optimizer.pt", "rng-0.pt")
        return [(name, (self._good / name).read_bytes(), rehash) for name in names for rehash in (False, True)]

    def mutate(self, seed: tuple[str, bytes, bool], generator: random.Random) -> tuple[str, bytes, bool]:
        """Return the file with a mutated content."""
        name, content, rehash = seed
        if name == "state.json" and generator.random() < 0.7:
            return name, mutate_json(content, generator), rehash
        return name, mutate_bytes(content, generator, _JSON_WORDS if name == "state.json" else ()), rehash

    def run(self, content: tuple[str, bytes, bool]) -> None:
        """Load the checkpoint; its weights and step must match those of a second reader."""
        name, data, rehash = content
        shutil.rmtree(self._mutant, ignore_errors=True)
        shutil.copytree(self._good, self._mutant)
        (self._mutant / name).write_bytes(data)
        if rehash:
            self._rehash(name)
        changed = xxh3_of(self._mutant / name) != xxh3_of(self._good / name)
        state = self._state()
        checkpoint.load(self._mutant, state)
        if (
            changed
            and not rehash
            and json.loads(data if name == "state.json" else b"0")
            != json.loads((self._good / "state.json").read_bytes() if name == "state.json" else b"0")
        ):
            raise WrongAnswer(f"a changed {name} is accepted")
        weights = load_file(self._mutant / "model.safetensors")
        for key, values in state.hf_model.state_dict().items():
            if key in weights and not np.array_equal(values.numpy(), weights[key], equal_nan=True):
                raise WrongAnswer(f"weights {key} are not those of the file")
        if state.step != json.loads((self._mutant / "state.json").read_bytes())["step"]:
            raise WrongAnswer("another step is read")

    def _rehash(self, name: str) -> None:
        path = self._mutant / "state.json"
        try:
            content: Any = json.loads(path.read_bytes())
            if name != "state.json":
                content["files"][name] = xxh3_of(self._mutant / name)
            content.pop("xxh3", None)
            digest = xxhash.xxh3_64_hexdigest(json.dumps(content, sort_keys=True).encode())
            path.write_text(json.dumps({**content, "xxh3": digest}))
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return


def _json_or_refused(content: bytes) -> Any:
    """Return the JSON value; raise a ValueError of one line if there is none, as a caller's own reader would."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("the state is not JSON") from None
