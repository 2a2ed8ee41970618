"""What a preset says of its own training. No TensorFlow."""

from retinaface_tf import presets
from retinaface_tf.common.types import PathLike
from retinaface_tf.training.config import TrainConfig, override


def read_recipe(preset: PathLike) -> TrainConfig:
    """The `TrainConfig` that a preset's card gives as its recipe.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    recipe = presets.load(preset).get("recipe", {})
    return override(TrainConfig(preset=str(preset)), recipe.get("config", {}))
