"""Checkpoints: everything that a run needs to go on as if it had never stopped, published by rename.

RUN/checkpoints/step-00000500/ is a Hugging Face model folder (config.json, model.safetensors) with optimizer.pt,
rng-<process>.pt and state.json beside. Tensors are read with ``weights_only=True``: no checkpoint runs code.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_model
from transformers import BertForMaskedLM

import gemsdata as gd
from gemsdata.files.publish import sync_folder

VERSION = 1


def folder_of(run: Path, step: int) -> Path:
    """Return where the checkpoint after ``step`` updates stands."""
    return run / "checkpoints" / f"step-{step:08d}"


def all_of(run: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def save(
    folder: Path,
    *,
    accelerator: Accelerator,
    bert: BertForMaskedLM,
    optimizer: torch.optim.Optimizer,
    loader: dict[str, Any],
    step: int,
    config: dict[str, Any],
) -> None:
    """Write a checkpoint under its final name at once; call it on every process. One that is there is kept."""
    if folder.exists():
        return
    temporary = folder.with_name(f"_{folder.name}.tmp")
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    torch.save(_rng_state(), temporary / f"rng-{accelerator.process_index}.pt")
    if accelerator.is_main_process:
        bert.save_pretrained(temporary, save_original_format=False)
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
        torch.save({"optimizer": optimizer.state_dict(), "scaler": scaler}, temporary / "optimizer.pt")
        state = {"version": VERSION, "step": step, "loader": loader, "config": config}
        (temporary / "state.json").write_text(json.dumps(state, indent=1))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _publish(temporary, folder)
    accelerator.wait_for_everyone()


def keep_last(run: Path, count: int, accelerator: Accelerator) -> None:
    """Remove all but the ``count`` newest checkpoints."""
    for folder in all_of(run)[:-count] if accelerator.is_main_process else []:
        doomed = folder.with_name(f"_{folder.name}.old")
        os.replace(folder, doomed)  # so that no half-removed checkpoint stands under its name
        shutil.rmtree(doomed)


def read_state(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json; raise ValueError when it is none of ours or too new."""
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{folder} is no checkpoint ({error}); remove it, and --resume takes the one before"
        ) from error
    if state["version"] > VERSION:
        raise ValueError(f"{folder} has version {state['version']}; this program reads up to {VERSION}: upgrade it")
    return state


def load(
    folder: Path,
    *,
    accelerator: Accelerator,
    bert: BertForMaskedLM,
    optimizer: torch.optim.Optimizer,
    loader: gd.Loader,
) -> int:
    """Restore weights, optimizer, stream and random numbers; return the updates done. Raises ValueError on a misfit."""
    state = read_state(folder)
    loader.load_state_dict(state["loader"])
    load_model(bert, folder / "model.safetensors")
    tensors = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    optimizer.load_state_dict(tensors["optimizer"])
    if accelerator.scaler is not None and tensors["scaler"]:
        accelerator.scaler.load_state_dict(tensors["scaler"])
    rng = folder / f"rng-{accelerator.process_index}.pt"
    if rng.exists():  # not with more processes than before; then dropout goes on with other numbers
        _restore_rng(torch.load(rng, map_location="cpu", weights_only=True))
    return int(state["step"])


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
