"""A made-up street, seen from a moving car, with exact ground truth for every pixel.

Scene (actors over time) -> camera -> painted frame + truth -> files. Everything follows from one seed.

World coordinates in metres: x to the right, y up, z along the road; angles in radians, yaw 0 looks along +z and turns
towards +x. Colours are blue, green, red from 0 to 255.
"""
