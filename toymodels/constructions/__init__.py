"""Published constructions of first layers, with the readoffs that come with them."""

from toymodels.constructions.construction import Construction, Request

CONSTRUCTIONS: dict[str, Construction] = {}
"""Constructions by name, for the settings `layer`, `frozen_layer` and `layers`. Add your own to set it beside the others."""

__all__ = ["CONSTRUCTIONS", "Construction", "Request"]
