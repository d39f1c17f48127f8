"""A campaign in slices: its pieces are valid commands, done once, and continued where they can be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.fewshot.__main__ import FewshotConfig
from eval.gue.__main__ import GueConfig
from tests.train_support import REPOSITORY
from tools.gpu_campaign import check, rates
from tools.gpu_campaign.data import prepare, prepare_toy
from tools.gpu_campaign.plan import Piece, full_scale, pieces, toy_scale
from tools.gpu_campaign.report import write_report
from tools.gpu_campaign.slices import read_record, remaining, run_slice
from train.config import PretrainConfig
from train.options import parsed

pytestmark = pytest.mark.once

CONFIGS = {"train.pretrain": PretrainConfig, "eval.fewshot": FewshotConfig, "eval.gue": GueConfig}


def statement(text: str, name: str = "piece", **options) -> Piece:
    """A piece that runs a statement."""
    arguments = ("-n", "1", "-r", "1", text)
    return Piece(name=name, module="timeit", arguments=arguments, **{"minutes": 0.01, **options})


def appended(path: Path, name: str, **options) -> Piece:
    return statement(f"open({str(path)!r}, 'a').write({name!r})", name, **options)


@pytest.mark.parametrize("scale", [full_scale(), toy_scale()], ids=["full", "toy"])
def test_every_piece_is_a_valid_command(scale, tmp_path):
    for split in ("train", "dev", "test"):
        path = tmp_path / "gue" / "mouse" / "0" / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("sequence,label\n")
    found = pieces(scale, tmp_path, tmp_path / "out", mixed_precision="bf16")
    assert len({piece.name for piece in found}) == len(found)
    for piece in found:
        if piece.module in CONFIGS:
            with parsed(CONFIGS[piece.module], piece.arguments, prog=piece.module, description="") as (config, _):
                assert config.mixed_precision == "bf16"
                config.resolved() if piece.module == "train.pretrain" else None
            assert piece.resumable
        else:
            command = {"tools.gpu_campaign.check": check, "tools.gpu_campaign.rates": rates}[piece.module].main
            command.make_context(piece.module, list(piece.arguments))
    kinds = [piece.name.split("-")[0] for piece in found]
    of_a_seed = ["pretrain"] * len(scale.arms) + ["fewshot", "gue"]
    assert kinds == ["check"] + ["rate"] * kinds.count("rate") + of_a_seed * len(scale.seeds)


def test_finished_pieces_are_not_repeated_and_failed_ones_tried_twice(tmp_path):
    log = tmp_path / "log"
    plan = [appended(log, "a"), statement("1 / 0", "b"), appended(log, "c")]
    for _ in range(3):
        run_slice(plan, tmp_path, minutes=5, slice_minutes=5, grace_s=0)
    assert log.read_text() == "ac"
    record = read_record(tmp_path, plan[1])
    assert (record.status, record.num_failures) == ("failed", 2)
    assert record.message.startswith("ZeroDivisionError")
    assert remaining(plan, tmp_path) == []


@pytest.mark.parametrize("resumable", [True, False])
def test_the_end_of_a_slice_interrupts_a_piece(tmp_path, resumable):
    began = time.monotonic()
    plan = [statement("import time; time.sleep(60)", resumable=resumable), appended(tmp_path / "log", "next")]
    run_slice(plan, tmp_path, minutes=5, slice_minutes=1.5 / 60, grace_s=0.5)
    assert time.monotonic() - began < 30
    record = read_record(tmp_path, plan[0])
    assert (record.status, record.num_failures) == (("unfinished", 0) if resumable else ("failed", 1))
    assert remaining(plan, tmp_path) == plan
    assert 0.9 < record.seconds < 30


def test_pieces_start_only_if_their_time_is_left(tmp_path):
    log = tmp_path / "log"
    plan = [appended(log, "long", minutes=4), appended(log, "short", minutes=1)]
    run_slice(plan, tmp_path, minutes=2, slice_minutes=9, grace_s=0)
    assert log.read_text() == "short"
    run_slice(plan, tmp_path, minutes=9, slice_minutes=2, grace_s=0)
    assert log.read_text() == "short"
    run_slice(plan, tmp_path, minutes=9, slice_minutes=9, grace_s=0)
    assert log.read_text() == "shortlong"


def test_the_report_shows_what_is_there(tmp_path):
    plan = pieces(toy_scale(), tmp_path, tmp_path, mixed_precision="bf16")
    text = write_report(plan, toy_scale(), tmp_path).read_text()
    assert f"0 of {len(plan)} pieces are complete; the next is check" in text
    (tmp_path / "rates").mkdir()
    for side, rate in (("plain", 100.0), ("gemsdata", 250.0)):
        content = {"side": side, "model": "logo", "compiled": False, "device": "X", "rows_per_s": rate, "mfu": 0.25,
                   "computed_share": 0.5, "peak_tflops": 10.0, "peak_from": "data sheet",
                   "data_wait_share": 0.001}  # fmt: skip
        (tmp_path / "rates" / f"logo-{side}.json").write_text(json.dumps(content))
    text = write_report(plan, toy_scale(), tmp_path).read_text()
    assert "| logo | gemsdata | 250.0 | 2.50 | 25.0% | 12.5% | 0.10% |" in text


def test_data_that_exist_or_lack_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"exists; remove it"):
        prepare_toy(tmp_path)
    with pytest.raises(ValueError, match=r"has none of Prom-core"):
        prepare(tmp_path / "genome.fa", tmp_path, tmp_path, tmp_path / "new", gue_tasks=())


@pytest.mark.slow
@pytest.mark.compiled
def test_a_dry_run_ends_in_two_slices(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tools.gpu_campaign",
        "--dry-run",
        "--output-dir",
        str(tmp_path),
        "--minutes",
        "30",
    ]
    for slice_minutes in ("3.2", "20"):
        options = ["--slice-minutes", slice_minutes]
        done = subprocess.run([*command, *options], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "all pieces are done" in done.stdout
    text = (tmp_path / "report.md").read_text()
    assert "failed" not in text
    assert "Passed on CPU" in text
    assert text.count("| complete |") == 7
