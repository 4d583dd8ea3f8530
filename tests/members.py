"""Members that one test registers, gone when it ends."""

from toymodels.registry import Registry


def own(monkeypatch, registry: Registry) -> Registry:
    """Return the registry, whose members are those of now again after the test."""
    len(registry)  # its own members are loaded first
    monkeypatch.setattr(registry, "_members", dict(registry._members))
    return registry
