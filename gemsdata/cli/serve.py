"""``gemsdata serve``: serve masked batches over Arrow Flight."""

from __future__ import annotations

import os
import re
import sys

import click

from gemsdata.cli.masking_options import import_option
from gemsdata.cli.output import say
from gemsdata.cli.view_options import view_options
from gemsdata.masking.registry import load_plugins
from gemsdata.views.options import ViewOptions

_ALL_SEEDS = f"0-{(1 << 64) - 1}"


@click.command("serve")
@click.argument("shards", metavar="SHARDS...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8815,
    show_default=True,
    help="0 for any free port.",
)
@click.option("--workers", type=click.IntRange(1), help="Batches computed in parallel; default: one per processor.")
@click.option("--token-file", help="File with the token that clients must send.")
@click.option("--tls-cert", help="Certificate chain, PEM.")
@click.option("--tls-key", help="Private key of the certificate, PEM.")
@click.option("--seeds", default=_ALL_SEEDS, show_default=True, help="Answer requests with these seeds, FIRST-LAST.")
@view_options()
@import_option
def command(
    shards: tuple[str, ...],
    host: str,
    port: int,
    workers: int | None,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    seeds: str,
    view: ViewOptions,
    modules: tuple[str, ...],
) -> None:
    """Serve masked batches of the shard set SHARDS over Arrow Flight; several are mixed.

    A packed set is read with --tokens (default kmer:6) and the other options of views; clients may ask for others
    (gemsdata.Servers.view). With several --regions, one for each set or all of one set, the rows of each are mixed.

    A host that other machines can reach requires a token and TLS. Clients pass the printed address to
    gemsdata.build_loader instead of a folder. SIGTERM stops the server after it has finished the responses in progress.

    \b
    Examples:
      gemsdata serve human
      gemsdata serve packed --tokens base --row-bases 8192 --regions tss.bed --regions anywhere
      gemsdata serve human mouse --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
    """
    from gemsdata.service.auth import Address
    from gemsdata.service.run_server import GRACE_S, run_server
    from gemsdata.service.server import Server
    from gemsdata.shards.manifest import SPLITS
    from gemsdata.shards.shard_set import ShardSet

    load_plugins(modules)

    def ready(server: Server, address: Address) -> None:
        counts = [rows.num_rows(split) for _, rows in server.streams.own.sources for split in SPLITS]
        say(f"serving {', '.join(shards)} ({sum(counts):,} rows, {server.streams.fingerprint[:16]}) at {address}")
        sys.stdout.flush()

    finished = run_server(
        [ShardSet.open(place) for place in shards],
        host=host,
        port=port,
        workers=workers,
        token_file=token_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        seeds=_parsed_range(seeds),
        view=view,
        ready=ready,
    )
    if not finished:
        click.echo(f"stopped; some clients did not read their responses within {GRACE_S:.0f} s", err=True)
        sys.stdout.flush()
        os._exit(0)  # the threads of these responses cannot be ended
    say("stopped")


def _parsed_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,20})-(\d{1,20})", text)
    if not match or not int(match[1]) <= int(match[2]) < 1 << 64:
        raise ValueError(f"--seeds {text} is not a range; give FIRST-LAST, such as 0-99")
    return int(match[1]), int(match[2])
