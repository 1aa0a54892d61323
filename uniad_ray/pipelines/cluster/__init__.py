"""Parts that all Ray jobs share: session, worker sizing, devices, decoding."""
