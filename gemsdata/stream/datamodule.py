"""A LightningDataModule over gemsdata loaders."""

from __future__ import annotations

from collections.abc import Callable

from lightning import LightningDataModule

from gemsdata.stream.loader import Loader
from gemsdata.stream.passes import Passes


class LoaderDataModule(LightningDataModule):
    """Training and validation batches for a Lightning Trainer.

    Loaders are made in `setup`, when the process group is initialised and a loader can get its rank. Lightning's
    checkpoints contain the state of the training loader; validation always starts with its first row, also after a
    sanity check.

    Parameters
    ----------
    train
        function that returns the training loader, such as ``lambda: gd.build_loader(...)``; the loader needs a length
        (num_steps or num_epochs), which is one epoch of Lightning.
    valid
        function that returns the validation loader, with a length; None: no validation.
    """

    def __init__(self, train: Callable[[], Loader], valid: Callable[[], Loader] | None = None) -> None:
        super().__init__()
        self._make = {"train": train, "valid": valid}
        self.train_loader: Loader | None = None
        """None before `setup`"""
        self.valid_loader: Loader | None = None

    def setup(self, stage: str) -> None:
        """Make the loaders; raise ValueError for one without a length."""
        if self.train_loader is not None:
            return
        made = {name: make() for name, make in self._make.items() if make is not None}
        for name, loader in made.items():
            if loader.num_steps is None:
                raise ValueError(f"the {name} loader has no length: give build_loader num_steps or num_epochs")
        self.train_loader, self.valid_loader = made["train"], made.get("valid")

    def train_dataloader(self) -> Passes:
        """Return the training batches; each epoch is a pass over the loader."""
        assert self.train_loader is not None
        return Passes(self.train_loader, from_start=False)

    def val_dataloader(self) -> Passes | list:
        """Return the validation batches."""
        return [] if self.valid_loader is None else Passes(self.valid_loader, from_start=True)
