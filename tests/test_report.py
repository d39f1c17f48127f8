"""The report: one page, whole by itself, seen in a real browser."""

import datetime
import io
import json
import random
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gemsdata.cli import main
from gemsdata.inspect import report
from gemsdata.inspect.audit import audit
from gemsdata.inspect.report import masks
from gemsdata.inspect.report.runs import curves_title, read_curves
from gemsdata.shards.options import ShardOptions
from gemsdata.shards.shard_set import ShardSet
from gemsdata.shards.write import shard

pytestmark = pytest.mark.once

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
STRATEGIES = ("random-token", "dnabert", "genemask", "global", "global-nms")
AUDIT_ROWS = 12


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The same small genome with repeats as Arrow (k = 3) and as WebDataset (k = 4)."""
    folder = tmp_path_factory.mktemp("sets")
    unit = "ACGTTGCAAGGCTTACCGATGCATTAGCCAGGATCCAATGCTTGACC"
    text = "".join(unit[i % 7 :] + unit[: i % 11].lower() for i in range(40))
    (folder / "g.fa").write_text(f">one\n{text}NNN{text[::-1]}\n>two\n{text[:300]}\n")
    shard([folder / "g.fa"], folder / "arrow", ShardOptions(k=3, row_tokens=40, min_count=1, valid_fraction=0.2))
    options = ShardOptions(k=4, row_tokens=30, min_count=1, format="webdataset")
    shard([folder / "g.fa"], folder / "webdataset", options)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, switch in (("cm-gems", 60), ("genemask", None)):
        (folder / name / "eval").mkdir(parents=True)
        with open(folder / name / "metrics.jsonl", "w") as lines:
            for step in range(0, 120, 2):
                stage = int(switch is not None and step >= switch)
                lines.write(json.dumps({"step": step, "loss": 6 - step / 40, "lr": 1e-4, "stage": stage}) + "\n")
                if step % 20 == 0:
                    lines.write(json.dumps({"step": step, "valid_perplexity": 40 - step / 4, "stage": stage}) + "\n")
            lines.write('{"step": 12')  # the run goes on
    markdown = "| task | accuracy |\n|---|---:|\n| Prom-core <script>alert(1)</script> | 71.5 |\n"
    (folder / "cm-gems" / "eval" / "fewshot.md").write_text(markdown)
    (folder / "cm-gems" / "README.md").write_text("the model card")
    pq.write_table(pa.table({"task": ["tf/0"], "mcc": [0.612345]}), folder / "genemask" / "gue.parquet")
    return folder


@pytest.fixture(scope="module")
def page(sets, runs):
    return report.render(
        sets / "arrow",
        [runs / "cm-gems", runs / "genemask"],
        other=sets / "webdataset",
        audit_rows=AUDIT_ROWS,
    )


def test_page_needs_nothing_but_itself(page):
    assert page.startswith("<!doctype html>")
    addresses = set(re.findall(r"""(?:src|href|xmlns(?::xlink)?)=["']([^"'#][^"']*)""", page))
    assert {a for a in addresses if not a.startswith("data:")} <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "<script" not in page
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)


def test_ids_are_unique(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert used <= set(ids)


def test_page_holds_every_section(page):
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["Contents", "Contigs", "NPMI", "Masking strategies", "Training", "Evaluation"]
    for name in STRATEGIES:
        assert f"<td>{name}</td>" in page
    assert page.count("<figure") == 10
    assert "stage 1 from here" in page
    assert "Training loss of 2 runs: 3.05 to 3.05 at last" in page
    assert "<td>two</td>" in page
    assert "the model card" not in page


def test_published_defects_are_no_alarms_of_a_users_set(page):
    assert "-released" not in page
    assert ">alarm:" not in page
    assert "do not depend on the sequence" not in page


def test_page_has_its_date_and_runs(sets, runs, page):
    assert re.search(r'with the runs cm-gems, genemask\. Report of <time datetime="\d{4}-\d\d-\d\d">', page)
    dated = report.render(sets / "webdataset", audit_rows=AUDIT_ROWS, date=datetime.date(2026, 2, 3))
    assert '<time datetime="2026-02-03">2026-02-03</time>' in dated
    assert "with the runs" not in dated


def test_tables_and_scroll_areas_are_labelled(page):
    assert not re.findall(r"<th(?![^>]*scope=)[ >]", page)
    areas = re.findall(r'<div class="scroll[^>]*>', page)
    labels = [re.search(r'role="region" aria-label="([^"]+)"', area) for area in areas if area]
    assert all(labels)


def test_captions_follow_the_data(tmp_path, sets):
    rng = random.Random(0)
    even = "".join(rng.choice("ACGT") for _ in range(20_000))
    depleted = re.sub("CG", lambda _: rng.choice(["CG", "TG", "CA", "TG", "CA"]), even)
    options = ShardOptions(k=3, row_tokens=40, min_count=1)
    texts = {}
    for name, text in (("even", even), ("depleted", depleted)):
        (tmp_path / f"{name}.fa").write_text(f">a\n{text}\n")
        shard([tmp_path / f"{name}.fa"], tmp_path / name, options)
        texts[name] = report.render(tmp_path / name, audit_rows=AUDIT_ROWS)
    ratios = {name: float(re.search(r"CpG occurs ([\d.]+) times as often", page)[1]) for name, page in texts.items()}
    for name, text in (("even", even), ("depleted", depleted)):
        expected = text.count("C") * text.count("G") / len(text)
        assert ratios[name] == pytest.approx(text.count("CG") / expected, abs=0.006)
    assert "dark lines" not in texts["even"]
    assert "they form the dark lines" in texts["depleted"]


def test_panels_have_the_axis_that_they_need(sets):
    opened = ShardSet.open(sets / "arrow")
    audits = [audit(opened, name, num_rows=40) for name in ("random-token", "global")]
    for axes, result in zip(masks._by_decile(audits).axes, audits, strict=False):
        highest = max(rate for rate in result.rate_by_rank_decile if rate is not None)
        assert max(highest, 0.15) < axes.get_ylim()[1] < 1.2 * max(highest, 0.15)
    tops = {axes.get_ylim()[1] for axes in masks._by_position(audits).axes[:2]}
    assert len(tops) == 1


ATTACK = "<img src=x onerror=alert(1)>\"'&{{7*7}}"


def test_names_in_files_are_text_on_the_page(tmp_path, sets):
    """Contigs, folders, runs, tables and stages may be called anything."""
    genome = (sets / "g.fa").read_text().replace(">one", f">{ATTACK.replace(' ', '_')}")
    (tmp_path / "g.fa").write_text(genome)
    folder = tmp_path / "<b>set</b>'\""
    shard([tmp_path / "g.fa"], folder, ShardOptions(k=3, row_tokens=40, min_count=1))
    run = tmp_path / "<i>run<" / "<u>r"
    run.mkdir(parents=True)
    lines = [{"step": step, "loss": 1.0, "stage": ATTACK if step else 0} for step in range(2)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pq.write_table(pa.table({ATTACK: [ATTACK, "\x1b[31m"]}), run / "<s>t.parquet")
    (run / "<s>m.md").write_text(f"# {ATTACK}\n\n[link](javascript:alert(1))\n\n<script>alert(1)</script>\n")
    page = report.render(folder, [run], audit_rows=AUDIT_ROWS)
    tags = set(re.findall(r"<([a-zA-Z][\w:-]*)", page))
    assert not tags & {"img", "script", "b", "i", "u", "s"}
    assert "javascript:" not in re.sub(r"\[link\]\([^)]*\)", "", page)
    assert "{{7*7}}" in page  # no second round of templates
    assert "<td>49" not in page
    assert "&lt;img" in page


def test_results_are_shown_and_their_markup_is_not_run(page):
    assert "Prom-core &lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "0.6123" in page


@pytest.mark.slow
def test_same_input_gives_the_same_page(sets):
    pages = [report.render(sets / "webdataset", audit_rows=AUDIT_ROWS) for _ in range(2)]
    assert pages[0] == pages[1]
    assert "4-mers, 30 a row" in pages[0]
    assert "Training" not in pages[0]


def test_metrics_are_read_whatever_fields_they_have(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 0, "train_loss": 3.5, "stage": "genemask"}\n\nnot json\n[1]\n{"loss": 1}\n'
        '{"step": 5, "loss": NaN, "perplexity": 9.5}\n{"step": 10, "loss": 2, "stage": "global"}\n{"step": 1'
    )
    run = read_curves(path, "r")
    assert run.loss.tolist() == [[0, 3.5], [10, 2]]
    assert run.perplexity.tolist() == [[5, 9.5]]
    assert run.switches == [(10, "global")]
    assert curves_title([run], "loss") == "Training loss: 3.50 at first, 2.00 at last"


def test_a_run_with_nothing_to_show_is_named(sets, tmp_path):
    (tmp_path / "empty").mkdir()
    text = report.render(sets / "arrow", [tmp_path / "empty"], audit_rows=AUDIT_ROWS)
    assert "empty contains neither metrics.jsonl nor a table" in text


def test_a_set_without_a_table_says_so(sets, tmp_path):
    for path in (sets / "arrow").rglob("*"):
        if path.is_file() and path.name != "npmi.parquet":
            (tmp_path / path.relative_to(sets / "arrow")).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(sets / "arrow")).hardlink_to(path)
    text = report.render(tmp_path)
    assert "This set has no NPMI table (npmi.parquet)." in text
    assert "strategies need the ranks of an NPMI table" in text
    assert "<td>two</td>" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "-o", "r.html"], "absent: no such folder"),
        (["SET", "absent", "-o", "r.html"], "absent: no such folder; give the output folder of a training run"),
        (["SET", "-o", "."], ". is a folder; give the name of an HTML file"),
        (["SET", "-o", "absent/r.html"], "no such folder to write r.html in"),
        (["SET", "-o", "r.html", "--region", "x:1-2"], "names the contig 'x', which is not in the set"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_page(sets, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *[str(sets / "arrow") if a == "SET" else a for a in arguments]]) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(browser, page, tmp_path, width, scheme):
    (tmp_path / "r.html").write_text(page)
    complaints, requests = [], []
    with browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme) as context:
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((tmp_path / "r.html").as_uri())
        tab.wait_for_load_state()
        assert complaints == []
        assert [url for url in requests if not url.startswith("data:")] == [(tmp_path / "r.html").as_uri()]
        # nothing but scrolling boxes is wider than the screen
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        paper = Image.new("RGB", (1, 1), tab.evaluate("getComputedStyle(document.body).backgroundColor")).getpixel(
            (0, 0)
        )
        assert (sum(paper) > 600) == (scheme == "light")
        figures = tab.locator("figure svg").all()
        assert len(figures) == 10
        for figure in figures:
            assert figure.is_visible()
            box = figure.bounding_box()
            assert min(box["width"], box["height"]) > 100
            with Image.open(io.BytesIO(figure.screenshot())) as shot:
                assert len(shot.convert("RGB").getcolors(1 << 20)) > 10


def test_a_run_alone_is_shown_with_its_own_set(tmp_path, monkeypatch, capsys):
    run, shown = tmp_path / "run", []
    state = run / "checkpoints" / "step-00000012" / "state.json"
    state.parent.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 12, "loss": 1.0}\n')
    arguments = ["report", str(run), "other", "-o", str(tmp_path / "page.html")]
    assert main(arguments) == 2
    assert "has no checkpoint that names its shard set; give it: report SHARDS" in capsys.readouterr().err
    state.write_text(json.dumps({"config": {"shards": ["sets/human", "sets/yeast"]}}))
    monkeypatch.setattr(report, "render", lambda shards, runs, **_: shown.append((shards, runs)) or "page")
    assert main(arguments) == 0
    ((shards, runs),) = shown
    assert (shards, [path.name for path in runs]) == ("sets/human", ["run", "other"])


def test_the_last_evaluation_of_a_run_is_shown_by_kind_of_token(tmp_path):
    first, last = (
        {"step": step, "valid_loss": 1.5 * value, "valid_loss_mask": 2.5 * value, "valid_bits_per_base": value}
        for step, value in ((5, 1.75), (10, 1.25))
    )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (first, last)))
    (section,) = report.run_section([tmp_path])
    columns, (row,) = section.tables[1].columns, section.tables[1].rows
    found = dict(zip(columns, row, strict=True))
    assert found["shown as [MASK]"] == "3.1250"
    assert found["bits per hidden base"] == "1.2500"
    assert found["kept"] == "–"
