"""The mutants that tools.mutants makes: each changes one place, and has a name of its own."""

from __future__ import annotations

import types

import pytest

from tools.mutants.operators import REPOSITORY, code_of, mutants_of

pytestmark = pytest.mark.once


@pytest.mark.parametrize("name", ["stream/order.py", "npmi/counts.py", "kernels/keys.py"])
def test_every_mutant_has_a_name_of_its_own_and_compiles(name: str) -> None:
    found = mutants_of(REPOSITORY / "gemsdata" / name)
    assert len({mutant.key for mutant in found}) == len(found) > 10
    assert all(mutant.before != mutant.after for mutant in found)
    assert all(isinstance(code_of(mutant), types.CodeType) for mutant in found[:5])


def test_the_mutant_that_repeats_epoch_0_is_among_them() -> None:
    keys = [mutant.key for mutant in mutants_of(REPOSITORY / "gemsdata/stream/order.py")]
    assert [key for key in keys if "_epoch_rows(epoch" in key and "_epoch_rows(0" in key]


def test_messages_and_constants_of_modules_are_not_changed() -> None:
    for mutant in mutants_of(REPOSITORY / "gemsdata/shards/windows.py"):
        assert mutant.scope
        assert "raise" not in mutant.before
