"""Models over sets of pictures: what they find, and the labelled sets to hold it against."""
