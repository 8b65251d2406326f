"""Models over sets of images: what they find, and the labelled sets to hold it against."""
