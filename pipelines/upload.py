"""Put the pipeline on a server, where it can be started from the UI.

python -m pipelines.upload
"""

import json
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from mtlrank.errors import ConfigError
from mtlrank.guard import errors_in_one_line
from pipelines.client import Client, Endpoint, Namespace, Token, connect, explained_errors, id_of
from pipelines.package import File, Package, Pipeline, opened
from pipelines.variant import Memory, Parallelism, Variables, Variant, Volumes

Version = Annotated[str | None, typer.Option(help="Name of the version; default: the tag of the steps' image.")]

app = typer.Typer(add_completion=False)


@app.command()
@errors_in_one_line()
def main(
    name: Annotated[str | None, typer.Option(help="Name of the pipeline on the server; default: its own.")] = None,
    version: Version = None,
    pipeline: Pipeline = "mtl_ranking",
    package: File = None,
    parallelism: Parallelism = None,
    volume: Volumes = None,
    env: Variables = None,
    memory: Memory = None,
    endpoint: Endpoint = None,
    namespace: Namespace = None,
    token: Token = None,
) -> None:
    """Upload the pipeline, or a new version of it: `python -m pipelines.upload`.

    A version that exists already is left as it is.
    """
    if name is not None and not name.strip():
        raise ConfigError("--name is empty: expected a name, such as mtl-ranking.")
    with opened(pipeline, package, variant=Variant.given(parallelism, volume, env, memory)) as compiled:
        version = version_name(compiled, version)
        upload(connect(endpoint, namespace, token), compiled, name or compiled.name, version)


def version_name(package: Package, name: str | None) -> str:
    """`name`, or the tag of the steps' image."""
    if name is not None and not name.strip():
        raise ConfigError("--version is empty: expected a name, such as 0.1.0.")
    found = name or package.image_tag()
    if not found:
        raise ConfigError("The steps have several images or no tag: name the version with --version.")
    return found


def upload(client: Client, package: Package, name: str, version: str) -> tuple[str, str]:
    """Put a version of a pipeline on the server unless it is there; returns the ids of pipeline and version."""
    with explained_errors():
        pipeline_id = _pipeline_id(client, name) or _create(client, name)
        there = _version(client, pipeline_id, version)
        if there is None:
            made = client.upload_pipeline_version(str(package.path), version, pipeline_id)
            version_id = id_of(made, "pipeline_version_id")
            print(f"uploaded {name}, version {version}")
            return pipeline_id, version_id
    uploaded = there.pipeline_spec  # alone, or beside that of the platform
    if _specs(uploaded.get("pipeline_spec", uploaded), uploaded.get("platform_spec")) != _specs(*package.documents()):
        raise ConfigError(
            f"{name} has a version {version} already, with other content. Choose another name with --version, or build "
            "an image with a tag of its own."
        )
    print(f"{name} has this version already: {version}")
    return pipeline_id, str(there.pipeline_version_id)


def _pipeline_id(client: Client, name: str) -> str | None:
    found = client.list_pipelines(filter=named(name), namespace=client.get_user_namespace() or None).pipelines or []
    return next((pipeline.pipeline_id for pipeline in found if pipeline.display_name == name), None)


def _create(client: Client, name: str) -> str:
    """An empty pipeline: kfp's own upload would add a first version with the pipeline's name."""
    wanted = client.api_models.V2beta1Pipeline(
        name=name, display_name=name, namespace=client.get_user_namespace() or None
    )
    return id_of(client.pipelines.pipeline_service_create_pipeline(wanted), "pipeline_id")


def _version(client: Client, pipeline_id: str, name: str) -> Any:
    found = client.list_pipeline_versions(pipeline_id, filter=named(name)).pipeline_versions or []
    return next((version for version in found if version.display_name == name), None)


def named(name: str) -> str:
    """The server's filter for this display name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _specs(pipeline: dict[str, Any], platform: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Specs to compare: numbers have one form, and which kfp compiled them does not matter."""
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=True)
    spec.sdk_version = ""
    return spec, json_format.ParseDict(platform or {}, pipeline_spec_pb2.PlatformSpec(), ignore_unknown_fields=True)


if __name__ == "__main__":
    app(prog_name="python -m pipelines.upload")
