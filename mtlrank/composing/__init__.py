"""From command-line overrides, or a pipeline's parameters, to one checked config of plain values."""
