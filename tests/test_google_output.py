"""Sets at gs:// are byte for byte those of a folder, with moto's server in place of Google's.

The XML interface of Google Cloud Storage is that of S3, but for the headers that `translated` rewrites.
"""

from __future__ import annotations

import http.client
import threading

import pytest

from gemsdata.cli import main
from tests.genomes import random_dna, write_fasta

obstore = pytest.importorskip("obstore")
pytest.importorskip("boto3")
werkzeug_app = pytest.importorskip("moto.moto_server.werkzeug_app")
serving = pytest.importorskip("werkzeug.serving")

pytestmark = [pytest.mark.once, pytest.mark.slow]
SIGNED = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"


def translated(application):
    """Return an S3 server that takes requests of a client of Google's."""

    def answer(environ, start_response):
        environ["HTTP_AUTHORIZATION"] = SIGNED
        if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
        source = environ.pop("HTTP_X_GOOG_COPY_SOURCE", None)
        if source:
            environ["HTTP_X_AMZ_COPY_SOURCE"] = source
        return application(environ, start_response)

    return answer


@pytest.fixture
def store(monkeypatch, tmp_path):
    """The bucket ``data``, as its client sees it."""
    application = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
    server = serving.make_server("127.0.0.1", 0, translated(application), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("GOOGLE_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "x")
    monkeypatch.setenv("GEMSDATA_RETRY_S", "2")
    monkeypatch.setenv("GEMSDATA_CACHE", str(tmp_path / "cache"))
    address = ("127.0.0.1", server.server_port)
    connection = http.client.HTTPConnection(*address)
    connection.request("PUT", "/data")
    assert connection.getresponse().status == 200
    connection.close()
    yield obstore.store.GCSStore("data", client_options={"allow_http": True})
    server.shutdown()
    thread.join()


def objects(store) -> dict[str, bytes]:
    found = [entry["path"] for listed in obstore.list(store, "set") for entry in listed]
    return {path.removeprefix("set/"): bytes(obstore.get(store, path).bytes()) for path in found}


def test_a_set_at_google_is_that_of_a_folder(store, tmp_path, capsys):
    fasta = write_fasta(tmp_path / "g.fa", {"one": random_dna(30_000, 1), "two": random_dna(9_000, 2)})
    folder, other = tmp_path / "folder", write_fasta(tmp_path / "other.fa", {"one": random_dna(20_000, 3)})
    assert main(["shard", str(fasta), "-o", str(folder), "-q"]) == 0
    wanted = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["shard", str(other), "-o", "gs://data/set", "-q"]) == 0
    assert objects(store) != wanted
    assert main(["shard", str(fasta), "-o", "gs://data/set"]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main(["shard", str(fasta), "-o", "gs://data/set", "--overwrite", "-q"]) == 0
    assert objects(store) == wanted
    assert main(["shard", str(fasta), "-o", "gs://data/set", "--resume"]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert main(["verify", "gs://data/set", "--fasta", str(fasta)]) == 0
