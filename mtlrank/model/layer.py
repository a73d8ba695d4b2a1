"""How layers are named: by number, from the end, or as a share of the depth."""

from mtlrank.errors import ConfigError


def resolve_layer(layer: int | float, num_layers: int) -> int:
    """The number of a layer. Raises `ConfigError` for one that the body does not have."""
    if isinstance(layer, float) and 0 <= layer <= 1:
        return round(layer * num_layers)
    if isinstance(layer, int) and -num_layers <= layer <= num_layers:
        return layer if layer >= 0 else num_layers + 1 + layer
    raise ConfigError(
        f"layer {layer} is deeper than the body, which has {num_layers} layers. "
        f"Expected 0 (embeddings) to {num_layers}, -1 for the last, or a share of the depth such as 0.5."
    )
