"""Makes synthetic anomalies from normal images, to judge experts without labels."""
