"""The network that learned to look at memories, asked without one."""

from __future__ import annotations

from come_nav.core.errors import ConfigError
from come_nav.world_model.model import DiffusionWorldModel


def memory_network_alone(model: DiffusionWorldModel) -> DiffusionWorldModel:
    """Return a model of the memory network alone, which sees what the spatial expert sees but for the cloud.

    That is the context and the frames before it. What the spatial expert gains over it is what the memory is worth;
    what it gains over the base is what the network's own training is worth.

    Raises:
        ConfigError: for a model that looks at no views.
    """
    if model.depth is None:
        raise ConfigError("this model looks at no views, so it has no memory network")
    own = DiffusionWorldModel(
        model.autoencoder,
        {"base": model.memory_base},
        model.schedule,
        model.sampler,
        rate_hz=model.rate_hz,
        images=model.images,
        inference=model.inference,
        depth=model.depth,
        reprojection=model.reprojection,
    )
    return own.with_memory().composed({"short_term": 1.0}, "average")
