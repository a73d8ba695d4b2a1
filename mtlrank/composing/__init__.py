"""From a command line's words, or a pipeline's parameters, to one checked config of plain values."""
