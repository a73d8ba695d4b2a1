"""Builds objects from a config; other modules build single parts only, with `composing.objects`."""
