"""The configuration of a training run, as frozen dataclasses that check their values.

Each field has its range. Recipes and `--set` give the values. Does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retinaface_tf import presets
from retinaface_tf.common.types import PathLike

SIZE_STEP = 8
FINE_TUNING = {  # the recipe of a preset that has weights and no recipe of its own
    "epochs": 20,
    "data": {"batch_size": 16},
    "schedule": {"kind": "cosine", "learning_rate": 1e-4, "warmup_epochs": 0.3},
    "optimizer": {"clip_norm": 10.0},
    "loss": {"landmark_by_face_size": True, "negatives_without_faces": 20},
}
RENAMED = {"colour_probability": "color_probability"}  # fields of version 0.1, still accepted
ARCHITECTURE = {  # arguments of `RetinaFace` that a run may change, and their types
    "backbone": str,
    "anchors": dict,
    "num_filters": int,
    "shared_context": bool,
    "deformable": str | None,
    "cascade": bool,
    "dense": str | dict | None,
}


def value(default: Any, **limits: Any) -> Any:
    """A field with a range: `at_least`, `above`, `below`, `at_most` (of each item of a list), or `choices`, a tuple."""
    return field(default=default, metadata=limits)


class Config:
    """Base of the dataclasses below: checks types and ranges wherever one is built.

    Raises:
        ValueError: a value is of the wrong type or out of its range.
    """

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            given = getattr(self, one.name)
            checked = _typed(type(self), one.name, given)
            _require_range(one, checked)
            if type(checked) is not type(given) or checked != given:
                object.__setattr__(self, one.name, checked)


@dataclass(frozen=True)
class AugmentConfig(Config):
    """Augmentation of the photos; see `data.augment.Augmentation` and `data.transforms.mosaic`.

    `crop_sides` are fractions of the short side of the photo; above 1, a border in the mean color is added. `mirror`,
    `color_probability`, `rot90`, `mosaic`, `face_size_probability` and `blur` are probabilities, `rotation` is in
    degrees, `min_face` in pixels. `face_sizes` (smallest, largest) in pixels crops so that a random face gets a random
    size between them, on a logarithmic scale.
    """

    enabled: bool = True
    crop_sides: tuple[float, ...] | None = value((0.3, 0.45, 0.6, 0.8, 1.0), above=0)
    mirror: float = value(0.5, at_least=0, at_most=1)
    color_probability: float = value(0.5, at_least=0, at_most=1)
    rot90: float = value(0.0, at_least=0, at_most=1)
    rotation: float = value(0.0, at_least=0)
    mosaic: float = value(0.0, at_least=0, at_most=1)
    min_face: float = value(0.0, at_least=0)
    face_sizes: tuple[float, ...] | None = value(None, above=0)
    face_size_probability: float = value(1.0, at_least=0, at_most=1)
    blur: float = value(0.0, at_least=0, at_most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.face_sizes is not None and (len(self.face_sizes) != 2 or self.face_sizes[0] > self.face_sizes[1]):
            raise ValueError(
                f"`face_sizes` must be null or [smallest, largest]. Received: face_sizes={list(self.face_sizes)}"
            )


@dataclass(frozen=True)
class DataConfig(Config):
    """Batches. `batch_size` counts all devices together; `max_faces` fixes the padding (for TPUs)."""

    image_size: int = value(640, at_least=1, at_most=4096)
    batch_size: int = value(32, at_least=1)
    shuffle_buffer: int = value(1024, at_least=1)
    max_faces: int | None = value(None, at_least=1)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if rest := self.image_size % SIZE_STEP:
            low = self.image_size - rest
            good = " or ".join(str(size) for size in (low, low + SIZE_STEP) if size)
            raise ValueError(
                f"`image_size` must be a multiple of {SIZE_STEP}, the finest stride: take {good}. "
                f"Received: image_size={self.image_size}"
            )


@dataclass(frozen=True)
class TargetConfig(Config):
    """Matching of anchors and faces, see `AnchorTarget`. In a cascade, for the second heads."""

    matching: str = value("iou", choices=("iou", "atss"))
    positive_iou: float = value(0.35, above=0, at_most=1)
    negative_iou: float = value(0.35, above=0, at_most=1)
    forced_iou: float | None = value(0.2, above=0, at_most=1)
    top_k: int = value(9, at_least=1)
    occluded_weight: float = value(1.0, at_least=0)
    ignore_below: float = value(0.0, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative_iou > self.positive_iou:
            raise ValueError(
                "`negative_iou` must not be above `positive_iou`. Received: "
                f"negative_iou={self.negative_iou}, positive_iou={self.positive_iou}"
            )


@dataclass(frozen=True)
class FirstTargetConfig(TargetConfig):
    """Matching for the first heads of a cascade; otherwise not used. The defaults are those of the paper."""

    positive_iou: float = value(0.7, above=0, at_most=1)
    negative_iou: float = value(0.3, above=0, at_most=1)
    forced_iou: float | None = value(None, above=0, at_most=1)


@dataclass(frozen=True)
class LossConfig(Config):
    """See `DetectionLoss`."""

    face: str = value("mined_cross_entropy", choices=("mined_cross_entropy", "focal", "quality_focal"))
    box: str = value("smooth_l1", choices=("smooth_l1", "diou", "giou"))
    face_weight: float = value(1.0, at_least=0)
    box_weight: float = value(2.0, at_least=0)
    landmark_weight: float = value(1.0, at_least=0)
    negatives_per_positive: int = value(7, at_least=0)
    negatives_without_faces: int = value(0, at_least=0)
    landmark_by_face_size: bool = False
    soft_scores: bool = False


@dataclass(frozen=True)
class VertexConfig(Config):
    """The loss of a dense branch, see `VertexLoss`; not used without one. `weight` 0.01 is the paper's."""

    weight: float = value(0.01, at_least=0)
    edge_weight: float = value(1.0, at_least=0)
    consistency_weight: float = value(1.0, at_least=0)
    anchors_an_image: int = value(32, at_least=1)


@dataclass(frozen=True)
class MeshConfig(Config):
    """The loss of a dense branch of form "mesh", see `MeshLoss`; not used without. `weight` 0.01 is the paper's."""

    weight: float = value(0.01, at_least=0)
    faces: int = value(8, at_least=1)
    crop: int = value(40, at_least=8)
    smallest: float = value(24.0, at_least=0)
    landmark_weight: float = value(1.0, at_least=0)
    prior_weight: float = value(1.0, at_least=0)


@dataclass(frozen=True)
class OptimizerConfig(Config):
    """See `MomentumSGD`. `clip_norm` is for all gradients together; `average` is the momentum of the EMA weights."""

    momentum: float = value(0.9, at_least=0, below=1)
    nesterov: bool = False
    weight_decay: float = value(5e-4, at_least=0)
    decoupled: bool = False
    clip_norm: float | None = value(None, above=0)
    accumulate: int = value(1, at_least=1)
    average: float | None = value(None, at_least=0, below=1)


@dataclass(frozen=True)
class ScheduleConfig(Config):
    """The learning rate over epochs; see `WarmupSchedule`."""

    kind: str = value("step", choices=("step", "cosine", "constant"))
    learning_rate: float = value(1e-3, above=0)
    warmup_epochs: float = value(0.0, at_least=0)
    warmup_rate: float = value(0.0, at_least=0)
    decay_epochs: tuple[float, ...] = value((190, 220), at_least=0)
    decay_factor: float = value(0.1, at_least=0)
    final_rate: float = value(0.0, at_least=0)


@dataclass(frozen=True)
class FreezeConfig(Config):
    """Parts that are not trained: batch normalization, and the first `body_stages` stages of the backbone.

    `detector` freezes everything except a dense branch: boxes, scores and landmarks stay exactly the same.

    `batch_norm` freezes scales, shifts and statistics of batch normalization. `calibrate` is the number of batches that
    first measure the statistics of weights whose normalization had been folded away (see `unfold_batch_norm`), so that
    it can learn again; `None` measures them where it is needed, 0 never.
    """

    batch_norm: bool = False
    body_stages: int = value(0, at_least=0)
    detector: bool = False
    calibrate: int | None = value(None, at_least=0)


@dataclass(frozen=True)
class DistillConfig(Config):
    """Distillation from a teacher; see `training.distillation.Distillation`. A `weight` of 0 turns it off.

    `teacher` is a preset or `.keras` file; `None` for the weights that the run starts from.
    """

    weight: float = value(0.0, at_least=0)
    teacher: str | None = None
    ignore_score: float = value(0.5, above=0, at_most=1)
    keep_boxes: float | None = value(None, above=0, at_most=1)
    landmark_weight: float = value(1.0, at_least=0)


@dataclass(frozen=True)
class TrainConfig(Config):
    """A training run.

    Attributes:
        preset: the architecture to train: name, or folder with a `preset.json`.
        architecture: arguments of `RetinaFace` that replace the preset's, such as {"deformable": "v2"}.
        weights: preset or `.keras` file to start from; `None` for random weights.
        blend: in (0, 1]. Share of the trained weights in the saved weights; the rest are the starting weights
            (WiSE-FT, arXiv 2109.01903). 1 saves the trained weights.
        epochs: int.
        steps_per_epoch: int, or `None` to see every photo once.
        seed: of random weights, the order of the photos and augmentation.
        dtype: "float32", "mixed_bfloat16" or "mixed_float16".
        sync_batch_norm: bool. Statistics of the batch of all devices rather than of each device's part.
        validate_every: epochs between two validations; one more follows the last epoch. `None` validates after each
            epoch with up to 200 validation photos, else after each fifth.
        patience: epochs without a better validation AP after which the run ends early; `None` for never.
        checkpoint_steps: steps between two checkpoints; one more follows every epoch.
        keep_checkpoints: int.
        log_steps: steps between two lines of `steps.csv`.
    """

    preset: str = "mobilenet025"
    architecture: dict = field(default_factory=dict)
    weights: str | None = None
    blend: float = value(1.0, above=0, at_most=1)
    epochs: int = value(250, at_least=1)
    steps_per_epoch: int | None = value(None, at_least=1)
    seed: int = value(0, at_least=0)
    dtype: str = value("float32", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    sync_batch_norm: bool = False
    validate_every: int | None = value(None, at_least=1)
    patience: int | None = value(None, at_least=1)
    checkpoint_steps: int = value(200, at_least=1)
    keep_checkpoints: int = value(2, at_least=1)
    log_steps: int = value(20, at_least=1)
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


def read_recipe(preset: PathLike, from_scratch: bool = False) -> TrainConfig:
    """The `TrainConfig` that the card of a preset gives as its recipe.

    Args:
        preset: name, or folder with a `preset.json`.
        from_scratch: bool. Start from random weights; otherwise from those that the recipe names, or else from the
            preset's own, if it has any. A preset with weights and without a recipe is fine-tuned by `FINE_TUNING`.

    Raises:
        ValueError: for an unknown name, listing the known ones.
    """
    card = presets.load(preset)
    weights = str(preset) if "weights" in card and not from_scratch else None
    recipe = card.get("recipe", {}).get("config", FINE_TUNING if weights else {})
    config = override(TrainConfig(preset=str(preset), weights=weights), recipe)
    return dataclasses.replace(config, weights=None) if from_scratch else config


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """A config with other values: a dict of dotted field names, or of field names with a value or another such dict.

    Raises:
        ValueError: for a field that is not there, listing those that are, or a value of the wrong type or range.
    """
    return _override(config, changes.items())


def _override(config, changes):
    """The same for (name, value) pairs: two may be of one group."""
    replaced, groups = {}, {}
    for name, given in changes:
        name = RENAMED.get(name, name)
        first, _, rest = name.partition(".")
        require_field(config, first)
        old = getattr(config, first)
        if dataclasses.is_dataclass(old):
            if not rest and not isinstance(given, Mapping):
                names = [f"{first}.{f.name}" for f in dataclasses.fields(old)]
                raise ValueError(f"`{first}` is a group of fields. Give one of {names}")
            groups.setdefault(first, []).extend([(rest, given)] if rest else given.items())
        elif isinstance(old, dict):
            more = _architecture(first, {rest: given} if rest else given)
            replaced[first] = {**replaced.get(first, old), **more}
        elif rest:
            raise ValueError(f"`{first}` is a single value. Received: {name}={given!r}")
        else:
            replaced[first] = given
    # A group changes at once: one value alone may not fit the others' old ones.
    replaced |= {first: _override(getattr(config, first), pairs) for first, pairs in groups.items()}
    return dataclasses.replace(config, **replaced)


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """`["schedule.learning_rate=0.01", …]` to the dict that `override` takes: values as in JSON, or bare words."""
    changes = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ValueError(f"expected FIELD=VALUE, such as schedule.learning_rate=0.01. Received: {word!r}")
        try:
            changes[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
        except (ValueError, RecursionError):
            try:
                changes[name] = float(text)  # JSON has no ".5"
            except ValueError:
                changes[name] = text
    return changes


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values, as JSON holds them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def require_field(config: Any, name: str) -> None:
    """Raise ValueError, with what could be meant, unless a config has a field of this name."""
    names = [f.name for f in dataclasses.fields(config)]
    if name not in names:
        deeper = [dotted for dotted in _dotted(config) if dotted.rpartition(".")[2] == name]
        close = deeper or difflib.get_close_matches(name, names, 1)
        hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        raise ValueError(f"`{type(config).__name__}` has no field `{name}`{hint}. Expected one of {names}")


def _dotted(config):
    """Names of all fields, those of groups as "schedule.learning_rate"."""
    for one in dataclasses.fields(config):
        given = getattr(config, one.name)
        yield one.name
        if dataclasses.is_dataclass(given):
            yield from (f"{one.name}.{name}" for name in _dotted(given))


def _architecture(name, given):
    """The dict of arguments of `RetinaFace`, checked for names and types; their values are checked by `RetinaFace`."""
    if not isinstance(given, Mapping):
        raise ValueError(f"`{name}` is a group of fields. Give one of {[f'{name}.{a}' for a in ARCHITECTURE]}")
    if unknown := [argument for argument in given if argument not in ARCHITECTURE]:
        raise ValueError(f"`{name}` has no field `{unknown[0]}`. Expected one of {list(ARCHITECTURE)}")
    for argument, item in given.items():
        kind = ARCHITECTURE[argument]
        if not isinstance(item, kind) or isinstance(item, bool) is not (kind is bool):
            expected = getattr(kind, "__name__", kind)
            raise ValueError(f"`{name}.{argument}` must be {expected}. Received: {item!r}")
    return dict(given)


@functools.cache
def _hints(cls):
    return typing.get_type_hints(cls)


def _typed(cls, name, given):
    """The value as the field's type wants it, or ValueError."""
    wanted = _hints(cls)[name]
    if wanted is dict:
        return _architecture(name, given)
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for option in options:
        if option is type(None) and given is None:
            return None
        if option is float and _is_number(given):
            return float(given)
        if option is int and _is_number(given) and given == int(given):
            return int(given)
        if option in (bool, str) and isinstance(given, option):
            return given
        if isinstance(option, type) and issubclass(option, Config) and isinstance(given, option):
            return given
        if typing.get_origin(option) is tuple:
            items = given if isinstance(given, (list, tuple)) else [given]
            if all(map(_is_number, items)):
                return given if isinstance(given, tuple) else tuple(float(item) for item in items)
    kinds = {type(None): "null", tuple[float, ...]: "a list of numbers"}
    expected = " or ".join(kinds.get(option) or option.__name__ for option in options)
    raise ValueError(f"`{name}` of `{cls.__name__}` must be {expected}. Received: {name}={given!r}")


def _require_range(one, given):
    """Raise ValueError unless a value is in the range on its field."""
    limits, name = one.metadata, one.name
    if given is None:
        return
    if "choices" in limits and given not in limits["choices"]:
        raise ValueError(f"`{name}` must be one of {list(limits['choices'])}. Received: {name}={given!r}")
    for item in given if isinstance(given, tuple) else (given,):
        for limit, holds, words in (
            ("at_least", lambda x, y: x >= y, "at least"),
            ("above", lambda x, y: x > y, "above"),
            ("below", lambda x, y: x < y, "below"),
            ("at_most", lambda x, y: x <= y, "at most"),
        ):
            if limit in limits and not holds(item, limits[limit]):
                raise ValueError(f"`{name}` must be {words} {limits[limit]}. Received: {name}={given}")


def _is_number(given):
    """Whether a value is a finite number: JSON as Python reads it has NaN and Infinity too."""
    return isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
