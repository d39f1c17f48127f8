"""The fuzzer finds crashes and wrong answers, and its findings stay mended: a short run of every format."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tools.fuzz import runner
from tools.fuzz.__main__ import all_targets
from tools.fuzz.mutations import mutate_json
from tools.fuzz.runner import WrongAnswer, mutated_input, run_target
from tools.fuzz.shard_targets import ShardTarget
from tools.fuzz.training_targets import CheckpointTarget
from train.labelled import read_labelled

pytestmark = pytest.mark.once
SLOW = ("manifest of a view", "webdataset shard of a view, zstd")
NAMES = [
    pytest.param(target.name, marks=pytest.mark.slow) if target.name in SLOW else target.name
    for target in all_targets(Path("unused"))
]


class Misbehaving:
    """Numbers from 0 to 9, each of which has its own fate."""

    name = "misbehaving"

    def prepare(self) -> None:
        pass

    def seeds(self) -> Sequence[int]:
        return [0]

    def mutate(self, seed: int, generator: random.Random) -> int:
        return generator.randrange(8)

    def run(self, content: int) -> None:
        if content == 1:
            raise ValueError("one line")
        if content == 2:
            raise ValueError("two\nlines")
        if content == 3:
            os.kill(os.getpid(), signal.SIGBUS)
        if content == 4:
            raise WrongAnswer("four")
        if content == 5:
            bytearray(1 << 40)
        if content == 6:
            raise KeyError(6)
        if content == 7:
            os._exit(7)


def test_every_kind_of_failure_is_classed() -> None:
    target = Misbehaving()
    inputs = [mutated_input(target, 1, index) for index in range(40)]
    outcome = run_target(target, 40, 1)
    assert outcome.right == inputs.count(0)
    assert outcome.refused == inputs.count(1)
    assert outcome.bugs == 40 - outcome.right - outcome.refused
    said = {inputs[example["index"]]: example["error"] for example in outcome.examples}
    assert said == {
        2: "ValueError: two\nlines",
        3: "the process died: killed by SIGBUS",
        4: "WrongAnswer: four",
        5: "MemoryError: ",
        6: "KeyError: 6",
        7: "the process died: exit status 7",
    }


def test_a_hang_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(Misbehaving):
        def run(self, content: int) -> None:
            while content:
                pass

    monkeypatch.setattr(runner, "_TRY_SECONDS", 0.05)
    outcome = run_target(Hanging(), 4, 1)
    inputs = [mutated_input(Hanging(), 1, index) for index in range(4)]
    assert outcome.bugs == sum(map(bool, inputs)) > 0
    assert {example["error"] for example in outcome.examples} == {"more than 0.05 s"}


def test_numbers_beyond_floats_are_mutated() -> None:
    content = json.dumps([10**400, -(10**400), 1]).encode()
    assert len({mutate_json(content, random.Random(seed)) for seed in range(60)}) > 20


@pytest.mark.parametrize("name", NAMES)
def test_a_short_run_finds_nothing(tmp_path: Path, name: str) -> None:
    (target,) = [target for target in all_targets(tmp_path) if target.name == name]
    outcome = run_target(target, 60, seed=7)
    assert outcome.bugs == 0, outcome.examples
    assert outcome.refused > 0


class BrokenLengths(ShardTarget):
    """Arrow shards in which one length or offset of the metadata is another number."""

    name = "lengths"

    def mutate(self, seed: bytes, generator: random.Random) -> bytes:
        first = seed.index(b"\xff\xff\xff\xff", 16)  # the first record batch, after the schema
        at = first + 8 * generator.randrange(60)
        number = generator.choice([-1, 0, 1, 7, 1 << 31, -(1 << 40)])
        return seed[:at] + struct.pack("<q", number) + seed[at + 8 :]


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_no_length_in_an_arrow_shard_ends_the_process(tmp_path: Path, compression: str) -> None:
    outcome = run_target(BrokenLengths(tmp_path, "arrow", compression), 400, seed=0)
    assert outcome.bugs == 0, outcome.examples
    assert outcome.refused > 20


@pytest.mark.parametrize("header", [b"{'descr': '<u2', 'a(': (4", b"(" * 90, b"{%descr': 1}", b"lambda", b"0x"])
def test_a_damaged_header_in_a_tar_is_one_line(tmp_path: Path, header: bytes) -> None:
    target = ShardTarget(tmp_path, "webdataset")
    target.prepare()
    (content,) = target.seeds()
    at = content.index(b"\x93NUMPY") + 10
    size = int.from_bytes(content[at - 2 : at], "little")
    mutant = content[:at] + header.ljust(size - 1) + b"\n" + content[at + size :]
    with pytest.raises(ValueError, match=r"block 0 is damaged: [^\n]*$"):
        target.run(mutant)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_files(content: bytes) -> bytes:
    return json.dumps({name: value for name, value in json.loads(content).items() if name != "files"}).encode()


CHECKPOINTS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "deep": ("state.json", lambda _: b"[" * 100_000),
    "lines in the version": ("state.json", lambda text: text.replace(b'"version": 2', b'"version": "\\u0000\\n"')),
    "files": ("state.json", without_files),
    "cut optimizer": ("optimizer.pt", cut),
    "cut random numbers": ("rng-0.pt", cut),
    "cut weights": ("model.safetensors", cut),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_damaged_checkpoint_with_right_hashes_is_one_line(tmp_path: Path, name: str) -> None:
    target = CheckpointTarget(tmp_path)
    target.prepare()
    file, change = CHECKPOINTS[name]
    content = next(content for seed, content, _ in target.seeds() if seed == file)
    with pytest.raises(ValueError, match=r"checkpoint[^\n\0]*$") as raised:
        target.run((file, change(content), True))
    assert raised.type is ValueError


@pytest.mark.parametrize(
    "content", [b"sequence,label\n\xff,1\n", b"a\0,b\nA,1\n", b"sequence,label\n" + b"A" * 140_000 + b",1\n"]
)
def test_damaged_labelled_files_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.csv[^\n\0]*$") as raised:
        read_labelled(path)
    assert raised.type is ValueError
