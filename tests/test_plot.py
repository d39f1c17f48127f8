"""Figures: what is drawn is what is in the set, for any k and either format; the CLI and its errors."""

import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gemsdata.cli import main
from gemsdata.genome import vocab
from gemsdata.inspect import plot
from gemsdata.inspect.plot import set_figures, style, table_figures
from gemsdata.inspect.plot.set_figures import Region, flanking_bases, parse_region, ranks_along
from gemsdata.npmi.table import NpmiTable
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard

pytestmark = pytest.mark.once

TABLE_FIGURES = {"npmi_by_k", "rank_against_frequency", "rank_map"}
SET_FIGURES = TABLE_FIGURES | {"rank_profile", "logos"}
OPTIONS = {
    "arrow": ShardOptions(k=2, row_tokens=50, min_count=1, block_rows=8, rows_per_shard=16, valid_contigs=("two",)),
    "webdataset": ShardOptions(k=3, row_tokens=40, min_count=2, block_rows=8, format="webdataset", estimator="levine"),
}


@pytest.fixture(scope="module")
def sequence():
    rng = np.random.default_rng(5)
    parts = ["".join(rng.choice(list(letters), 600)) for letters in ("ACGT", "acgt", "ACGT", "aaat")]
    return "".join(parts[:2]) + "NNN" + "".join(parts[2:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sequence):
    folder = tmp_path_factory.mktemp("sets")
    (folder / "g.fa").write_text(f">chr:1 one\n{sequence}\n>two\n{sequence[:100]}\n")
    for name, options in OPTIONS.items():
        shard([folder / "g.fa"], folder / name, options)
    return folder


@pytest.fixture(params=list(OPTIONS))
def shards(request, folder):
    return ShardSet.open(folder / request.param)


def test_every_figure_of_a_set_is_drawn(shards):
    source = plot.open_source(shards.folder)
    drawn = dict(plot.make_figures(source, source))
    assert set(drawn) == SET_FIGURES | {"two_genomes"}
    assert {name for name, figure in drawn.items() if not isinstance(figure, Figure)} == set()
    for name in SET_FIGURES:
        title, _, subject = drawn[name].get_suptitle().partition("\n")
        assert re.search(r"\d", title), f"{name} does not say what is seen"
        assert subject == shards.name


def test_ranks_along_a_region_are_those_of_its_kmers(shards, sequence):
    region = Region(0, 590, 1240)
    k = shards.k
    expected = [
        np.nan if "N" in sequence[i : i + k] else shards.ranks[vocab.token_id(sequence[i : i + k])]
        for i in range(region.start, region.end)
    ]
    np.testing.assert_array_equal(ranks_along(shards, region), expected)


def test_flanking_bases_count_the_bases_around_a_token(shards):
    k, flank = shards.k, 9
    token_id = vocab.token_id("AAT"[:k])
    expected = np.zeros((k + 2 * flank, 4), int)
    for split in ("train", "valid"):
        rows = shards.read(split, np.arange(shards.num_rows(split)))
        for ids, num_tokens in zip(rows.input_ids, rows.num_tokens.tolist(), strict=True):
            first_bases = [vocab.BASES.index(vocab.token(i, k)[0]) for i in ids[:num_tokens].tolist()]
            for t in range(flank, num_tokens - k - flank + 1):
                if ids[t] == token_id:
                    expected[np.arange(k + 2 * flank), first_bases[t - flank : t + k + flank]] += 1
    counts, composition = flanking_bases(shards, np.array([token_id]))
    np.testing.assert_array_equal(counts[0], expected)
    assert composition.sum() == pytest.approx(1)
    assert expected[flank].argmax() == vocab.BASES.index("A")


def test_map_is_alphabetical(shards):
    k = shards.k
    figure = table_figures.rank_map(shards.npmi, k)
    image = figure.axes[0].images[0].get_array()
    ranks = {kmer.decode(): rank for kmer, rank in zip(vocab.all_kmers(k), shards.npmi.scores(k).rank, strict=True)}
    for row, column, kmer in ((0, 0, "A" * k), (0, -1, "A" + "T" * (k - 1)), (2, 1, "G" + "A" * (k - 2) + "C")):
        assert image[row, column] is np.ma.masked or image[row, column] == ranks[kmer]


def test_frequency_figure_shows_every_kmer_that_has_a_score(shards):
    figure = table_figures.rank_against_frequency(shards.npmi, shards.k)
    points = np.concatenate([group.get_offsets() for group in figure.axes[0].collections])
    scores = shards.npmi.scores(shards.k)
    known = np.isfinite(scores.npmi)
    expected = np.column_stack([shards.npmi.counts[shards.k], scores.rank])[known]
    np.testing.assert_array_equal(np.sort(points, axis=0), np.sort(expected, axis=0))


def test_a_genome_correlates_with_itself(shards):
    figure = table_figures.two_genomes(shards.npmi, shards.npmi, shards.k, "one", "same")
    assert figure.get_suptitle() == f"Ranks of {shards.k}-mers in one and same: Spearman 1.00"


def test_soft_masked_stretches_are_shaded(shards):
    shaded = set_figures.rank_profile(shards, Region(0, 500, 2000)).axes[0].patches
    spans = [(round(patch.get_x()), round(patch.get_x() + patch.get_width())) for patch in shaded]
    assert spans == [(600, 1200), (1803, 2000)]


def test_files_are_whole_and_the_same_each_time(shards, tmp_path):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with style.figure_style():
            figure = table_figures.npmi_by_k(shards.npmi)
        paths = style.save(figure, tmp_path / name, "f")
        contents.append([path.read_bytes() for path in paths])
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["f.png", "f.svg"]
    assert contents[0] == contents[1]
    with Image.open(tmp_path / "a" / "f.png") as image:
        assert image.info["dpi"][0] == pytest.approx(300, abs=1)
        assert image.getpixel((0, 0))[:3] == (255, 255, 255)
    assert b"</svg>" in contents[0][1]


def test_default_region_lies_in_the_longest_contig(shards):
    assert parse_region(shards, None) == Region(0, 0, 2403)
    assert parse_region(shards, "chr:1:1,000-2,000") == Region(0, 1000, 2000)
    assert parse_region(shards, "two:0-100") == Region(1, 0, 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr:1", "is not of the form contig:start-end"),
        ("two:5", "is not of the form"),
        ("three:1-2", "names the contig 'three', which is not in the set; its contigs are chr:1, two"),
        ("two:50-101", "is not within the contig, which has 100 bases"),
        ("two:60-60", "is not within the contig"),
    ],
)
def test_a_region_that_is_not_there_is_refused(folder, text, message, capsys, tmp_path):
    assert main(["plot", str(folder / "arrow"), "-o", str(tmp_path), "--region", text]) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count("\n") == 1


def test_plot_writes_png_and_svg_of_every_figure(folder, tmp_path, capsys):
    out = tmp_path / "figures"
    arguments = ["plot", str(folder / "arrow"), "-o", str(out), "--other", str(folder / "webdataset" / "npmi.parquet")]
    assert main(arguments) == 0
    names = {f"{name}.{suffix}" for name in SET_FIGURES | {"two_genomes"} for suffix in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == names
    assert "rank_map.svg" in capsys.readouterr().out


def test_a_table_alone_has_the_figures_of_a_table(folder, tmp_path):
    assert main(["plot", str(folder / "arrow" / "npmi.parquet"), "-k", "3", "-o", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == TABLE_FIGURES


def test_a_set_without_a_table_says_so(folder, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "_index.json").write_bytes((folder / "arrow" / "_index.json").read_bytes())
    assert main(["plot", str(tmp_path / "set"), "-o", str(tmp_path / "figures")]) == 2
    assert "has no NPMI table (npmi.parquet)" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_what_has_no_npmi_is_not_drawn_but_named():
    rare = plot.PlotSource("rare", NpmiTable.from_counts({3: [1] * 64}), 3, None)
    reasons = dict(plot.make_figures(rare, rare))
    assert all("101 times" in reason for reason in reasons.values())
    single = plot.PlotSource("single", NpmiTable.from_counts({2: [500] * 16}), 1, None)
    reasons = dict(plot.make_figures(single))
    assert "NPMI is defined for k >= 2" in reasons["rank_against_frequency"]
    assert "k must be 2 to 8" in reasons["rank_map"]


def test_without_matplotlib_the_command_names_the_extra(folder, tmp_path):
    code = "import sys; sys.modules['matplotlib'] = None\nfrom gemsdata.cli import main; sys.exit(main(sys.argv[1:]))"
    for command in ("plot", "report"):
        arguments = [sys.executable, "-c", code, command, str(folder / "arrow"), "-o", str(tmp_path / "x")]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 2
        expected = f"error: gemsdata {command} needs matplotlib; install it with: pip install 'gemsdata[plot]'\n"
        assert done.stderr == expected
