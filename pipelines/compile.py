"""Write a compiled pipeline, whose steps run on the image named by MTLRANK_IMAGE.

python -m pipelines.compile build/mtl_ranking.yaml
python -m pipelines.compile build/mtl_ranking_nodes.yaml
python -m pipelines.compile build/mtl_study.yaml --parallelism 4 --volume my-claim:/data --env IR_DATASETS_HOME=/data
"""

from pathlib import Path
from typing import Annotated

import typer
from kfp import compiler
from kfp.dsl.graph_component import GraphComponent

from components.base import IMAGE
from mtlrank.errors import ConfigError
from mtlrank.guard import errors_in_one_line
from pipelines.image import check_image, set_image
from pipelines.mtl_ranking import mtl_ranking
from pipelines.mtl_ranking_nodes import mtl_ranking_nodes
from pipelines.mtl_study import mtl_study
from pipelines.variant import PLAIN, Memory, Parallelism, Variables, Variant, Volumes


def write(path: Path, pipeline: GraphComponent = mtl_ranking, variant: Variant = PLAIN) -> None:
    """Compile a variant of a pipeline into `path`.

    Raises:
        ConfigError: The image's name may later stand for another image, or the pipeline cannot have this variant.

    """
    pipeline = variant.of(pipeline)
    set_image(pipeline, check_image(IMAGE))
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path))


@errors_in_one_line()
def main(
    target: Annotated[
        Path, typer.Argument(help="Output path; the file must be named after the pipeline, as in mtl_study.yaml.")
    ] = Path("build/mtl_ranking.yaml"),
    parallelism: Parallelism = None,
    volume: Volumes = None,
    env: Variables = None,
    memory: Memory = None,
) -> None:
    """Write a compiled pipeline, whose steps run on the image named by MTLRANK_IMAGE."""
    by_name = {f"{each.name.replace('-', '_')}.yaml": each for each in (mtl_ranking, mtl_ranking_nodes, mtl_study)}
    if target.name not in by_name:
        raise ConfigError(f"Expected a path that ends in {' or '.join(by_name)}, found {str(target)!r}.")
    write(target, by_name[target.name], Variant.given(parallelism, volume, env, memory))
    print(f"wrote {target}")


if __name__ == "__main__":
    typer.run(main)
