"""A Slurm cluster of one node in a folder: munged, slurmctld and slurmd as processes of a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch")
_START_S = 60


def missing_program() -> str | None:
    """Return why no cluster can be started here, None if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed: no {', '.join(absent)}"
    return None if os.geteuid() == 0 else "a Slurm cluster is started by root only"


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[Path]:
    """Start a cluster; yield its slurm.conf, for the variable SLURM_CONF; stop it in the end."""
    config = _write_config(folder)
    environment = {**os.environ, "SLURM_CONF": str(config)}
    with contextlib.ExitStack() as daemons:
        for command in (_munged(folder), ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            daemons.callback(process.wait)
            daemons.callback(process.terminate)
            if command[0] == "munged":
                _wait_until((folder / "munge.socket").exists)
        _wait_until(lambda: _state(environment) == "idle")
        yield config


def _write_config(folder: Path) -> Path:
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname().split(".")[0]
    settings = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge.socket",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU",
        "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0",
        "MpiDefault": "none",
        "ReturnToService": "2",
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool",
        "SlurmctldPidFile": f"{folder}/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/slurmd.pid",
        "SlurmctldLogFile": f"{folder}/slurmctld.log",
        "SlurmdLogFile": f"{folder}/slurmd.log",
        "SlurmctldPort": free_port(),
        "SlurmdPort": free_port(),
    }
    lines = [f"{name}={value}" for name, value in settings.items()]
    lines.append(f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN")
    lines.append(f"PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP")
    config = folder / "slurm.conf"
    config.write_text("\n".join(lines) + "\n")
    return config


def _munged(folder: Path) -> list[str]:
    files = {"--key-file": "munge.key", "--socket": "munge.socket", "--pid-file": "munge.pid"}
    files |= {"--log-file": "munge.log", "--seed-file": "munge.seed"}
    return [
        "munged",
        "-F",
        "--force",
        *(word for option, name in files.items() for word in (option, f"{folder}/{name}")),
    ]


def _state(environment: dict[str, str]) -> str:
    asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def _wait_until(holds) -> None:
    deadline = time.monotonic() + _START_S
    while not holds():
        assert time.monotonic() < deadline, "the Slurm cluster did not start"
        time.sleep(0.1)
