"""Models by name: what brings the files of the catalogue to this machine."""
