"""Does the score enter the logs of the right epochs, from the model as it is then?"""

import numpy as np
import pytest
from evaluation_data import found, ground_truth
from PIL import Image

keras = pytest.importorskip("keras")

from retinaface_tf.training.validation import FaceAP  # noqa: E402


class Learner(keras.Model):
    """A model whose box is wrong until its one weight has been trained."""

    def __init__(self):
        super().__init__()
        self.shift = self.add_weight(shape=(), initializer=keras.initializers.Constant(100.0))
        self.thresholds = []

    def call(self, inputs):
        return inputs[:, 0] * 0 + self.shift

    def detect(self, image, score_threshold, resize, close_ups):
        self.thresholds.append(score_threshold)
        x = float(self.shift)
        return found([[10 + x, 10, 30 + x, 30]], [0.9])


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    return {"e/a": tmp_path / "a.png"}


def test_scores_come_every_second_epoch_and_improve(photo):
    faces = ground_truth({"e/a": [[10, 10, 30, 30]], "e/elsewhere": [[0, 0, 5, 5]]})
    callback = FaceAP(photo, faces, every=2, mean_over_iou=True)
    model = Learner()
    model.compile(optimizer=keras.optimizers.SGD(0.25), loss="mse")
    history = model.fit(np.zeros((1, 1)), np.zeros((1, 1)), epochs=8, callbacks=[callback], verbose=0)
    assert list(callback.history) == [1, 3, 5, 7]
    assert history.history["val_ap_all"][0] == 0
    assert callback.history[7]["val_ap_all"] == 1  # the photo that is not there is not missed
    assert 0 < callback.history[7]["val_map_all"] <= 1
    assert model.thresholds == [0.02] * 4


def test_any_callable_may_detect(photo):
    faces = ground_truth({"e/a": [[10, 10, 30, 30]]})
    callback = FaceAP(photo, faces, detect=lambda image: found([[10, 10, 30, 30]], [0.5]), protocol="vga")
    logs = {}
    callback.on_epoch_end(0, logs)
    assert logs == {"val_ap_all": 0.0}  # the box is in the pixels of the enlarged view
    with pytest.raises(ValueError, match="every"):
        FaceAP(photo, faces, every=0)
