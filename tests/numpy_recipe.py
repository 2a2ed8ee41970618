"""The published recipe once more, in float64 NumPy with plain loops: what the graph's matching and losses must give.

Written from the papers and the recipe's description, not from our own code: no function of the package is used.
"""

import numpy as np

NEGATIVE, IGNORED = -1, -2


def iou(a, b):
    """Intersection over union of two `xyxy` boxes in float32, as the graph has it; 0 where either has no area."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    own, other = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    if min(width, height, a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]) <= 0:
        return np.float32(0)
    return width * height / (own + other - width * height)


def iou_table(faces, anchors):
    return np.array([[iou(face, anchor) for anchor in anchors] for face in faces]).reshape(len(faces), len(anchors))


def match_by_iou(faces, anchors, positive=0.35, negative=0.35, forced=0.2):
    """One image's anchors to faces: `faces` `[F, 4]`, `anchors` `[A, 4]`; int `[A]`."""
    table = iou_table(faces, anchors)
    match = []
    for anchor in range(len(anchors)):
        best_face, best = NEGATIVE, 0
        for face in range(len(faces)):
            if table[face, anchor] > best:  # the first of equals stays
                best_face, best = face, table[face, anchor]
        match.append(best_face if best >= positive else IGNORED if best >= negative else NEGATIVE)
    for face in range(len(faces)) if forced is not None else ():
        best_anchor, best = None, 0
        for anchor in range(len(anchors)):
            if table[face, anchor] > best:
                best_anchor, best = anchor, table[face, anchor]
        if best_anchor is not None and best >= forced:
            match[best_anchor] = face  # a later face takes it
    return np.array(match, np.int64).reshape(-1)


def match_by_atss(faces, anchors, level_counts, top_k=9, forced=None):
    """ATSS (arXiv 1912.02424, algorithm 1) of one image; int `[A]`."""
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    match, owned = np.full(len(anchors), NEGATIVE), np.zeros(len(anchors))
    wishes = []
    for number, face in enumerate(faces):
        if not (face[2] > face[0] and face[3] > face[1]):
            continue
        candidates, first = [], 0
        for count in level_counts:
            distance = [np.sum((centers[a] - (face[:2] + face[2:]) / 2) ** 2) for a in range(first, first + count)]
            candidates += [first + i for i in np.argsort(distance, kind="stable")[:top_k]]
            first += count
        overlap = np.array([iou(face, anchors[a]) for a in candidates], np.float64)
        threshold = overlap.mean() + (overlap.std(ddof=1) if len(overlap) > 1 else 0)
        for anchor, own in zip(candidates, overlap, strict=True):
            inside = np.all(centers[anchor] > face[:2]) and np.all(centers[anchor] < face[2:])
            # Of two faces that overlap it alike the later one has it.
            if inside and own >= threshold and own > 0 and own >= owned[anchor]:
                match[anchor], owned[anchor] = number, own
        best = candidates[int(np.argmax(overlap))]
        if forced is not None and overlap.max() >= forced:
            wishes.append((best, number))
    for anchor, number in wishes:
        match[anchor] = number
    return match


def encode(face, landmarks, anchor, variances=(0.1, 0.2)):
    """Offsets of one face's box `[4]` and landmarks `[5, 2]` from one anchor."""
    face, landmarks, anchor = (np.asarray(v, np.float64) for v in (face, landmarks, anchor))
    center, side = (anchor[:2] + anchor[2:]) / 2, anchor[2:] - anchor[:2]
    shift = ((face[:2] + face[2:]) / 2 - center) / (variances[0] * side)
    scale = np.log((face[2:] - face[:2]) / side) / variances[1]
    return np.concatenate([shift, scale]), (landmarks - center) / (variances[0] * side)


def smooth_l1(difference):
    size = abs(difference)
    return np.where(size < 1, 0.5 * size**2, size - 0.5)


def cross_entropy(logits, label):
    """Softmax cross-entropy of logits `[..., 2]`."""
    largest = logits.max(axis=-1)
    return largest + np.log(np.exp(logits - largest[..., None]).sum(axis=-1)) - logits[..., label]


def bb6_losses(predictions, faces, anchors, ratio=7, match=match_by_iou):
    """Unweighted face, box and landmark loss of a batch, and their gradients.

    `predictions`: "face" `[N, A, 2]`, "box" `[N, A, 4]`, "landmark" `[N, A, 5, 2]`; `faces`: "boxes", "landmarks",
    "visible" with padding. Returns two dicts with the same keys: floats, and arrays in the predictions' shapes.
    """
    logits, box, landmark = (np.asarray(predictions[k], np.float64) for k in ("face", "box", "landmark"))
    sums = {"face": 0.0, "box": 0.0, "landmark": 0.0}
    gradients = {"face": np.zeros_like(logits), "box": np.zeros_like(box), "landmark": np.zeros_like(landmark)}
    positives = with_landmarks = 0
    for n in range(len(logits)):
        matched = match(faces["boxes"][n], anchors)
        chosen = []
        for a in np.flatnonzero(matched >= 0):
            face = matched[a]
            box_goal, landmark_goal = encode(faces["boxes"][n, face], faces["landmarks"][n, face], anchors[a])
            sums["box"] += smooth_l1(box[n, a] - box_goal).sum()
            gradients["box"][n, a] = np.clip(box[n, a] - box_goal, -1, 1)
            labeled = np.flatnonzero(faces["visible"][n, face] >= 0)
            with_landmarks += len(labeled) > 0
            for point in labeled:
                difference = landmark[n, a, point] - landmark_goal[point]
                sums["landmark"] += smooth_l1(difference).sum()
                gradients["landmark"][n, a, point] = np.clip(difference, -1, 1)
            chosen.append((a, 1))
        positives += len(chosen)
        hardness = cross_entropy(logits[n], 0).round(9)  # equal are equal, whatever the last bit says
        negatives = [a for a in np.argsort(-hardness, kind="stable") if matched[a] == NEGATIVE]
        chosen += [(a, 0) for a in negatives[: ratio * len(chosen)]]
        for a, label in chosen:
            sums["face"] += cross_entropy(logits[n, a], label)
            softmax = np.exp(logits[n, a] - logits[n, a].max())
            gradients["face"][n, a] = softmax / softmax.sum() - np.eye(2)[label]
    counts = {"face": max(positives, 1), "box": max(positives, 1), "landmark": max(with_landmarks, 1)}
    return {k: v / counts[k] for k, v in sums.items()}, {k: v / counts[k] for k, v in gradients.items()}
