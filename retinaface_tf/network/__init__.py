"""The network: backbone, feature pyramid, context modules and heads."""
