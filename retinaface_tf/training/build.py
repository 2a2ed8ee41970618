"""From a `TrainConfig` to a compiled model: weights, optimiser, losses, and back to a model for detection."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from retinaface_tf.dense.mesh_loss import MeshLoss
from retinaface_tf.dense.vertex_loss import VertexLoss
from retinaface_tf.detector import RetinaFace
from retinaface_tf.geometry.anchor_target import AnchorTarget
from retinaface_tf.training.detection_loss import DetectionLoss
from retinaface_tf.training.distillation import Distillation
from retinaface_tf.training.optimizer import MomentumSGD
from retinaface_tf.training.schedule import WarmupSchedule
from retinaface_tf.training.start import start_from

if TYPE_CHECKING:
    from retinaface_tf.training.config import TrainConfig


def build_model(config: TrainConfig) -> RetinaFace:
    """The `RetinaFace` of a `TrainConfig` with the weights that it starts from, not yet compiled.

    Raises:
        ValueError: the weights are of another architecture.
    """
    model = RetinaFace.from_preset(config.preset, weights=False, dtype=config.dtype, **config.architecture)
    if config.weights is not None:
        source = RetinaFace.from_preset(config.weights)
        try:
            start_from(model, source)
        except ValueError as error:
            raise ValueError(
                f"the weights of {config.weights} are of another architecture than {config.preset}: {error}"
            ) from None
    return model


def compile_model(model: RetinaFace, config: TrainConfig, steps_per_epoch: int) -> None:
    """Compile a model as a `TrainConfig` says; its batch normalisation must have been frozen by then."""
    variances = model.variances

    def target(options):
        return AnchorTarget(variances=variances, **dataclasses.asdict(options))

    model.compile(
        build_optimizer(config, steps_per_epoch),
        DetectionLoss(variances=variances, **dataclasses.asdict(config.loss)),
        target(config.target),
        distillation=_build_distillation(model, config),
        first_anchor_target=target(config.first_target) if model.cascade else None,
        vertex_loss=_build_vertex_loss(model, config),
    )


def needs_vertex_labels(model: RetinaFace) -> bool:
    """Whether a model has a dense branch that learns from labelled vertices: one of form "mesh" does not."""
    return model.vertex_decoder is not None and model.vertex_decoder.needs_labels


def _build_vertex_loss(model, config):
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
        raise ValueError("distill.weight compares offsets from the anchors, which a cascade has not")
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
    """A twin with the same weights, in float32 and without optimiser, whose momentum would double a saved file."""
    twin = RetinaFace(**{**model.get_config(), "dtype": "float32"})
    twin.set_weights(model.get_weights())
    return twin
