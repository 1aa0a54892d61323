"""Visual anomaly detection, structural and logical, for production image archives, on Ray."""

__version__ = "0.1.0"
