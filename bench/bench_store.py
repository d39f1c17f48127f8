"""Loading from an object store, cold cache, beside one stream of the same server: ``python -m bench.bench_store``.

The server runs in a process of its own on this machine, speaks as much of S3 as reading needs, and sends at most so
many MiB per second on each connection (0: as fast as it can). Both sides share the processors.
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gemsdata as gd
from bench.bench_planning import write_genome
from gemsdata.shards.shard_set import ShardSet

PIECE_BYTES = 1 << 18
STARTED_BATCHES = 8
OPTIONS = {"region": "us-east-1", "access_key_id": "key", "secret_access_key": "secret"}


def serve(folder: str, rate: float, port: Any) -> None:
    """Serve the files of a folder as the objects of a bucket, until the process is ended."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = Path(folder, self.path.partition("?")[0].lstrip("/").partition("/")[2])
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size = path.stat().st_size
            self.send_response(200)
            for name, value in (("Content-Length", size), ("ETag", f'"{size}"'), ("Accept-Ranges", "bytes")):
                self.send_header(name, str(value))
            self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
            self.end_headers()
            began, sent = time.monotonic(), 0
            with open(path, "rb") as stream:
                while piece := stream.read(PIECE_BYTES):
                    self.wfile.write(piece)
                    sent += len(piece)
                    if rate:
                        time.sleep(max(0.0, began + sent / rate / (1 << 20) - time.monotonic()))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    port.send(server.server_address[1])
    server.serve_forever()


def raw_rate(port: int, names: list[str]) -> float:
    """Return the MiB per second of fetching files one after the other on one connection, and dropping the content."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    began, num_bytes = time.perf_counter(), 0
    for name in names:
        connection.request("GET", f"/bucket/{name}")
        answer = connection.getresponse()
        while piece := answer.read(PIECE_BYTES):
            num_bytes += len(piece)
    connection.close()
    return num_bytes / (time.perf_counter() - began) / (1 << 20)


def loader_rate(port: int, cache: Path, rows: int, tokens: str | None, **options: Any) -> tuple[float, float, int]:
    """Return MiB per second and rows per second of an epoch, and the most cached.

    Both count from when each worker process has sent a few batches, so that their start is left out.
    """
    shards = ShardSet.open(
        "s3://bucket", cache_dir=cache, storage_options={**OPTIONS, "endpoint": f"http://127.0.0.1:{port}"}
    )
    source = gd.view(shards, tokens=tokens, row_bases=512) if tokens else shards
    loader = gd.build_loader(
        source, batch_size=256, masking="genemask", num_workers=2, shuffle=rows, num_epochs=1, seed=0, **options
    )
    began, first_bytes, num_rows, most = 0.0, 0, 0, 0
    for number, batch in enumerate(loader):
        if number == STARTED_BATCHES:
            began, first_bytes = time.perf_counter(), cached(cache)
        elif number > STARTED_BATCHES:
            num_rows += len(batch["input_ids"])
        if number % 64 == 0:
            most = max(most, cached(cache))
    seconds = time.perf_counter() - began
    total = cached(cache)
    return (total - first_bytes) / seconds / (1 << 20), num_rows / seconds, max(most, total)


def cached(folder: Path) -> int:
    """Return the bytes that are in a cache."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "lock")


def main(arguments: list[str] | None = None) -> int:
    """Make a set, serve it, and print the rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabases", type=int, default=128)
    parser.add_argument("--mib-per-s", type=float, default=40)
    parser.add_argument("--threads", action="store_true", help="two worker threads in place of two processes")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--format", choices=["arrow", "packed"], default="arrow")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "set")
        write_genome(Path(scratch, "g.fa"), chosen.megabases << 20)
        size = {"rows_per_shard": 8192} if chosen.format == "arrow" else {"rows_per_shard": 1024}
        gd.shard([f"{scratch}/g.fa"], folder, gd.ShardOptions(format=chosen.format, **size), workers=2)
        manifest = ShardSet.open(folder).manifest
        names = [file.path for shard in manifest.shards("train") for file in shard.files.values()]
        rows = 2 * manifest.shards("train")[0].num_rows
        print(f"{len(names)} shards of {sum((folder / name).stat().st_size for name in names) / 2**20:.0f} MiB")
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(str(folder), chosen.mib_per_s, theirs), daemon=True
        )
        server.start()
        port = ours.recv()
        for number in range(chosen.rounds):
            raw = raw_rate(port, names)
            cache = Path(scratch, f"cache{number}")
            tokens = "kmer:6:1" if chosen.format == "packed" else None
            rate, rows_per_s, most = loader_rate(port, cache, rows, tokens, threads=chosen.threads)
            print(
                f"round {number}: one stream {raw:.1f} MiB/s, loader {rate:.1f} MiB/s ({rate / raw:.2f}),"
                f" {rows_per_s:,.0f} rows/s, cache {most / 2**20:.0f} MiB",
                flush=True,
            )
        server.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
