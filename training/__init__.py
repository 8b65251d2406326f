"""Trains the default model, and fine-tunes it; not part of the installed package."""
