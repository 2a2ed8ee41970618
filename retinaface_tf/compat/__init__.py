"""Calls and results of other face detection packages, for a step-by-step migration.

from retinaface_tf.compat import RetinaFace       # retina-face: RetinaFace.detect_faces(img)
from retinaface_tf.compat import FaceAnalysis     # insightface: FaceAnalysis().get(img), boxes and landmarks
from retinaface_tf.compat import bb6              # biubug6/Pytorch_Retinaface: dets [N, 15]
"""

from retinaface_tf.compat import bb6
from retinaface_tf.compat.insightface import FaceAnalysis, from_insightface
from retinaface_tf.compat.retina_face import RetinaFace, from_retina_face, to_retina_face

__all__ = ["FaceAnalysis", "RetinaFace", "bb6", "from_insightface", "from_retina_face", "to_retina_face"]
