"""Checkpoints: everything a run needs to continue exactly where it stopped, published by rename.

RUN/checkpoints/step-00000500/ is a Hugging Face model folder (config.json, model.safetensors) with the additional files
optimizer.pt, rng-<process>.pt and state.json. state.json contains the xxh3 of every other file, so that a damaged
checkpoint is rejected. Tensors are read with ``weights_only=True``: reading a checkpoint never runs code.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from transformers import PreTrainedModel

import gemsdata as gd
from gemsdata.files.hashing import xxh3_of
from gemsdata.files.publish import sync_folder

VERSION = 2


@dataclass(kw_only=True)
class TrainingState:
    """The parts of a run that change while it runs."""

    accelerator: Accelerator
    model: torch.nn.Module
    """the `MaskedLM`, prepared by accelerate"""
    hf_model: PreTrainedModel
    """the Hugging Face model inside it"""
    optimizer: torch.optim.Optimizer
    loader: gd.Loader
    config: dict[str, Any]
    """options of the run"""
    step: int = 0
    """number of completed updates"""

    def save_model(self, folder: Path) -> None:
        """Write the Hugging Face model folder; call it on every process."""
        weights = _weights(self)[0]
        if self.accelerator.is_main_process:
            self.hf_model.save_pretrained(folder, state_dict=weights, save_original_format=False)


def folder_of(run: Path, step: int) -> Path:
    """Return the folder of the checkpoint after ``step`` updates."""
    return run / "checkpoints" / f"step-{step:08d}"


def all_of(run: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def save(folder: Path, state: TrainingState, *, loader: dict[str, Any] | None = None) -> None:
    """Publish a checkpoint; call it on every process. An existing one is kept.

    ``loader`` replaces the loader's own state.
    """
    if folder.exists():
        return
    accelerator = state.accelerator
    temporary = folder.with_name(f"_{folder.name}.tmp")
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    torch.save(_rng_state(), temporary / f"rng-{accelerator.process_index}.pt")
    weights, optimizer = _weights(state)
    if accelerator.is_main_process:
        state.hf_model.save_pretrained(temporary, state_dict=weights, save_original_format=False)
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
        torch.save({"optimizer": optimizer, "scaler": scaler}, temporary / "optimizer.pt")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        files = {path.name: xxh3_of(path) for path in sorted(temporary.iterdir())}
        content = {
            "version": VERSION,
            "step": state.step,
            "loader": state.loader.state_dict() if loader is None else loader,
            "config": state.config,
            "files": files,
        }
        (temporary / "state.json").write_text(json.dumps({**content, "xxh3": _digest(content)}, indent=1))
        _publish(temporary, folder)
    accelerator.wait_for_everyone()


def keep_last(run: Path, count: int, accelerator: Accelerator) -> None:
    """Remove all but the ``count`` newest checkpoints."""
    for folder in all_of(run)[:-count] if accelerator.is_main_process else []:
        removed = folder.with_name(f"_{folder.name}.old")
        os.replace(folder, removed)  # so that its name never refers to an incomplete checkpoint
        shutil.rmtree(removed)


def remove_unfinished(run: Path) -> None:
    """Remove the files of a process that was killed while it wrote or removed a checkpoint."""
    for folder in (run / "checkpoints").glob("_step-*"):
        shutil.rmtree(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint's state.json.

    Raises ValueError if there is none, if it or a file beside it is damaged, or if the version is newer.
    """
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        version, digest = state["version"], state.pop("xxh3", None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, f"state.json: {error}") from error
    if version != VERSION:
        raise ValueError(f"{folder} has version {version!r:.40}, this program reads {VERSION}; begin a new run")
    if digest != _digest(state):
        raise _damaged(folder, "state.json was changed")
    kinds = {"step": int, "loader": dict, "config": dict, "files": dict}
    wrong = [name for name, kind in kinds.items() if type(state.get(name)) is not kind]
    if wrong or state["step"] < 0:
        raise _damaged(folder, f"state.json has no valid {wrong[0] if wrong else 'step'}")
    for name, expected in state["files"].items():
        path = folder / name
        if not path.exists() or xxh3_of(path) != expected:
            raise _damaged(folder, f"{name} {'was changed' if path.exists() else 'is missing'}")
    return state


def load(folder: Path, state: TrainingState) -> None:
    """Restore weights, optimizer, stream, random numbers and step; raise ValueError for a damaged checkpoint."""
    saved = read_state(folder)
    state.loader.load_state_dict(saved["loader"])
    try:
        weights = {f"model.{name}": values for name, values in load_file(folder / "model.safetensors").items()}
        tensors = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)  # tied weights are saved once
        set_state_dict(
            state.model,
            _bare(state.optimizer),
            model_state_dict=weights,
            optim_state_dict=tensors["optimizer"],
            options=options,
        )
        state.hf_model.tie_weights()
        scaler = state.accelerator.scaler
        if scaler is not None and tensors["scaler"]:
            scaler.load_state_dict(tensors["scaler"])
        rng = folder / f"rng-{state.accelerator.process_index}.pt"
        if rng.exists():  # with more processes than before there is none; dropout then uses other random numbers
            _restore_rng(torch.load(rng, map_location="cpu", weights_only=True))
    except MemoryError:
        raise
    except Exception as error:  # torch may raise any exception for invalid content
        raise _damaged(folder, str(error)) from error
    state.step = saved["step"]


def _weights(state: TrainingState) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the full state of the Hugging Face model and of the optimizer, also if FSDP has sharded them."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, optimizer = get_state_dict(state.model, _bare(state.optimizer), options=options)
    return {name.removeprefix("model."): values for name, values in weights.items()}, optimizer


def _bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _damaged(folder: Path, reason: str) -> ValueError:
    reason = (reason or "unknown").splitlines()[0][:200]
    return ValueError(f"{folder} is not a complete checkpoint ({reason}); remove it to resume from the one before")


def _digest(content: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(content, sort_keys=True).encode())


def _rng_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_rng(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _publish(temporary: Path, folder: Path) -> None:
    for path in temporary.iterdir():
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(temporary)
    os.replace(temporary, folder)
    sync_folder(folder.parent)
