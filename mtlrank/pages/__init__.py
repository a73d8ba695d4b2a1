"""Self-contained HTML pages: templates with escaped text, and pictures as SVG."""

from importlib.resources import files
from typing import Any

import jinja2


def render(template: str, **values: Any) -> str:
    """Fill a template; all text is escaped, only our own SVG is marked as safe there."""
    source = files("mtlrank.pages").joinpath("templates")
    loader = jinja2.FunctionLoader(lambda name: source.joinpath(name).read_text("utf-8"))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(template).render(**values)
