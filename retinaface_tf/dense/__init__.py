"""Dense 3D faces: topology, fit to landmarks, head pose, and the branches that predict vertices."""
