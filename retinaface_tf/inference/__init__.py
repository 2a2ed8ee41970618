"""Photo to faces around any runtime. No Keras."""
