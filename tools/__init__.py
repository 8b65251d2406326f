"""Set-up of the development environment; needs nothing beyond the standard library."""
