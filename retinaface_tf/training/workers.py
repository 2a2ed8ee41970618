"""Who of several workers writes, what do all agree on, and what if one is lost?

Under any other strategy there is one worker, the chief, and nothing to agree on.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from retinaface_tf.common.types import PathLike


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Number of processes that train together: 1 under any strategy but the multi-worker one."""
    return strategy.extended._num_workers if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) else 1


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what all have in common: checkpoints, logs, the progress bar."""
    return num_workers(strategy) == 1 or strategy.extended._is_chief


def from_chief(strategy: tf.distribute.Strategy, number: int) -> int:
    """The chief's number, on every worker. All workers must call it at the same point; none goes on before all have.

    Args:
        number: int, for instance the step of the newest checkpoint that this worker sees; any, where it is the chief's
            word that counts. With a constant this is a plain barrier.

    Returns:
        int.
    """
    if num_workers(strategy) == 1:
        return int(number)
    mine = tf.constant(int(number) if is_chief(strategy) else 0, tf.int64)
    return int(strategy.reduce(tf.distribute.ReduceOp.SUM, mine, axis=None))


@contextlib.contextmanager
def checkpoint_folder(strategy: tf.distribute.Strategy, folder: PathLike) -> Iterator[Path]:
    """The folder to save checkpoints into: the real one on the chief, one that vanishes on all others.

    All workers must save, at the same steps: variables that are summed when read (those of metrics) are read with all
    workers' help, and a chief that saves alone ends the training. All read from the real folder, which they share.

    Yields:
        `Path`.
    """
    if is_chief(strategy):
        yield Path(folder)
    else:
        with tempfile.TemporaryDirectory(prefix="retinaface-tf-not-chief-") as scratch:
            yield Path(scratch)


def is_lost_worker(error: BaseException) -> bool:
    """Whether a TensorFlow error is what a worker sees when another one is gone: bool."""
    kinds = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    return isinstance(error, kinds) or "Collective ops is aborted" in str(error)


@contextlib.contextmanager
def lost_worker_is_one_line(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Around all that trains: a worker that is killed or ends early ends this one too, with one line.

    TensorFlow notices after 10 seconds that a worker sends no heartbeat, sooner that it was started again, and at once
    that the chief is gone; the process then needs about 10 seconds more to end. The ring can't be mended: all workers
    must be started again and go on from the last checkpoint. One that hangs but still sends heartbeats is not noticed:
    there is no limit on how long the others wait, since evaluating or saving on the chief may take long.

    Raises:
        ConnectionError: another worker is lost.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if num_workers(strategy) == 1 or not is_lost_worker(error):
            raise
        reason = error.message.partition("aborted by: ")[2].splitlines() or [error.message]
        raise ConnectionError(
            "another worker of this training is lost; start all workers again with the same command, and they go on "
            f"from the last checkpoint ({' '.join(reason[0].split())[:300]})"
        ) from None
