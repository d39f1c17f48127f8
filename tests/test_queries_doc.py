"""The worked queries of docs/queries.md, run on the genomes that they name."""

import io
import os
import re
from pathlib import Path

import pytest

import gemsdata as gd
from gemsdata.cli.query_output import write_table
from gemsdata.shards.write import shard

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("GEMSDATA_TEST_DATA", ROOT.parent / "shared" / "data")).resolve()
QUERIES = re.findall(
    r"^## (\d+\. .*?)$.*?^```sql\n(.*?)^```\n```text\n(.*?)^```$",
    (ROOT / "docs" / "queries.md").read_text(),
    flags=re.MULTILINE | re.DOTALL,
)

pytestmark = pytest.mark.compiled


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    genomes = {"human": "hg38_chr1_28Mb.fa.gz", "yeast": "yeast_R64.fa.gz"}
    if not (DATA / "genomes").is_dir():
        pytest.skip(f"the worked queries need the genomes in {DATA}, which is not here; name it in GEMSDATA_TEST_DATA")
    folder = tmp_path_factory.mktemp("queries")
    for name, genome in genomes.items():
        shard([DATA / "genomes" / genome], folder / name, workers=2)
    with gd.catalog(**{name: folder / name for name in genomes}) as connection:
        yield connection


def test_the_document_holds_its_queries():
    assert len(QUERIES) == 12


@pytest.mark.parametrize(("title", "sql", "answer"), QUERIES, ids=[title for title, _, _ in QUERIES])
def test_query_gives_the_answer_in_the_document(connection, monkeypatch, title, sql, answer):
    monkeypatch.chdir(DATA / "npmi")  # where the published ranking lies
    found = io.StringIO()
    write_table(connection.execute(sql), found)
    assert found.getvalue() == answer
