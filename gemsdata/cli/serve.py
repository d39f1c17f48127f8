"""``gemsdata serve``: masked batches for other processes and hosts."""

from __future__ import annotations

import os
import re
import sys

import click

_ALL_SEEDS = f"0-{(1 << 64) - 1}"


@click.command("serve")
@click.argument("out", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to stand at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8815, show_default=True, help="0: any free one.")
@click.option("--workers", type=click.IntRange(1), help="Batches computed at a time; default: one a processor.")
@click.option("--token-file", help="File with the token that clients must show.")
@click.option("--tls-cert", help="Certificate chain, PEM.")
@click.option("--tls-key", help="Key of the certificate, PEM.")
@click.option("--seeds", default=_ALL_SEEDS, show_default=True, help="Answer only for these seeds, FIRST-LAST.")
def command(
    out: tuple[str, ...],
    host: str,
    port: int,
    workers: int | None,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    seeds: str,
) -> None:
    """Serve masked batches of the shard set OUT over Arrow Flight; of several, mixed.

    A host that other machines can reach takes a token and TLS. Clients give the printed address to
    gemsdata.build_loader in the place of OUT. SIGTERM stops the server once it has sent what it is sending.
    """
    from gemsdata.service.auth import Address
    from gemsdata.service.run_server import GRACE_S, serve
    from gemsdata.service.server import Server
    from gemsdata.shards.shard_set import ShardSet

    def ready(server: Server, address: Address) -> None:
        rows = sum(entry.num_rows(split) for entry in server.kitchen.sets for split in entry.manifest.splits)
        click.echo(f"serving {', '.join(out)} ({rows:,} rows, {server.kitchen.fingerprint[:16]}) at {address}")
        sys.stdout.flush()

    finished = serve(
        [ShardSet.open(folder) for folder in out],
        host=host,
        port=port,
        workers=workers,
        token_file=token_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        seeds=_range_of(seeds),
        ready=ready,
    )
    if not finished:
        click.echo(f"stopped; some clients did not take within {GRACE_S:.0f} s what was being sent to them", err=True)
        sys.stdout.flush()
        os._exit(0)  # their threads cannot be ended
    click.echo("stopped")


def _range_of(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,20})-(\d{1,20})", text)
    if not match or not int(match[1]) <= int(match[2]) < 1 << 64:
        raise ValueError(f"--seeds {text} is no range; give FIRST-LAST, such as 0-99")
    return int(match[1]), int(match[2])
