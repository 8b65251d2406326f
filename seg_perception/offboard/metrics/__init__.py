"""How well boxes and masks agree, and the forms in which they are exchanged with evaluation tools."""
