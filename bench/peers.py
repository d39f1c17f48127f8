"""Import other loaders without dependencies that they do not use."""

from __future__ import annotations

import importlib.machinery
import sys
import types


def stub_torchvision() -> None:
    """Let mosaicml-streaming import without torchvision, which it only needs as a base for image classes."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name, attribute in (
            ("torchvision", "io"),
            ("torchvision.datasets", "VisionDataset"),
            ("torchvision.transforms", "functional"),
            ("torchvision.transforms.functional", "to_tensor"),
        ):
            module = types.ModuleType(name)
            module.__path__ = []
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            setattr(module, attribute, type(attribute, (), {}))
            sys.modules[name] = module
