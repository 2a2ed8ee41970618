"""Labels that a model adds to those of people: landmarks for boxes, boxes for landmarks, faces that nobody marked."""
