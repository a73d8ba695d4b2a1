"""Write the compiled pipeline.

python -m pipelines.compile build/mtl_ranking.yaml
"""

import sys
from pathlib import Path

from kfp import compiler
from kfp.dsl.graph_component import GraphComponent

from pipelines.mtl_ranking import mtl_ranking


def write(path: Path, pipeline: GraphComponent = mtl_ranking) -> None:
    """Compile a pipeline into `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path))


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/mtl_ranking.yaml")
    write(target)
    print(f"wrote {target}")
