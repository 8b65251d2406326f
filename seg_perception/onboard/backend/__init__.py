"""Backends: what runs a canonical model. They import `base` and what lies below, never one another."""
