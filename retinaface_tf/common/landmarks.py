"""The five landmarks of a face: their order, their names, their mirror, and the states of a label."""

# Left and right are as seen in the image.
LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
MIRRORED_LANDMARKS = (1, 0, 2, 4, 3)  # index of each one's partner in a mirrored image

# States of a labeled landmark.
NOT_LABELED, OCCLUDED, VISIBLE = -1, 0, 1
