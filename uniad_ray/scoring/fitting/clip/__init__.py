"""Labels of objects, to tune the CLIP that names them."""
