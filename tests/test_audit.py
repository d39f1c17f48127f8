"""gemsdata audit and gemsdata show, on a shard set of a small made-up genome with repeats."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from gemsdata.cli import main
from gemsdata.inspect.audit import audit
from gemsdata.inspect.show import mask_row, render_row
from gemsdata.masking import masker as masking
from gemsdata.masking.strategies import resolve
from gemsdata.shards.shard_set import ShardSet
from tests.naive_masking import hidden_bases

pytestmark = pytest.mark.once

LETTERS = np.frombuffer(b"ACGT", np.uint8)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """60 copies (5 % of bases changed, lower case) of a repeat of 300 bases among stretches of 500 to 900."""
    rng = np.random.default_rng(0)
    repeat = rng.choice(LETTERS, 300)
    parts = []
    for _ in range(60):
        copy = np.where(rng.random(300) < 0.05, rng.choice(LETTERS, 300), repeat).astype(np.uint8)
        parts += [rng.choice(LETTERS, rng.integers(500, 900)), copy | 32]
    folder = tmp_path_factory.mktemp("audit")
    (folder / "genome.fa").write_bytes(b">one\n" + b"".join(part.tobytes() for part in parts) + b"\n")
    arguments = [str(folder / "genome.fa"), "-o", str(folder / "out"), "--row-tokens", "100", "--valid-fraction", "0.1"]
    assert main(["shard", *arguments, "--npmi", str(_table(folder))]) == 0
    return ShardSet.open(folder / "out")


def _table(folder):
    assert (
        main(["npmi", str(folder / "genome.fa"), "-o", str(folder / "t.parquet"), "-k", "6", "--min-count", "1"]) == 0
    )
    return folder / "t.parquet"


def test_an_audit_counts_what_a_loop_over_rows_counts(shards):
    strategy = resolve("genemask", budget=0.2)
    result = audit(shards, strategy, num_rows=30)
    row_ids = np.unique(np.linspace(0, shards.num_rows("train") - 1, 30).astype(int))
    rows = shards.read("train", row_ids)
    batch = masking.Masker(strategy, ranks=shards.ranks).batch(rows.input_ids, rows.num_tokens, row_ids)
    tokens = masked_tokens = hidden = bases = by_unmasked = by_kept = soft = soft_masked = left = 0
    runs = Counter()
    at = Counter()
    for i, num_tokens in enumerate(rows.num_tokens.tolist()):
        original = rows.input_ids[i, :num_tokens].tolist()
        seen = batch["input_ids"][i, 1 : num_tokens + 1].tolist()
        masked = {t for t in range(num_tokens) if batch["labels"][i, t + 1] != -100}
        kept = {t for t in masked if seen[t] == original[t]}
        unseen = hidden_bases(masked, num_tokens, 6)
        unseen_left = hidden_bases(masked - kept, num_tokens, 6)
        start = int(rows.start[i])
        lower = shards.soft_masked(int(rows.contig[i]), start, start + num_tokens + 5)
        tokens += num_tokens
        bases += num_tokens + 5
        masked_tokens += len(masked)
        hidden += len(unseen)
        left += len(unseen_left)
        for t in masked:
            at[t] += 1
            covers = set(range(t, t + 6))
            if not covers & unseen:
                by_unmasked += 1
            elif t not in kept and not covers & unseen_left:
                by_kept += 1
            if t - 1 not in masked:
                runs[str(next(n for n in range(1, 200) if t + n not in masked))] += 1
        soft += int(lower[3 : 3 + num_tokens].sum())
        soft_masked += sum(lower[t + 3] for t in masked)
    assert (result.num_rows, result.num_tokens) == (len(row_ids), tokens)
    assert result.masked_token_rate == pytest.approx(masked_tokens / tokens)
    assert result.hidden_nucleotide_rate == pytest.approx(hidden / bases)
    assert result.given_away_by_unmasked == pytest.approx(by_unmasked / masked_tokens)
    assert result.given_away_by_kept == pytest.approx(by_kept / masked_tokens)
    assert result.hidden_shown_by_kept == pytest.approx((hidden - left) / hidden)
    assert result.rate_in_soft_masked == pytest.approx(soft_masked / soft)
    assert {length: count for length, count in result.run_lengths.items() if count} == dict(runs)
    assert result.rate_by_position[50] == pytest.approx(at[50] / (rows.num_tokens > 50).sum())


def levels(result):
    return {alert.level for alert in result.alerts}


def test_genemask_passes_and_chooses_good_ranks(shards):
    result = audit(shards, "genemask", num_rows=2000)
    assert not result.alarms
    assert result.same_mask_share < 0.3  # a single centre has six tokens to choose from
    assert result.mean_rank_of_chosen < 0.5 * result.mean_rank_of_tokens
    rates = audit(shards, "global", num_rows=2000).rate_by_rank_decile
    assert rates[0] > 1.3 * max(rates[1:])


@pytest.mark.parametrize("name", ["genemask-released", "global-released"])
def test_the_released_strategies_raise_the_alarm(shards, name):
    result = audit(shards, name)
    alarms = " ".join(alert.text for alert in result.alarms)
    assert f"masks do not depend on the sequence, but '{name}' should choose by rank" in alarms
    assert "ranks are ignored" in alarms
    assert result.same_mask_share > 0.9


def test_positions_that_are_never_masked_raise_the_alarm(shards):
    alarms = [alert.text for alert in audit(shards, "global-released").alarms]
    assert any("of 100 positions are never masked" in text for text in alarms)


def test_controls_are_warned_of_but_raise_no_alarm(shards):
    result = audit(shards, "random-token")
    assert levels(result) == {"warning"}
    assert "masks do not depend on the sequence" in result.alerts[0].text
    assert result.given_away_by_unmasked > 0.95
    assert audit(shards, "random-span").given_away_by_unmasked < 0.05


def test_spanwise_corruption_closes_the_leak(shards):
    by_token, by_span = (audit(shards, resolve("genemask", corruption=corruption)) for corruption in ("token", "span"))
    assert by_token.given_away_by_kept > 0.2
    assert by_span.given_away_by_kept == 0
    assert by_span.hidden_shown_by_kept == pytest.approx(0.1, abs=0.05)


def test_an_unusual_rate_is_warned_of_and_an_exact_budget_is_not(shards):
    texts = [alert.text for alert in audit(shards, resolve("genemask", rate=0.03)).alerts]
    assert any("of tokens are masked, 15% is usual" in text for text in texts)
    assert not audit(shards, resolve("global-nms", budget=0.25)).alerts


def test_the_command_prints_a_table_json_and_a_figure(shards, tmp_path, capsys):
    out = str(shards.folder)
    assert main(["audit", out, "--masking", "genemask-released", "--plot", str(tmp_path / "a.png")]) == 0
    text = capsys.readouterr().out
    assert "masked tokens visible in unmasked neighbours" in text
    assert "alarm: masks do not depend on the sequence" in text
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["audit", out, "--masking", "genemask", "--budget", "0.15", "--json", "--rows", "50"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["masking"]["budget"] == 0.15
    assert len(result["rate_by_position"]) == 100
    assert main(["audit", out, "--masking", "genemask-released", "--strict"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--masking", "genmask"], "error: masking 'genmask' is unknown"),
        (["--masking", "genemask", "--rows", "1"], "error: 1 rows are too few to audit: give 2 or more"),
        (["--masking", "genemask", "--budget", "15"], "error: budget = 15.0 is out of range"),
        (["--masking", "genemask", "--plot", "missing/a.png"], "error: cannot write the figure missing/a.png"),
    ],
)
def test_mistakes_get_one_line(shards, capsys, arguments, message):
    assert main(["audit", str(shards.folder), *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_show_draws_nucleotides_tokens_spans_and_ranks(shards):
    row = mask_row(shards, 3, resolve("genemask", budget=0.2))
    lines = list(render_row(row, width=100))
    rows = shards.read("train", np.array([3]))
    bases = "".join(line[10:] for line in lines if line[:8].strip().isdecimal())
    assert bases == row.bases
    assert len(bases) == rows.num_tokens[0] + 5
    cells = {
        label: [cell for line in lines if line.startswith(label) for cell in line[10:].split()]
        for label in ("model sees", "NPMI rank", "position")
    }
    assert cells["position"] == [str(t) for t in range(int(rows.num_tokens[0]))]
    assert [int(cell) for cell in cells["NPMI rank"]] == row.ranks.tolist()
    assert cells["model sees"].count("[MASK]") == (row.seen_ids == 4).sum()
    marks = {t for t, mark in enumerate(row.marks) if mark != " "}
    assert marks == set(np.flatnonzero(row.masked).tolist())
    assert "^" in row.marks
    assert not any("\x1b" in line for line in lines)
    colored = list(render_row(row, width=100, color=True))
    assert any("\x1b[31m\x1b[1m  [MASK]" in line for line in colored)


def test_the_show_command_prints_plain_text_into_a_pipe(shards, capsys):
    assert main(["show", str(shards.folder), "--row", "3", "--masking", "global", "--positions", "10:15"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("train row 3: one:")
    assert "\x1b" not in text
    position = next(line for line in text.splitlines() if line.startswith("position"))
    assert position.split()[1:] == ["10", "11", "12", "13", "14"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--row", "100000"], "error: row 100000 is not in split 'train': give 0 to "),
        (["--positions", "5"], "error: --positions 5 is not a range of positions: give FIRST:LAST"),
    ],
)
def test_show_names_mistakes(shards, capsys, arguments, message):
    assert main(["show", str(shards.folder), "--masking", "genemask", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)
