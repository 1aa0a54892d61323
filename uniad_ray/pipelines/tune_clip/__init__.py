"""CLIP tuning pipeline: tunes the CLIP that names objects on Ray Train."""
