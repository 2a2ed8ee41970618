"""Detection with any runtime. No Keras."""
