"""Tests of real launchers, which start daemons: run by `make cluster` alone, which asks for the mark."""


def pytest_collection_modifyitems(config, items):
    """Leaves the tests of this folder out unless they are asked for by `-m cluster`."""
    if "cluster" in (config.option.markexpr or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("cluster")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
