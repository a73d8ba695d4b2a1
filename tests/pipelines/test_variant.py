"""What is compiled into a pipeline: how many pods of a loop run at once, volumes, variables, memory."""

import pytest
import yaml
from kfp import dsl, kubernetes
from kfp.compiler import Compiler

from mtlrank.errors import ConfigError
from pipelines.compile import write
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes
from pipelines.mtl_study import mtl_study
from pipelines.schedule import app as schedule
from pipelines.submit import app as submit
from pipelines.upload import app as upload
from pipelines.variant import Variant


def limits(spec):
    """Of each loop that has one."""
    tasks = [
        task
        for component in (spec["root"], *spec["components"].values())
        for task in component.get("dag", {}).get("tasks", {}).values()
    ]
    assert sum("parameterIterator" in task for task in tasks) == 3
    return {task["taskInfo"]["name"]: task["iteratorPolicy"] for task in tasks if "iteratorPolicy" in task}


@pytest.mark.parametrize(
    ("pipeline", "loop"), [(mtl_study, "try-each"), (mtl_ranking, "judge-each"), (mtl_ranking_nodes, "judge-each")]
)
def test_pods_that_may_have_gpus_are_limited(pipeline, loop, tmp_path):
    for limit, found in ((None, {}), (4, {loop: {"parallelismLimit": 4}}), (None, {})):
        write(tmp_path / "pipeline.yaml", pipeline, Variant(limit))
        assert limits(next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))) == found


def pods(path):
    """(path to claim, variables) of each step of a compiled pipeline."""
    spec, platform = yaml.safe_load_all(path.read_text())
    containers = {name: each["container"] for name, each in spec["deploymentSpec"]["executors"].items()}
    configs = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert containers.keys() == configs.keys()
    return {
        name: (
            {mount["mountPath"]: mount["constant"] for mount in configs[name].get("pvcMount", [])},
            {variable["name"]: variable["value"] for variable in container.get("env", [])},
        )
        for name, container in containers.items()
    }


@pytest.mark.parametrize("pipeline", [mtl_study, mtl_ranking, mtl_ranking_nodes])
def test_each_step_has_the_volumes_and_the_variables(pipeline, tmp_path):
    path = tmp_path / "pipeline.yaml"
    write(path, pipeline)
    plain = path.read_text()
    assert all(each == ({}, {}) for each in pods(path).values())
    write(path, pipeline, Variant(volumes=["my-data:/data", "more:/more/data"], env=["MTLRANK_REAL_DATA=/data/a=b"]))
    expected = {"/data": "my-data", "/more/data": "more"}, {"MTLRANK_REAL_DATA": "/data/a=b"}
    assert all(each == expected for each in pods(path).values())
    write(path, pipeline)
    assert path.read_text() == plain


def test_a_volume_is_mounted_as_kfp_mounts_it(tmp_path):
    @dsl.component(base_image="any")
    def step():
        pass

    @dsl.pipeline
    def by_kfp():
        kubernetes.mount_pvc(step(), "my-data", "/data")

    Compiler().compile(by_kfp, str(tmp_path / "kfp.yaml"))
    write(tmp_path / "ours.yaml", variant=Variant(volumes=["my-data:/data"]))
    theirs, ours = (list(yaml.safe_load_all((tmp_path / name).read_text()))[1] for name in ("kfp.yaml", "ours.yaml"))
    (mounts,) = (each["pvcMount"] for each in executors(theirs).values())
    assert executors(ours)["exec-prepare"]["pvcMount"] == mounts


def executors(platform):
    return platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_a_step_may_have_more_memory(tmp_path):
    write(tmp_path / "plain.yaml")
    write(tmp_path / "more.yaml", variant=Variant(memory=["prepare=16Gi", "merge=64Gi"]))
    plain, more = (
        {name: each["container"]["resources"] for name, each in spec["deploymentSpec"]["executors"].items()}
        for spec in (next(yaml.safe_load_all((tmp_path / f"{name}.yaml").read_text())) for name in ("plain", "more"))
    )
    changed = {"memoryLimit": 68.719476736, "memoryRequest": 68.719476736} | dict.fromkeys(
        ["resourceMemoryLimit", "resourceMemoryRequest"], "64Gi"
    )
    assert more == plain | {"exec-merge": plain["exec-merge"] | changed}


def test_what_is_sent_has_it(server, invoke):
    words = ["--pipeline", "mtl_study", "--parallelism", "2", "--volume", "my-data:/data", "--env", "A=1"]
    assert invoke(submit, *words).exit_code == 0
    assert invoke(upload, *words).exit_code == 0
    assert invoke(schedule, "create", "nightly", "--cron", "0 3 * * *", *words).exit_code == 0
    sent = server.only("runs")["pipeline_spec"], server.only("versions")["pipeline_spec"]
    for spec in sent:
        assert limits(spec["pipeline_spec"]) == {"try-each": {"parallelismLimit": 2}}
        assert executors(spec["platform_spec"])["exec-trial"]["pvcMount"][0]["mountPath"] == "/data"
        assert spec["pipeline_spec"]["deploymentSpec"]["executors"]["exec-trial"]["container"]["env"] == [
            {"name": "A", "value": "1"}
        ]


def test_variables_that_only_sound_like_secrets_are_taken(tmp_path):
    env = ["TOKENIZERS_PARALLELISM=false", "GOOGLE_APPLICATION_CREDENTIALS=/data/key.json", "HF_TOKEN_PATH=/data/token"]
    env += ["BYPASS=1", "PATH=bin", "COMPASS_DIR=a", "KEY_COLUMN=id", "SECRETARY=a", "MY_SECRET_FILE=/data/secret"]
    write(tmp_path / "pipeline.yaml", variant=Variant(env=env))
    assert all(len(variables) == len(env) for _, variables in pods(tmp_path / "pipeline.yaml").values())


SECRETS = """
SECRET AWS_SECRET_ACCESS_KEY AWS_SECRET_ACCESS_KEY_ID my_secret_file KAGGLE_KEY GITHUB_TOKEN AZURE_PAT APIKEY OPENAI_APIKEY
DB_PASS DB_PASSWD DB_PASSWORD DB_PWD PGPASSWORD
"""


@pytest.mark.parametrize("name", SECRETS.split())
def test_variables_that_sound_like_secrets_are_refused(name):
    with pytest.raises(ConfigError, match=f"--env {name}: .* this looks like a secret"):
        Variant(env=[f"{name}=abc"]).of(mtl_ranking)


def test_a_folder_on_a_volume_outlives_pods(server, invoke):
    words = ["registry=/data/registry", 'tasks=["trec2019"]']
    assert "without a volume there" in invoke(submit, *words).stderr
    assert "without a volume there" in invoke(submit, *words, "--volume", "my-data:/data/other").stderr
    assert "without a volume there" not in invoke(submit, *words, "--volume", "my-data:/data").stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--parallelism", "0"], "--parallelism"),
        (["--package", "x.yaml", "--parallelism", "2"], "compiled already: give --parallelism to"),
        (["--package", "x.yaml", "--env", "A=1", "--volume", "a:/b"], "compiled already: give --volume and --env to"),
        (["--volume", "my-data"], "--volume 'my-data': expected a claim and an absolute path, as in my-claim:/data."),
        (["--volume", "my-data:data"], "expected a claim and an absolute path"),
        (["--volume", "My_Data:/data"], "expected a claim and an absolute path"),
        (["--volume", "my-data:/data:ro"], "expected a claim and an absolute path"),
        (["--volume", "a:/data", "--volume", "b:/data/"], "--volume: the path /data is given twice."),
        (["--volume", "a:/data", "--volume", "a:/more"], "--volume: the claim a is given twice."),
        (["--volume", "a:/."], "expected a claim and an absolute path"),
        (["--volume", "a://"], "expected a claim and an absolute path"),
        (["--volume", "my.data:/data"], "expected a claim and an absolute path"),
        (["--volume", "a:/.cache"], "would hide what steps need in /.cache"),
        (["--memory", "prepare=0Gi"], "expected one of check, evaluate, merge, prepare"),
        (["--memory", "prepare=1Mi"], "and an amount of at least 64Mi, as in prepare=64Gi."),
        (["--memory", "prepare=8Gi", "--memory", "prepare=16Gi"], "--memory prepare is given twice."),
        (["--volume", "a:/dev/shm"], "--volume 'a:/dev/shm' would hide what steps need in /dev"),
        (["--volume", "dshm:/data"], "--volume 'dshm:/data': steps have a volume of the name dshm. Choose another"),
        (["--volume", "a:/opt"], "would hide what steps need in /opt"),
        (
            ["--env", "AWS_SECRET_ACCESS_KEY=abc"],
            "this looks like a secret. Give the steps' service account the rights",
        ),
        (
            ["--memory", "prepare=64"],
            "--memory 'prepare=64': expected one of check, evaluate, merge, prepare",
        ),
        (["--memory", "train=64Gi"], "expected one of check, evaluate, merge, prepare, promote, report, and an amount"),
        (["--env", "HOME"], "--env 'HOME': expected NAME=VALUE, as in IR_DATASETS_HOME=/data."),
        (["--env", "A=1", "--env", "A=2"], "--env A is given twice."),
        (["--env", "WANDB_API_KEY=abc"], "Put it into the Secret 'mtlrank' of the namespace."),
    ],
)
def test_what_cannot_be_compiled_is_told(server, invoke, words, complaint):
    result = invoke(submit, *words)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "abc" not in result.stderr
    assert not server.store.runs
