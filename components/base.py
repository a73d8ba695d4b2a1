"""What all components are made with. Steps cannot import it: kfp defines components nowhere but outside of them."""

import functools
import os

from kfp import dsl

from mtlrank import __version__

IMAGE = os.environ.get("MTLRANK_IMAGE") or f"mtlrank:{__version__}"

step = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
