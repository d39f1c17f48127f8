"""The Kubernetes manifest is valid by Kubernetes' own schema, and says what `gemsdata serve` and its clients need."""

from __future__ import annotations

import copy
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from gemsdata.cli.serve import command
from gemsdata.service.run_server import GRACE_S

pytestmark = pytest.mark.once

MANIFEST = Path(__file__).parents[1] / "packaging" / "kubernetes" / "serve.yaml"
VERSIONS = ("1.30", "1.37")


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    return {found["kind"]: found for found in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.fixture(scope="module")
def options(objects) -> dict[str, Any]:
    """The arguments of the container, as the command reads them."""
    [container] = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "serve", "the image's entry point is gemsdata"
    return command.make_context("serve", container["args"][1:]).params


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(objects, version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for found in objects.values():
        assert kubernetes_validate.validate(found, version, strict=True) == version
    misspelt = copy.deepcopy(objects["Deployment"])
    [container] = misspelt["spec"]["template"]["spec"]["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(misspelt, version, strict=True)


def test_the_service_and_the_budget_select_the_pods_by_name_and_port(objects, options):
    deployment, service = objects["Deployment"]["spec"], objects["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels == service["selector"]
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert service["clusterIP"] == "None", "the name has to resolve to every server"
    [container], [port] = deployment["template"]["spec"]["containers"], service["ports"]
    ports = {entry["name"]: entry["containerPort"] for entry in container["ports"]}
    assert port["port"] == ports[port["targetPort"]] == options["port"]
    assert ports[container["readinessProbe"]["tcpSocket"]["port"]] == options["port"]


def test_files_are_mounted_and_open_answers_have_their_time(objects, options):
    assert options["host"] == "0.0.0.0"
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    for path in (*options["shards"], options["token_file"], options["tls_cert"], options["tls_key"]):
        assert any(str(parent) in mounts for parent in PurePosixPath(path).parents), path
    wait_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= wait_s + GRACE_S + 5
    assert str(options["workers"]) == container["resources"]["requests"]["cpu"]
