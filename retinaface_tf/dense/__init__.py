"""The dense face: a topology of vertices, its fit to landmarks, head pose, and the branches that predict it."""
