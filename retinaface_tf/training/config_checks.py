"""Whether a value may stand in a field of a config: its type, its range, or what would be right.

Standard library only.
"""

import dataclasses
import difflib
import math
import types
import typing

AT_LEAST_1 = (
    *("epochs", "steps_per_epoch", "validate_every", "checkpoint_steps", "keep_checkpoints", "log_steps"),
    *("image_size", "batch_size", "accumulate", "anchors_an_image", "faces"),
)
AT_LEAST_0 = (
    *("seed", "negatives_per_positive", "negatives_without_faces", "face_weight", "box_weight", "landmark_weight"),
    *("edge_weight", "consistency_weight", "prior_weight", "smallest"),
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
ARCHITECTURE = {  # arguments of `RetinaFace` that a run may change, and what they are
    "backbone": str,
    "anchors": dict,
    "num_filters": int,
    "shared_context": bool,
    "deformable": str | None,
    "cascade": bool,
    "dense": str | dict | None,
}
ABOVE_0 = ("learning_rate", "clip_norm", "blend", "ignore_score", "keep_boxes")
AT_MOST_1 = ("blend", "ignore_score", "keep_boxes")


def require_field(config, name):
    names = [f.name for f in dataclasses.fields(config)]
    if name not in names:
        deeper = [dotted for dotted in _dotted(config) if dotted.rpartition(".")[2] == name]
        close = deeper or difflib.get_close_matches(name, names, 1)
        hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        raise ValueError(f"`{type(config).__name__}` has no field `{name}`{hint}. Expected one of {names}")


def _dotted(config):
    """Names of all fields, those of groups as "schedule.learning_rate"."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        yield field.name
        if dataclasses.is_dataclass(value):
            yield from (f"{field.name}.{name}" for name in _dotted(value))


def arguments(name, value):
    """A dict of arguments of `RetinaFace`, or ValueError. Which values are possible, `RetinaFace` says."""
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` is a group of fields. Give one of {[f'{name}.{a}' for a in ARCHITECTURE]}")
    if unknown := [argument for argument in value if argument not in ARCHITECTURE]:
        raise ValueError(f"`{name}` has no field `{unknown[0]}`. Expected one of {list(ARCHITECTURE)}")
    for argument, given in value.items():
        kind = ARCHITECTURE[argument]
        if not isinstance(given, kind) or isinstance(given, bool) is not (kind is bool):
            expected = getattr(kind, "__name__", kind)
            raise ValueError(f"`{name}.{argument}` must be {expected}. Received: {given!r}")
    return value


def checked(config, name, value):
    """The value as the field's type wants it, or ValueError."""
    wanted = typing.get_type_hints(type(config))[name]
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if option is float and is_number(value):
            return float(value)
        if option is int and is_number(value) and value == int(value):
            return int(value)
        if option in (bool, str) and isinstance(value, option):
            return value
        if typing.get_origin(option) is tuple:
            items = value if isinstance(value, (list, tuple)) else [value]
            if all(map(is_number, items)):
                return tuple(float(item) for item in items)
    kinds = {type(None): "null", tuple[float, ...]: "a list of numbers"}
    expected = " or ".join(kinds.get(option) or option.__name__ for option in options)
    raise ValueError(f"`{name}` of `{type(config).__name__}` must be {expected}. Received: {name}={value!r}")


def in_range(name, value):
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


def is_number(value):
    """Whether it is a finite number: JSON as Python reads it has NaN and Infinity too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
