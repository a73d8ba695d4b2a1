"""The manifests are what Kubernetes and Trainer expect, and give the launcher what it asks for and nothing else."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1ClusterTrainingRuntime

FOLDER = Path(__file__).parent.parent.parent / "pipelines" / "manifests"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def documents(name):
    return [document for document in yaml.safe_load_all((FOLDER / name).read_text()) if document]


MANIFESTS = [document for name in KUSTOMIZATION["resources"] for document in documents(name)]


def named(kind):
    return {document["metadata"]["name"]: document for document in MANIFESTS if document["kind"] == kind}


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda manifest: f"{manifest['kind']}-{manifest['metadata']['name']}"
)
def test_the_manifest_is_valid(manifest):
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_every_file_is_applied_or_says_how():
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert files == {*KUSTOMIZATION["resources"], "kustomization.yaml", "spot-runtime.yaml"}
    assert "kubectl apply -f pipelines/manifests/spot-runtime.yaml" in (FOLDER / "spot-runtime.yaml").read_text()


def test_bindings_name_what_there_is():
    for binding in named("RoleBinding").values():
        assert binding["roleRef"]["name"] in named("Role")
        assert {subject["name"] for subject in binding["subjects"]} <= set(named("ServiceAccount"))
    bound = {subject["name"] for binding in named("RoleBinding").values() for subject in binding["subjects"]}
    assert set(named("ServiceAccount")) - bound == {"mtlrank-train"}  # it asks nothing of Kubernetes


def test_no_rule_gives_everything():
    for role in named("Role").values():
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]


def test_the_launcher_may_do_what_it_does():
    """Each request of tests/components/launch/kube_server.py has its rule."""
    rules = named("Role")["mtlrank-launch"]["rules"]
    may = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert may == {
        ("trainjobs", "create"),
        ("trainjobs", "get"),
        ("trainjobs", "delete"),
        ("pods", "get"),
        ("pods", "list"),
        ("pods/log", "get"),
        ("events", "list"),
    }


def test_the_runtime_is_one_that_trainer_knows():
    (runtime,) = documents("spot-runtime.yaml")
    assert TrainerV1alpha1ClusterTrainingRuntime.from_dict(runtime).to_dict() == runtime
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == job["template"]["spec"]["template"]["spec"]["containers"][0]["name"] == "node"
    assert job["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert "ttlSecondsAfterFinished" not in str(runtime)  # Trainer would make a failed job anew when it is gone
