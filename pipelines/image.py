"""The image that all steps run on."""

import re

from kfp.dsl.base_component import BaseComponent

from mtlrank.errors import ConfigError

MOVING = {"latest", "dirty", "main", "master", "develop", "dev", "edge", "nightly", "stable", "snapshot"}

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(  # of the distribution project
    rf"(?:(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::\d+)?)/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)


def check_image(image: str) -> str:
    """The name itself, if its image cannot change: a digest, or a tag with a whole version or a commit.

    The cache and reruns go by the name. Another image under it would silently give old results, or other ones.
    """
    if not _REFERENCE.fullmatch(image):
        raise ConfigError(
            f"MTLRANK_IMAGE is {image!r}, which is no name of an image: expected one as "
            "registry.example.com/team/mtlrank:0.1.0, in small letters but for the tag."
        )
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    words = re.split(r"[._+-]", tag.lower())
    whole = re.search(r"\d+\.\d+\.\d+", tag) or any(re.fullmatch("g?[0-9a-f]{7,40}", word) for word in words)
    if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) or (not digest and whole and not MOVING.intersection(words)):
        return image
    raise ConfigError(
        f"The image {image!r} can change: expected a tag with a version or commit, as `make image` gives in a committed "
        "checkout (0.1.0-g1a2b3c4), or a digest (name@sha256:...). Set MTLRANK_IMAGE to it."
    )


def is_for_cpus(image: str) -> bool:
    """Whether an image has a name that `make image` gives without CUDA. Other names may stand for either."""
    name = image.rpartition("/")[2]
    return bool(re.fullmatch(r"mtlrank:\d+\.\d+\.\d+(-g[0-9a-f]{7,40})?(-[a-z.]+)?", name)) and "-cuda" not in name


def set_image(pipeline: BaseComponent, image: str) -> None:
    """Let all steps of a pipeline run on `image`."""
    for executor in pipeline.pipeline_spec.deployment_spec["executors"].values():
        executor["container"]["image"] = image
