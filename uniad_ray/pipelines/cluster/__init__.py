"""What every job on Ray shares: the session, worker sizing, devices, decoding.

Import from the modules: `session` and `sizing` need no numpy.
"""
