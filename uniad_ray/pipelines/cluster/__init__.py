"""What every job on Ray shares: the session, worker sizing, devices, decoding."""
