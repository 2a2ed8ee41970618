"""Build and compile the model of a `TrainConfig`, and turn it back into a model for detection."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from retinaface_tf.dense.losses import MeshLoss, VertexLoss
from retinaface_tf.dense.mesh_branch import MeshBranch, begin_in_boxes
from retinaface_tf.detector import RetinaFace
from retinaface_tf.geometry.anchor_target import AnchorTarget
from retinaface_tf.network.heads import FIRST
from retinaface_tf.training.distillation import Distillation
from retinaface_tf.training.losses import DetectionLoss
from retinaface_tf.training.objective import Objective
from retinaface_tf.training.optimizer import MomentumSGD, WarmupSchedule

if TYPE_CHECKING:
    from retinaface_tf.training.config import TrainConfig


# What the model may have more than the weights, and the value that is without it.
EXTENSIONS = {"deformable": None, "cascade": False, "dense": None}


def build_model(config: TrainConfig) -> RetinaFace:
    """The `RetinaFace` of a `TrainConfig` with the weights that it starts from, not yet compiled.

    Raises:
        ValueError: the weights are of another architecture.
    """
    model = RetinaFace.from_preset(config.preset, load_weights=False, dtype=config.dtype, **config.architecture)
    if config.weights is not None:
        source = RetinaFace.from_preset(config.weights)
        try:
            warm_start(model, source)
        except ValueError as error:
            raise ValueError(
                f"the weights of {config.weights} are of another architecture than {config.preset}: {error}"
            ) from None
    return model


def compile_model(model: RetinaFace, config: TrainConfig, steps_per_epoch: int) -> None:
    """Compile a model as a `TrainConfig` says; its batch normalization must have been frozen by then."""
    variances = model.variances

    def target(options):
        return AnchorTarget(variances=variances, **dataclasses.asdict(options))

    objective = Objective(
        DetectionLoss(variances=variances, **dataclasses.asdict(config.loss)),
        target(config.target),
        first_target=target(config.first_target) if model.cascade else None,
        distillation=_build_distillation(model, config),
        dense_loss=_build_dense_loss(model, config),
    )
    model.compile(build_optimizer(config, steps_per_epoch), loss=objective)


def warm_start(model: RetinaFace, source: RetinaFace) -> None:
    """Write the weights of one `RetinaFace` into another, of the same architecture or of one that extends it.

    Offsets of deformable convolutions that the source has not stay at 0, where they make plain ones. The first heads of
    a new cascade and their context modules get the weights of the source's only ones, and so do the others, but for
    boxes: there heads begin at 0, so that faces and boxes are those of the source. Its landmarks were relative to the
    anchors, and have to learn that they no longer are. A new dense branch stays fresh, but for where a mesh's
    faces begin: see `begin_in_boxes`.

    Raises:
        ValueError: naming what differs in their architectures.
    """
    theirs, ours = ({**m.get_config(), "name": None, "dtype": None} for m in (source, model))
    new = {name for name, without in EXTENSIONS.items() if ours[name] != without and theirs[name] == without}
    if differing := [name for name in ours if ours[name] != theirs[name] and name not in new]:
        # A topology is pages of numbers.
        there, here = ({name: str(each[name])[:200] for name in differing} for each in (theirs, ours))
        raise ValueError("; ".join(f"{name} is {there[name]}, not {here[name]}" for name in differing))
    values = {variable.path: variable for variable in source.variables}
    boxes = {f"box_head_{level}" for level in model.anchor_generator.sizes} if "cascade" in new else set()
    for variable in model.variables:
        layer, _, rest = variable.path.partition("/")
        name = f"{layer.removeprefix(FIRST)}/{rest}" if "cascade" in new else variable.path
        if layer in boxes:
            variable.assign(0 * variable)
        elif "/offsets/" in name and name not in values:
            continue  # 0
        elif "dense" not in new or not variable.path.startswith(("vertex_head_", "vertex_decoder/")):
            variable.assign(values[name])
    branch = model.vertex_decoder
    if "dense" in new and isinstance(branch, MeshBranch):
        sizes = model.anchor_generator.sizes
        begin_in_boxes(branch.codes, branch.embedding, model.variances, sizes, model.get_layer)


def needs_vertex_labels(model: RetinaFace) -> bool:
    """Whether a model has a dense branch that learns from labeled vertices: one of form "mesh" does not."""
    return model.vertex_decoder is not None and model.vertex_decoder.needs_labels


def _build_dense_loss(model, config):
    if model.vertex_decoder is None:
        return None
    kind, options = (VertexLoss, config.vertices) if needs_vertex_labels(model) else (MeshLoss, config.mesh)
    return kind(variances=model.variances, **dataclasses.asdict(options))


def _build_distillation(model, config):
    options = config.distill
    if not options.weight:
        return None
    source = options.teacher or config.weights
    if source is None:
        raise ValueError("distill.weight needs a teacher: give distill.teacher, or weights to start from")
    teacher = RetinaFace.from_preset(source)
    if teacher.anchor_generator.sizes != model.anchor_generator.sizes or teacher.variances != model.variances:
        raise ValueError(f"distill.teacher: {source} has other anchors or variances than {config.preset}")
    if model.cascade or teacher.cascade:
        raise ValueError("distill.weight can't be used with a cascade, because it compares offsets from anchors")
    return Distillation(**{**dataclasses.asdict(options), "teacher": teacher})


def build_optimizer(config: TrainConfig, steps_per_epoch: int) -> MomentumSGD:
    """The `MomentumSGD` of a `TrainConfig`, with its schedule in updates."""
    schedule, options = config.schedule, config.optimizer
    updates_per_epoch = steps_per_epoch / options.accumulate
    rate = WarmupSchedule(
        schedule.learning_rate,
        kind=schedule.kind,
        total_steps=round(config.epochs * updates_per_epoch),
        warmup_steps=round(schedule.warmup_epochs * updates_per_epoch),
        warmup_rate=schedule.warmup_rate,
        decay_steps=[round(epoch * updates_per_epoch) for epoch in schedule.decay_epochs],
        decay_factor=schedule.decay_factor,
        final_rate=schedule.final_rate,
    )
    return MomentumSGD(
        rate,
        name="sgd",  # a name of Keras' making would count up, and checkpoints would not fit a second run in a process
        momentum=options.momentum,
        nesterov=options.nesterov,
        coupled_decay=0.0 if options.decoupled else options.weight_decay,
        weight_decay=options.weight_decay if options.decoupled else None,
        global_clipnorm=options.clip_norm,
        gradient_accumulation_steps=options.accumulate if options.accumulate > 1 else None,
        use_ema=options.average is not None,
        **({} if options.average is None else {"ema_momentum": options.average}),
    )


def for_detection(model: RetinaFace) -> RetinaFace:
    """A twin with the same weights, in float32 and without optimizer, whose momentum would double a saved file."""
    twin = RetinaFace(**{**model.get_config(), "dtype": "float32"})
    twin.set_weights(model.get_weights())
    return twin
