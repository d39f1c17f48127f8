"""gemsdata query: formats, files, errors in one line, and the prompt."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gemsdata.cli import main
from gemsdata.npmi.table import NpmiTable

pytestmark = pytest.mark.once

SQL = "SELECT kmer, count, npmi FROM npmi WHERE k = 2 ORDER BY kmer LIMIT 3"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "tiny.parquet"
    NpmiTable.from_counts({2: range(1, 17)}, min_count=3).to_parquet(path)
    return path


def test_table_is_aligned(table, capfd):
    assert main(["query", str(table), SQL]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "kmer  count      npmi",
        "----  -----  --------",
        "AA        1",
        "AC        3  0.127702",
        "AG        4  0.145311",
    ]


def test_csv_and_json_lines_go_to_standard_output(table, capfd):
    assert main(["query", str(table), SQL, "--format", "csv"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == ["kmer,count,npmi", "AA,1,"]
    assert main(["query", str(table), SQL, "--format", "json"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert rows[0] == {"kmer": "AA", "count": 1, "npmi": None}
    assert len(rows) == 3


@pytest.mark.parametrize("options", [[], ["--format", "csv"], ["-o", "r.csv"], ["-o", "r.arrow"]])
def test_ctrl_c_ends_a_long_query(table, tmp_path, options):
    code = (
        "import signal, sys; from gemsdata.cli import main; import gemsdata.cli.query as query; run = query._run; "
        "query._run = lambda *a: (print('ready', file=sys.stderr, flush=True), run(*a)); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored where the tests run in the background
        "sys.exit(main(sys.argv[1:]))"
    )
    sql = "SELECT count(*) AS n FROM range(100000000000) WHERE range % 7 = 3"
    call = [sys.executable, "-c", code, "query", str(table), sql, *options]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stderr.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, said.strip()) == (130, "interrupted; no file was written")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r.csv", "r.json", "r.jsonl", "r.parquet", "r.arrow", "r.txt"])
def test_the_suffix_chooses_the_format_of_a_file(table, tmp_path, name):
    out = tmp_path / name
    assert main(["query", str(table), SQL, "-o", str(out)]) == 0
    if name == "r.parquet":
        assert pq.read_table(out)["kmer"].to_pylist() == ["AA", "AC", "AG"]
    elif name == "r.arrow":
        assert pa.ipc.open_file(out).read_all()["kmer"].to_pylist() == ["AA", "AC", "AG"]
    else:
        assert "AC" in out.read_text()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_output_is_appended_to_what_a_file_holds(table, tmp_path):
    out = tmp_path / "log.csv"
    out.write_text("before\n")
    with open(out, "a") as stream:
        command = [sys.executable, "-m", "gemsdata.cli", "query", str(table), SQL, "--format", "csv"]
        subprocess.run(command, stdout=stream, check=True)
    assert out.read_text().splitlines()[:2] == ["before", "kmer,count,npmi"]


def test_a_reader_that_stops_early_is_no_error(table):
    many = "SELECT * FROM range(3000000)"
    command = f"{sys.executable} -m gemsdata.cli query {table} '{many}' --format csv | head -2"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("range\n0\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELECT nothing FROM npmi"], 'error: Binder Error: Referenced column "nothing" not found'),
        (["SELEC 1 + 1"], "error: Parser Error: syntax error"),
        (["SELECT * FROM npmi_of"], "error: Catalog Error"),
        (["SELECT count(*) FROM rows"], "needs the folder of a shard set"),
        (
            ["COPY (SELECT 1) TO 'x.csv'"],
            "error: COPY is not allowed: queries are read-only; write a result with -o",
        ),
        (["EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'"], "queries are read-only"),
        (["ATTACH 'x.db'"], "queries are read-only"),
        (["SELECT 1 AS one", "--format", "parquet"], "error: --format parquet is binary; give a file"),
        (["SELECT 1 AS one", "-o", "/absent/x.csv"], "no such folder to write x.csv in"),
        (["  "], "error: the query is empty"),
        (["absent.parquet"], "error: absent.parquet: no such"),
        (["name=absent.parquet", "SELECT 1 AS one"], "error: absent.parquet: no such"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(table, tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["query", str(table), *arguments]) == 2
    captured = capfd.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_sql_alone_is_refused(capfd):
    assert main(["query", "SELECT 1 + 1"]) == 2
    assert "give a shard set or an NPMI table before the SQL" in capfd.readouterr().err


def test_a_plan_keeps_its_lines(table, capfd):
    assert main(["query", str(table), "EXPLAIN SELECT kmer FROM npmi"]) == 0
    assert len(capfd.readouterr().out.splitlines()) > 3


def test_a_failed_query_leaves_no_file(table, tmp_path):
    out = tmp_path / "r.parquet"
    assert main(["query", str(table), "SELECT error('no') FROM npmi", "-o", str(out)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_names_of_sets_can_be_given(table, capfd):
    assert main(["query", f"a={table}", f"b={table}", "SELECT a.npmi_of('GG') = b.npmi_of('gg') AS same"]) == 0
    assert "True" in capfd.readouterr().out
    assert main(["query", str(table), str(table), "SELECT 1 AS one"]) == 2
    assert "two sets are named tiny" in capfd.readouterr().err


def test_a_script_comes_by_standard_input(table):
    script = "CREATE MACRO twice(x) AS 2 * x; SELECT twice(21) AS answer"
    command = [sys.executable, "-m", "gemsdata.cli", "query", str(table), "--format", "csv"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert done.stdout == "answer\n42\n"


def test_the_prompt_answers_survives_errors_and_keeps_its_history(table, tmp_path):
    master, slave = pty.openpty()
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"}
    command = [sys.executable, "-m", "gemsdata.cli", "query", str(table)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    os.write(master, b"SELECT nothing;\nSELECT 6 * 7\nAS answer;\nexit\n")
    shown = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not block:
            break
        shown += block
    assert process.wait(30) == 0
    os.close(master)
    text = shown.decode()
    assert "views: npmi, rows" in text
    assert 'error: Binder Error: Referenced column "nothing"' in text
    assert "42" in text
    history = tmp_path / "gemsdata" / "query_history"
    if history.exists():  # a Python without readline has none
        assert "SELECT nothing;" in history.read_text()
