"""Steps of the pipeline: each names its inputs and outputs and calls mtlrank. All of them run on one image."""

import functools
import os

from kfp import dsl

from mtlrank import __version__

IMAGE = os.environ.get("MTLRANK_IMAGE") or f"mtlrank:{__version__}"

step = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
