"""Everything a training run can be told, as frozen dataclasses; recipes and words of the command line fill them.

Standard library only.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

AT_LEAST_1 = (
    *("epochs", "steps_per_epoch", "validate_every", "checkpoint_steps", "keep_checkpoints", "log_steps"),
    *("image_size", "batch_size", "accumulate"),
)
AT_LEAST_0 = (
    *("seed", "negatives_per_positive", "negatives_without_faces", "face_weight", "box_weight", "landmark_weight"),
    *(
        "weight",
        "weight_decay",
        "warmup_epochs",
        "warmup_rate",
        "decay_factor",
        "final_rate",
        "body_stages",
        "calibrate",
    ),
)
ABOVE_0 = ("learning_rate", "clip_norm", "blend", "ignore_score")
AT_MOST_1 = ("blend", "ignore_score")


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
    """Which anchors learn which faces; see `AnchorTarget`."""

    matching: str = "iou"
    positive_iou: float = 0.35
    negative_iou: float = 0.35
    forced_iou: float | None = 0.2
    top_k: int = 9
    occluded_weight: float = 1.0


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

    So many batches as `calibrate` first measure the statistics of weights whose normalisation had been folded away (see
    `training.unfold`), so that it can learn again; 0 leaves it as it is.
    """

    batch_norm: bool = False
    body_stages: int = 0
    calibrate: int = 0


@dataclass(frozen=True)
class DistillConfig:
    """Learning without forgetting; see `training.distillation.Distillation`. A `weight` of 0 is without.

    `teacher` is a preset or `.keras` file; `None` for the weights that the run starts from.
    """

    weight: float = 0.0
    teacher: str | None = None
    ignore_score: float = 0.5


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        preset: whose architecture is trained: name, or folder with a `preset.json`.
        weights: preset or `.keras` file whose weights it starts from; `None` for fresh ones.
        blend: in (0, 1]. What is kept of a run is this part of the trained weights and the rest of those that it
            started from (WiSE-FT, arXiv 2109.01903); 1 keeps the trained ones.
        epochs: int.
        steps_per_epoch: int or `None` for as many as it takes to see every photo once.
        seed: of the fresh weights, the order of the photos and the augmentations.
        dtype: "float32", "mixed_bfloat16" or "mixed_float16".
        sync_batch_norm: bool. Statistics of the batch of all devices rather than of each device's part.
        validate_every: epochs between two validations.
        checkpoint_steps: steps between two checkpoints; one more follows every epoch.
        keep_checkpoints: int.
        log_steps: steps between two lines of `steps.csv`.
    """

    preset: str = "mobilenet025"
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
    loss: LossConfig = field(default_factory=LossConfig)
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
        _require_field(config, first)
        old = getattr(config, first)
        if dataclasses.is_dataclass(old):
            if not rest and not isinstance(value, dict):
                names = [f"{first}.{f.name}" for f in dataclasses.fields(old)]
                raise ValueError(f"`{first}` is a group of fields. Give one of {names}")
            new = override(old, {rest: value} if rest else value)
        elif rest:
            raise ValueError(f"`{first}` is a single value. Received: {name}={value!r}")
        else:
            new = _in_range(first, _checked(config, first, value))
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
    return [name for name in first if first[name] != second.get(name)]


def _require_field(config, name):
    names = [f.name for f in dataclasses.fields(config)]
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"`{type(config).__name__}` has no field `{name}`{hint}. Expected one of {names}")


def _checked(config, name, value):
    """The value as the field's type wants it, or ValueError."""
    wanted = typing.get_type_hints(type(config))[name]
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if option is float and _is_number(value):
            return float(value)
        if option is int and _is_number(value) and value == int(value):
            return int(value)
        if option in (bool, str) and isinstance(value, option):
            return value
        if typing.get_origin(option) is tuple:
            items = value if isinstance(value, (list, tuple)) else [value]
            if all(map(_is_number, items)):
                return tuple(float(item) for item in items)
    kinds = {type(None): "null", tuple[float, ...]: "a list of numbers"}
    expected = " or ".join(kinds.get(option) or option.__name__ for option in options)
    raise ValueError(f"`{name}` of `{type(config).__name__}` must be {expected}. Received: {name}={value!r}")


def _in_range(name, value):
    """The value, or ValueError. What has two sides, or depends on others, is checked by who uses it."""
    if value is not None:
        if name in ABOVE_0 and value <= 0:
            raise ValueError(f"`{name}` must be above 0. Received: {name}={value}")
        if name in AT_MOST_1 and value > 1:
            raise ValueError(f"`{name}` must be at most 1. Received: {name}={value}")
        least = 1 if name in AT_LEAST_1 else 0 if name in AT_LEAST_0 else -math.inf
        if not isinstance(value, (str, tuple)) and value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}")
    return value


def _is_number(value):
    """Whether it is a finite number: JSON as Python reads it has NaN and Infinity too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
