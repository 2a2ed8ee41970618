"""SGD with momentum as PyTorch writes it, so that published recipes mean here what they meant there."""

from typing import Any

import keras
from keras import ops

from retinaface_tf.training.global_gradients import GlobalGradients


@keras.saving.register_keras_serializable("retinaface_tf")
class MomentumSGD(GlobalGradients, keras.optimizers.SGD):
    """`v = momentum * v + (g + decay * w)`, `w = w - rate * v`.

    `keras.optimizers.SGD` keeps the rate inside the velocity and knows decoupled decay only: with a schedule, or the
    published recipes' L2 decay, it takes other steps. Two more things here are as they would be in one step:
    with `gradient_accumulation_steps` the schedule counts updates, and an update enters the average (EMA) once, where
    Keras does both with every batch.

    Args:
        learning_rate, momentum, nesterov, and all of `keras.optimizers.SGD`.
        coupled_decay: float. L2 decay that passes through the momentum, on every variable as in PyTorch.
            `weight_decay` is the decoupled kind: `w = w - rate * weight_decay * w`, beside the step.
    """

    def __init__(
        self, learning_rate: float = 1e-3, momentum: float = 0.9, coupled_decay: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, momentum=momentum, **kwargs)
        self.coupled_decay = coupled_decay

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(gradient, variable.dtype) + self.coupled_decay * variable
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            new_velocity = self.momentum * ops.convert_to_tensor(velocity) + step
            self.assign(velocity, new_velocity)
            step = step + self.momentum * new_velocity if self.nesterov else new_velocity
        self.assign_sub(variable, rate * step)

    def _get_current_learning_rate(self):
        rate = self._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return rate(self.iterations)
        return super()._get_current_learning_rate()

    def _update_model_variables_moving_average(self, trainable_variables):
        count = self.gradient_accumulation_steps
        if not count:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        updated = (ops.convert_to_tensor(self._iterations) + 1) % count == 0
        part = ops.where(self.iterations > 0, 1 - self.ema_momentum, 1.0)  # all of the first
        part = ops.where(updated, part, 0.0)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            if average is not None:
                change = ops.convert_to_tensor(variable) - ops.convert_to_tensor(average)
                average.assign(ops.convert_to_tensor(average) + ops.cast(part, variable.dtype) * change)

    def finalize_variable_values(self, trainable_variables: Any) -> None:
        """Nothing: `fit` would put the averaged weights in place here, also where training is to go on."""

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "coupled_decay": self.coupled_decay}
