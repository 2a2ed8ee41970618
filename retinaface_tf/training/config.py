"""Everything a training run can be told, as frozen dataclasses; recipes and words of the command line fill them.

Standard library only.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retinaface_tf.training.config_checks import arguments, checked, in_range, require_field


@dataclass(frozen=True)
class AugmentConfig:
    """What happens to a photo before the network sees it; see `data.augment.Augmentation` and `data.mosaic`.

    `crop_sides` are parts of the photo's short side; over 1 the photo is surrounded by its mean colour. `mirror`,
    `colour_probability`, `rot90` and `mosaic` are probabilities, `rotation` is in degrees, `min_face` in pixels.
    """

    enabled: bool = True
    crop_sides: tuple[float, ...] | None = (0.3, 0.45, 0.6, 0.8, 1.0)
    mirror: float = 0.5
    colour_probability: float = 0.5
    rot90: float = 0.0
    rotation: float = 0.0
    mosaic: float = 0.0
    min_face: float = 0.0


@dataclass(frozen=True)
class DataConfig:
    """Batches: `batch_size` is that of all devices together; `max_faces` fixes the padding (for TPUs)."""

    image_size: int = 640
    batch_size: int = 32
    shuffle_buffer: int = 1024
    max_faces: int | None = None
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TargetConfig:
    """Which anchors learn which faces; see `AnchorTarget`. Of a cascade, the heads after the first."""

    matching: str = "iou"
    positive_iou: float = 0.35
    negative_iou: float = 0.35
    forced_iou: float | None = 0.2
    top_k: int = 9
    occluded_weight: float = 1.0


@dataclass(frozen=True)
class FirstTargetConfig(TargetConfig):
    """The same for the first heads of a cascade; without one it is not used. The defaults are the paper's."""

    positive_iou: float = 0.7
    negative_iou: float = 0.3
    forced_iou: float | None = None


@dataclass(frozen=True)
class LossConfig:
    """See `DetectionLoss`."""

    face: str = "mined_cross_entropy"
    box: str = "smooth_l1"
    face_weight: float = 1.0
    box_weight: float = 2.0
    landmark_weight: float = 1.0
    negatives_per_positive: int = 7
    negatives_without_faces: int = 0
    landmark_by_face_size: bool = False


@dataclass(frozen=True)
class VertexConfig:
    """The loss of a dense branch, see `VertexLoss`; not used without one. `weight` 0.01 is the paper's."""

    weight: float = 0.01
    edge_weight: float = 1.0
    consistency_weight: float = 1.0
    anchors_an_image: int = 32


@dataclass(frozen=True)
class MeshConfig:
    """The loss of a dense branch of form "mesh", see `MeshLoss`; not used without. `weight` 0.01 is the paper's."""

    weight: float = 0.01
    faces: int = 8
    crop: int = 40
    smallest: float = 24.0
    landmark_weight: float = 1.0
    prior_weight: float = 1.0


@dataclass(frozen=True)
class OptimizerConfig:
    """See `MomentumSGD`. `clip_norm` is of all gradients together; `average` the momentum of averaged weights (EMA)."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decoupled: bool = False
    clip_norm: float | None = None
    accumulate: int = 1
    average: float | None = None


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over epochs; see `training.schedule`."""

    kind: str = "step"
    learning_rate: float = 1e-3
    warmup_epochs: float = 0.0
    warmup_rate: float = 0.0
    decay_epochs: tuple[float, ...] = (190, 220)
    decay_factor: float = 0.1
    final_rate: float = 0.0


@dataclass(frozen=True)
class FreezeConfig:
    """What does not learn: statistics and scales of batch normalisation, the first `body_stages` of the body.

    With `detector` all but a dense branch: boxes, scores and landmarks stay as they are, to the bit.

    So many batches as `calibrate` first measure the statistics of weights whose normalisation had been folded away (see
    `training.unfold`), so that it can learn again; 0 leaves it as it is.
    """

    batch_norm: bool = False
    body_stages: int = 0
    detector: bool = False
    calibrate: int = 0


@dataclass(frozen=True)
class DistillConfig:
    """Learning without forgetting; see `training.distillation.Distillation`. A `weight` of 0 is without.

    `teacher` is a preset or `.keras` file; `None` for the weights that the run starts from.
    """

    weight: float = 0.0
    teacher: str | None = None
    ignore_score: float = 0.5
    keep_boxes: float | None = None
    landmark_weight: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        preset: whose architecture is trained: name, or folder with a `preset.json`.
        architecture: arguments of `RetinaFace` that replace the preset's, such as {"deformable": "v2"}.
        weights: preset or `.keras` file whose weights it starts from; `None` for fresh ones.
        blend: in (0, 1]. What is kept of a run is this part of the trained weights and the rest of those that it
            started from (WiSE-FT, arXiv 2109.01903); 1 keeps the trained ones.
        epochs: int.
        steps_per_epoch: int or `None` for as many as it takes to see every photo once.
        seed: of the fresh weights, the order of the photos and the augmentations.
        dtype: "float32", "mixed_bfloat16" or "mixed_float16".
        sync_batch_norm: bool. Statistics of the batch of all devices rather than of each device's part.
        validate_every: epochs between two validations; one more follows the last epoch.
        checkpoint_steps: steps between two checkpoints; one more follows every epoch.
        keep_checkpoints: int.
        log_steps: steps between two lines of `steps.csv`.
    """

    preset: str = "mobilenet025"
    architecture: dict = field(default_factory=dict)
    weights: str | None = None
    blend: float = 1.0
    epochs: int = 250
    steps_per_epoch: int | None = None
    seed: int = 0
    dtype: str = "float32"
    sync_batch_norm: bool = False
    validate_every: int = 5
    checkpoint_steps: int = 200
    keep_checkpoints: int = 2
    log_steps: int = 20
    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    first_target: FirstTargetConfig = field(default_factory=FirstTargetConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    vertices: VertexConfig = field(default_factory=VertexConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """A config with other values.

    Args:
        config: any of the dataclasses here.
        changes: dict of dotted field name -> value, or of field name -> value or another such dict.

    Returns:
        The new config, of the same class.

    Raises:
        ValueError: for a field that is not there, listing those that are, or a value of the wrong type.
    """
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        require_field(config, first)
        old = getattr(config, first)
        if dataclasses.is_dataclass(old):
            if not rest and not isinstance(value, dict):
                names = [f"{first}.{f.name}" for f in dataclasses.fields(old)]
                raise ValueError(f"`{first}` is a group of fields. Give one of {names}")
            new = override(old, {rest: value} if rest else value)
        elif isinstance(old, dict):
            new = {**old, **arguments(first, {rest: value} if rest else value)}
        elif rest:
            raise ValueError(f"`{first}` is a single value. Received: {name}={value!r}")
        else:
            new = in_range(first, checked(config, first, value))
        config = dataclasses.replace(config, **{first: new})
    return config


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """`["schedule.learning_rate=0.01", …]` to the dict that `override` takes: values as in JSON, or bare words."""
    changes = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ValueError(f"expected FIELD=VALUE, such as schedule.learning_rate=0.01. Received: {word!r}")
        try:
            changes[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
        except ValueError:
            try:
                changes[name] = float(text)  # JSON has no ".5"
            except ValueError:
                changes[name] = text
    return changes


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values, as JSON holds them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def differences(one: Any, other: Any) -> list[str]:
    """Dotted names of the fields in which two configs of a class differ: list of str."""

    def flat(value, prefix=""):
        for key, item in value.items():
            yield from flat(item, f"{prefix}{key}.") if isinstance(item, dict) else [(prefix + key, item)]

    first, second = dict(flat(to_dict(one))), dict(flat(to_dict(other)))
    return [name for name in {**first, **second} if first.get(name) != second.get(name)]
