"""mtlrank: train one transformer body with one head per dataset, for ranking and the tasks that help it."""

__version__ = "0.1.0"
