"""Where a config becomes objects: the only place, apart from single parts that others ask `composing.objects` for."""
