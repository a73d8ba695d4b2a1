"""mtlrank: train one transformer body with one head per dataset, for ranking and the tasks that help it."""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what trainer.deterministic needs; cuBLAS reads it once

__version__ = "0.1.0"
