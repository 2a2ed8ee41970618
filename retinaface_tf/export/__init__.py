"""A trained model as a file that runs elsewhere: SavedModel, TFLite, ONNX, and the proof that it finds the same faces.

Every artifact takes pixels and returns faces in pixels; `exports/README.md` is the card of their signatures.
"""
