"""Rewrites any model of a known family into a canonical one (see `seg_perception.core.contract`)."""
