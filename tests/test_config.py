"""What a training run can be told: overrides by dotted name, and refusals that say what would be right."""

import dataclasses
import inspect
import json

import pytest

from retinaface_tf import RetinaFace
from retinaface_tf.common.run_folder import differences
from retinaface_tf.training import config as config_module
from retinaface_tf.training.config import (
    ARCHITECTURE,
    OptimizerConfig,
    TrainConfig,
    override,
    parse_overrides,
    to_dict,
)

CHANGES = {
    "epochs": 3,
    "patience": 4,
    "dtype": "mixed_bfloat16",
    "weights": "mobilenet025_wider",
    "sync_batch_norm": True,
    "data.image_size": 320,
    "data.augment.mirror": 0.25,
    "data.augment.crop_sides": [0.5, 1.5],
    "target.forced_iou": None,
    "first_target.positive_iou": 0.6,
    "loss.box": "diou",
    "optimizer.clip_norm": 10,
    "schedule.decay_epochs": [5, 8.5],
    "freeze.body_stages": 2,
}


def changed(before, now):
    return [name for name, *_ in differences(to_dict(before), to_dict(now))]


def reach(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def test_override():
    before = TrainConfig()
    config = override(before, CHANGES)
    assert type(config) is TrainConfig
    for name, value in CHANGES.items():
        assert reach(config, name) == (tuple(value) if isinstance(value, list) else value), name
        assert reach(before, name) == reach(TrainConfig(), name) != reach(config, name)
    assert type(config.optimizer.clip_norm) is float
    assert sorted(changed(before, config)) == sorted(CHANGES)


def test_the_architecture_may_be_changed():
    words = ["architecture.deformable=v2", "architecture.cascade=true", 'architecture.anchors={"P3": [8, 16]}']
    config = override(TrainConfig(), parse_overrides(words))
    assert config.architecture == {"deformable": "v2", "cascade": True, "anchors": {"P3": [8, 16]}}
    config = override(config, {"architecture": {"cascade": False}})
    assert config.architecture["deformable"] == "v2" and not config.architecture["cascade"]
    assert changed(TrainConfig(), config) == changed(config, TrainConfig()) != []
    assert override(TrainConfig(), to_dict(config)) == config
    arguments = inspect.signature(RetinaFace.__init__).parameters
    assert set(ARCHITECTURE) <= set(arguments)


def test_override_by_groups():
    config = override(
        TrainConfig(), {"data": {"batch_size": 4, "augment": {"mirror": 0}}, "data.augment": {"rot90": 1}}
    )
    assert (config.data.batch_size, config.data.augment.mirror, config.data.augment.rot90) == (4, 0.0, 1.0)
    assert override(TrainConfig(), {}) == TrainConfig()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epoch", r"`TrainConfig` has no field `epoch` \(did you mean 'epochs'\?\). Expected one of \['preset'"),
        ("learning_rate", r"`TrainConfig` has no field `learning_rate` \(did you mean 'schedule\.learning_rate'\?\)"),
        ("weight", r"no field `weight` \(did you mean 'vertices\.weight' or 'mesh\.weight' or 'distill\.weight'\?\)"),
        ("mirror", r"\(did you mean 'data\.augment\.mirror'\?\)"),
        ("schedule.learning_rat", r"`ScheduleConfig` has no field .*'learning_rate'\?.*'kind', 'learning_rate'"),
        ("data.augment.zzz", r"`AugmentConfig` has no field `zzz`\. Expected one of \['enabled', 'crop_sides'"),
        ("architecture", r"`architecture` is a group of fields. Give one of \['architecture.backbone'"),
        ("architecture.deform", r"`architecture` has no field `deform`\. Expected one of \['backbone'"),
        ("architecture.cascade", r"`architecture.cascade` must be bool\. Received: 1"),
        ("optimiser.momentum", r"no field `optimiser` \(did you mean 'optimizer'\?\)"),
        ("", r"`TrainConfig` has no field ``"),
        ("schedule", r"`schedule` is a group of fields. Give one of .*'schedule.learning_rate'"),
        ("epochs.number", r"`epochs` is a single value"),
    ],
)
def test_typos(name, message):
    with pytest.raises(ValueError, match=message):
        override(TrainConfig(), {name: 1})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", "many", "int"),
        ("epochs", 1.5, "int"),
        ("epochs", True, "int"),
        ("epochs", None, "int"),
        ("epochs", float("inf"), "int"),
        ("epochs", float("nan"), "int"),
        ("epochs", [1], "int"),
        ("schedule.learning_rate", "fast", "float"),
        ("schedule.learning_rate", False, "float"),
        ("schedule.learning_rate", float("nan"), "float"),
        ("schedule.learning_rate", float("inf"), "float"),
        ("optimizer.clip_norm", "no", "float or null"),
        ("optimizer.nesterov", 1, "bool"),
        ("optimizer.nesterov", "yes", "bool"),
        ("preset", 5, "str"),
        ("weights", 5, "str or null"),
        ("schedule.decay_epochs", "190,220", "a list of numbers"),
        ("schedule.decay_epochs", ["190"], "a list of numbers"),
        ("schedule.decay_epochs", [float("nan")], "a list of numbers"),
        ("data.augment.crop_sides", {"a": 1}, "a list of numbers or null"),
    ],
)
def test_values_of_the_wrong_type(name, value, expected):
    field = name.rpartition(".")[2]
    with pytest.raises(ValueError, match=f"`{field}` of `.*` must be {expected}. Received: {field}="):
        override(TrainConfig(), {name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("schedule.learning_rate", 0, "above 0"),
        ("schedule.learning_rate", -1e-3, "above 0"),
        ("optimizer.clip_norm", 0, "above 0"),
        ("optimizer.weight_decay", -1e-4, "at least 0"),
        ("schedule.warmup_epochs", -1, "at least 0"),
        ("loss.negatives_per_positive", -3, "at least 0"),
        ("seed", -1, "at least 0"),
        ("data.image_size", 10**9, "at most 4096"),
    ],
)
def test_values_out_of_range(name, value, expected):
    with pytest.raises(ValueError, match=f"must be {expected}. Received: "):
        override(TrainConfig(), {name: value})


@pytest.mark.parametrize(
    "name",
    [
        "epochs",
        "steps_per_epoch",
        "validate_every",
        "checkpoint_steps",
        "keep_checkpoints",
        "log_steps",
        "data.image_size",
        "data.batch_size",
        "optimizer.accumulate",
    ],
)
def test_what_is_counted_is_at_least_1(name):
    field = name.rpartition(".")[2]
    for value in (0, -3):
        with pytest.raises(ValueError, match=f"`{field}` must be at least 1. Received: {field}={value}"):
            override(TrainConfig(), {name: value})
    assert reach(override(TrainConfig(), {name: 8}), name) == 8


def test_types_are_those_of_the_field():
    config = override(TrainConfig(), {"epochs": 3.0, "schedule.learning_rate": 1, "schedule.decay_epochs": 7})
    assert (config.epochs, type(config.epochs)) == (3, int)
    assert type(config.schedule.learning_rate) is float
    assert config.schedule.decay_epochs == (7.0,)


def test_parse_overrides():
    words = [
        "epochs=3",
        "schedule.learning_rate=1e-2",
        "schedule.decay_epochs=[5, 8]",
        "weights=null",
        "optimizer.clip_norm=None",
        "optimizer.nesterov=true",
        "sync_batch_norm=False",
        "dtype=mixed_bfloat16",
        "preset=runs/a=b.keras",
        "loss.box=",
    ]
    assert parse_overrides(words) == {
        "epochs": 3,
        "schedule.learning_rate": 0.01,
        "schedule.decay_epochs": [5, 8],
        "weights": None,
        "optimizer.clip_norm": None,
        "optimizer.nesterov": True,
        "sync_batch_norm": False,
        "dtype": "mixed_bfloat16",
        "preset": "runs/a=b.keras",
        "loss.box": "",
    }
    assert parse_overrides([]) == {}


@pytest.mark.parametrize(("text", "value"), [(".5", 0.5), ("+1", 1.0), ("5.", 5.0)])
def test_numbers_as_people_write_them(text, value):
    assert parse_overrides([f"schedule.learning_rate={text}"]) == {"schedule.learning_rate": value}


@pytest.mark.parametrize("word", ["epochs", "=3", "--epochs"])
def test_words_that_are_no_override(word):
    with pytest.raises(ValueError, match=f"expected FIELD=VALUE.*Received: '{word}'"):
        parse_overrides([word])


def test_round_trip():
    for config in (TrainConfig(), override(TrainConfig(), CHANGES)):
        plain = to_dict(config)
        assert json.loads(json.dumps(plain)) == plain
        assert override(TrainConfig(), plain) == config
        assert changed(config, override(TrainConfig(), plain)) == []


def test_all_are_frozen():
    classes = [one for one in vars(config_module).values() if dataclasses.is_dataclass(one)]
    assert len(classes) == 12
    for one in classes:
        first = dataclasses.fields(one)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one(), first, 1)


def test_groups_have_the_arguments_of_what_they_configure():
    import inspect

    from retinaface_tf.geometry.anchor_target import AnchorTarget
    from retinaface_tf.training.losses import DetectionLoss

    for group, target in ((TrainConfig().target, AnchorTarget), (TrainConfig().loss, DetectionLoss)):
        defaults = {k: p.default for k, p in inspect.signature(target).parameters.items()}
        for name, value in dataclasses.asdict(group).items():
            assert defaults[name] == value, name
    assert OptimizerConfig().momentum == 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainConfig(epochs=-3), "`epochs` must be at least 1. Received: epochs=-3"),
        (lambda: TrainConfig(blend=7.0), "`blend` must be at most 1. Received: blend=7.0"),
        (lambda: TrainConfig(dtype="float8"), "`dtype` must be one of ['float32', 'mixed_bfloat16', 'mixed_float16']"),
        (lambda: TrainConfig(data={"batch_size": 2}), "`data` of `TrainConfig` must be DataConfig"),
        (lambda: TrainConfig(architecture={"width": 2}), "`architecture` has no field `width`"),
        (lambda: OptimizerConfig(momentum=1), "`momentum` must be below 1. Received: momentum=1"),
        (lambda: config_module.AugmentConfig(crop_sides=[1, -0.5]), "`crop_sides` must be above 0"),
        (lambda: config_module.AugmentConfig(mirror=1.5), "`mirror` must be at most 1"),
        (lambda: config_module.AugmentConfig(face_sizes=(64, 8)), "`face_sizes` must be null or [smallest, largest]"),
        (lambda: config_module.TargetConfig(negative_iou=0.5), "`negative_iou` must not be above `positive_iou`"),
        (
            lambda: config_module.DataConfig(image_size=333),
            "a multiple of 8, the finest stride: take 328 or 336",
        ),
        (lambda: config_module.DataConfig(image_size=3), "take 8. Received: image_size=3"),
    ],
)
def test_ranges_hold_wherever_a_config_is_built(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_group_changes_at_once():
    config = override(TrainConfig(), {"target.negative_iou": 0.5, "target.positive_iou": 0.6})
    assert (config.target.negative_iou, config.target.positive_iou) == (0.5, 0.6)


def test_choices_are_those_of_what_is_configured():
    from retinaface_tf.geometry.anchor_target import MATCHINGS
    from retinaface_tf.training.losses import BOX_LOSSES, FACE_LOSSES
    from retinaface_tf.training.optimizer import KINDS

    for group, name, choices in (
        (config_module.TargetConfig, "matching", MATCHINGS),
        (config_module.LossConfig, "face", FACE_LOSSES),
        (config_module.LossConfig, "box", BOX_LOSSES),
        (config_module.ScheduleConfig, "kind", KINDS),
    ):
        fields = {field.name: field for field in dataclasses.fields(group)}
        assert fields[name].metadata["choices"] == choices


def test_augmentation_has_the_arguments_of_what_it_configures():
    from retinaface_tf.data.augment import Augmentation

    defaults = {k: p.default for k, p in inspect.signature(Augmentation).parameters.items()}
    own = {"enabled": True, "mosaic": 0.0}  # of the pipeline
    for name, value in dataclasses.asdict(TrainConfig().data.augment).items():
        assert own.get(name, defaults.get(name)) == value, name
    assert {name for name in own if name in defaults} == set()


def test_a_value_nested_without_end_is_a_word():
    assert parse_overrides(["weights=" + "[" * 50_000])["weights"].startswith("[[[")


def test_a_field_of_version_0_1_is_still_accepted():
    config = override(TrainConfig(), {"data.augment.colour_probability": 0.25})
    assert config.data.augment.color_probability == 0.25
